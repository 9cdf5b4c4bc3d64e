"""The OpenAI API's errors and the parts that its endpoints share. It knows no endpoint.

Tokens are counted by an estimate, four characters each and at least one, unless the model gives its own usage.
"""

from __future__ import annotations

import itertools
import os
import time
from typing import Any, Dict, List, Optional

from sandbox import result
from sandbox.connection import fields
from sandbox.protocols import envelope
from sandbox.protocols.turn import Turn
from sandbox.refusal import Refusal, invalid

_CHARACTERS_PER_TOKEN = 4
_INVALID = "invalid_request_error"
_TYPES = {400: _INVALID, 404: _INVALID, 405: _INVALID, 413: _INVALID, 429: "rate_limit_error"}
_prefix = os.urandom(8).hex()
_count = itertools.count(1)


def answer(turn: Turn, value: Any) -> None:
    """Write a whole answer."""
    turn.connection.respond(200, envelope.JSON + turn.headers, result.encode(result.dumps(value)))


def refuse(turn: Turn, refusal: Refusal) -> None:
    """Write an error answer."""
    headers = envelope.JSON + turn.headers + fields(refusal.headers)
    turn.connection.respond(refusal.status, headers, result.encode(result.dumps(error(refusal))))


def error(refusal: Refusal) -> Dict[str, Any]:
    """{"error": {"message", "type", "param", "code"}}."""
    kind = _TYPES.get(refusal.status, "server_error")
    body: Dict[str, Any] = {
        "message": refusal.message,
        "type": kind,
        "param": refusal.param,
        "code": refusal.code.lower(),
    }
    if isinstance(refusal.details, dict):
        body["details"] = refusal.details
    return {"error": body}


def read(turn: Turn) -> Dict[str, Any]:
    """The body, an object. Raises Refusal."""
    body, _ = envelope.read(turn.request.body)
    if not isinstance(body, dict):
        raise invalid("the body: expected an object")
    return body


def base(prefix: str, kind: str, model: Any) -> Dict[str, Any]:
    """What every object of one answer has in common: the same id and created in all its chunks."""
    return {"id": f"{prefix}-{_prefix}{next(_count):08x}", "object": kind, "created": int(time.time()), "model": model}


def tokens(text: str) -> int:
    """The estimate."""
    return -(-len(text) // _CHARACTERS_PER_TOKEN) if text else 0


def usage(prompt: str, completion: str, own: Optional[Dict[str, Any]]) -> Dict[str, Any]:
    """The model's own count, or the estimate."""
    if own is not None:
        return own
    asked, said = tokens(prompt), tokens(completion)
    return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}


def flag(body: Dict[str, Any], name: str) -> bool:
    """An optional boolean."""
    value = body.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise invalid(f"{name}: expected boolean", name)


def wants_usage(body: Dict[str, Any]) -> bool:
    """stream_options.include_usage."""
    options = body.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise invalid("stream_options: expected object", "stream_options")
    return flag(options, "include_usage")


def only_one(body: Dict[str, Any]) -> None:
    """Several choices would be ignored silently otherwise."""
    if body.get("n") not in (None, 1):
        raise invalid("n: this model gives one choice", "n")


def texts(body: Dict[str, Any], name: str) -> List[str]:
    """A string or a list of strings, never of tokens."""
    value = body.get(name)
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise invalid(f"{name}: expected a string or a list of strings", name)
    return value
