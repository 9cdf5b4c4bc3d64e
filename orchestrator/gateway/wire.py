"""The bytes of the fast lane's answers: status lines, fields, the clock of Date. It decides and sends nothing."""

from __future__ import annotations

import http
import time
from collections.abc import Mapping
from email.utils import formatdate
from typing import assert_never

from orchestrator.gateway import envelope, paths
from orchestrator.gateway.answers import Head
from orchestrator.gateway.envelope import Refusal
from orchestrator.gateway.paths import Form
from orchestrator.gateway.server import SERVER

# Statuses whose answers have no body, whatever their fields say.
BODYLESS = frozenset((204, 304))

_STATUS = {each.value: f"HTTP/1.1 {each.value} {each.phrase}\r\n".encode() for each in http.HTTPStatus}
_SERVER = f"Server: {SERVER}\r\n"
_CLOSE = b"Connection: close\r\n"


class _Common:
    """Server and Date, which every answer has; written once per second."""

    def __init__(self) -> None:
        self._second = 0
        self._lines = b""

    def lines(self) -> bytes:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._lines = f"{_SERVER}Date: {formatdate(second, usegmt=True)}\r\n".encode()
        return self._lines


_common = _Common().lines


def opening(head: Head, marks: bytes, request_id: str, extra: bytes, keep: bool) -> bytes:
    """A worker's answer up to its framing: its fields that may pass, then ours.

    marks: the lines that say which generation answered. extra: more lines of ours.
    """
    status = _STATUS.get(head.status) or b"HTTP/1.1 %d \r\n" % head.status
    ours = b"X-Request-ID: %b\r\n" % request_id.encode()
    return b"".join((status, *head.passed, marks, ours, extra, _common(), b"" if keep else _CLOSE))


def streaming(head: Head) -> bytes:
    """What an event stream needs, so that nobody between here and the client keeps it back."""
    caching = b"" if head.get("cache-control") else b"Cache-Control: no-cache\r\n"
    return caching + (b"" if head.get("x-accel-buffering") else b"X-Accel-Buffering: no\r\n")


def refusal(refused: Refusal, request_id: str, target: str, extra: bytes, keep: bool) -> bytes:
    """An answer of the gateway's own, in the form that the path speaks."""
    body = refused_body(refused, target, request_id)
    framing = b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
    fields = _fields({"X-Request-ID": request_id, **refused.headers})
    lines = (_STATUS[refused.status], fields, extra, _common(), framing, b"" if keep else _CLOSE, b"\r\n", body)
    return b"".join(lines)


def refused_body(refused: Refusal, target: str, request_id: str) -> bytes:
    """A refusal's body, in the form that the path speaks."""
    match paths.form(target):
        case Form.ENVELOPE:
            return envelope.failure(refused, request_id)
        case Form.OPENAI:
            return envelope.openai_failure(refused)
        case Form.V2:
            return envelope.v2_failure(refused)
        case form:
            assert_never(form)


def upgraded(head: Head, marks: bytes, request_id: str) -> bytes:
    """The whole head that makes a client's connection a WebSocket."""
    return opening(head, marks, request_id, b"", True) + b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


def _fields(headers: Mapping[str, str]) -> bytes:
    """The values are ours, or come from a head that was read: they hold no line breaks."""
    return "".join([f"{name}: {value}\r\n" for name, value in headers.items()]).encode("latin-1", "replace")
