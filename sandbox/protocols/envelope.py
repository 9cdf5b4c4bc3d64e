"""The envelope around every answer that is no other standard's. It knows no model."""

from __future__ import annotations

import json
import time
from typing import Any, List, Tuple

from sandbox import result
from sandbox.connection import Connection, fields
from sandbox.refusal import Refusal
from sandbox.result import ResultError

JSON = "Content-Type: application/json\r\n"
_second: List[Any] = [0, ""]


def timestamp() -> str:
    """Now, as 2026-11-20T12:00:00Z; made once a second."""
    now = int(time.time())
    if _second[0] != now:
        _second[:] = [now, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))]
    text: str = _second[1]
    return text


def answer(connection: Connection, request_id: str, data: str, headers: str = "") -> None:
    """Write a success. data: JSON text. headers: further lines."""
    body = (
        f'{{"success":true,"message":"ok","data":{data},'
        f'"timestamp":"{timestamp()}","request_id":{quote(request_id)}}}\n'
    )
    connection.respond(200, f"{JSON}X-Request-ID: {request_id}\r\n{headers}", result.encode(body))


def refuse(connection: Connection, request_id: str, refusal: Refusal, headers: str = "") -> None:
    """Write a refusal."""
    body = (
        f'{{"success":false,"message":{quote(refusal.message)},"error":{error_text(refusal)},'
        f'"timestamp":"{timestamp()}","request_id":{quote(request_id)}}}\n'
    )
    extra = fields(refusal.headers)
    connection.respond(refusal.status, f"{JSON}X-Request-ID: {request_id}\r\n{headers}{extra}", result.encode(body))


def error_text(refusal: Refusal) -> str:
    """The error object, as JSON text."""
    try:
        details = result.dumps(refusal.details)
    except ResultError:
        details = quote(str(refusal.details))
    return f'{{"code":"{refusal.code}","details":{details}}}'


def quote(text: str) -> str:
    """A JSON string."""
    if text.isalnum() and text.isascii():
        return f'"{text}"'
    return json.dumps(text, ensure_ascii=False)


def read(body: bytes) -> Tuple[Any, int]:
    """A request's JSON and an upper bound of its characters. Raises Refusal INVALID_REQUEST."""
    if not body.strip():
        return {}, 2
    try:
        return _decoder.decode(body.decode("utf-8")), len(body)
    except UnicodeDecodeError:
        raise Refusal("INVALID_REQUEST", "the body is not UTF-8") from None
    except ValueError as error:
        raise Refusal("INVALID_REQUEST", f"the body is not JSON: {error}") from None
    except RecursionError:
        raise Refusal("INVALID_REQUEST", "the body is nested too deeply") from None


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_decoder = json.JSONDecoder(parse_constant=_constant)
