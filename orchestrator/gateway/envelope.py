"""What the gateway itself answers: the codes, their statuses, and the two forms of a body (ours and OpenAI's)."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

# code → HTTP status. docs/operations.md has the meanings; a test compares the two.
CODES: Mapping[str, int] = {
    "INVALID_REQUEST": 400,
    "INPUT_TOO_LONG": 400,
    "UNAUTHORIZED": 401,
    "FORBIDDEN": 403,
    "NOT_FOUND": 404,
    "MODEL_NOT_FOUND": 404,
    "METHOD_NOT_ALLOWED": 405,
    "REQUEST_TIMEOUT": 408,
    "PAYLOAD_TOO_LARGE": 413,
    "RATE_LIMITED": 429,
    "QUEUE_FULL": 429,
    "PREDICTION_FAILED": 500,
    "INTERNAL_ERROR": 500,
    "WORKER_DIED": 502,
    "MODEL_NOT_LOADED": 503,
    "QUEUE_TIMEOUT": 503,
    "UPSTREAM_TIMEOUT": 504,
}

_OPENAI_CODES = {
    "MODEL_NOT_FOUND": "model_not_found",
    "UNAUTHORIZED": "invalid_api_key",
    "RATE_LIMITED": "rate_limit_exceeded",
}


_process = os.urandom(8).hex()
_numbers = itertools.count(int.from_bytes(os.urandom(6), "big"))


class Refusal(Exception):  # noqa: N818 (an answer, not a fault of ours)
    """The gateway answers this itself. details: where and what to do; any JSON.

    close: the client's connection cannot be used again (its body was not read).
    """

    def __init__(
        self,
        code: str,
        message: str,
        details: Any = "",
        *,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = CODES[code]
        self.message = message
        self.details = details
        self.close = close
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(max(1, round(retry_after + 0.5)))


def success(data: Any, request_id: str) -> bytes:
    """A good answer in our envelope."""
    return _json({"success": True, "message": "ok", "data": data, "timestamp": _now(), "request_id": request_id})


def failure(refusal: Refusal, request_id: str) -> bytes:
    """A refusal in our envelope."""
    error = {"code": refusal.code, "details": refusal.details}
    return _json(
        {"success": False, "message": refusal.message, "error": error, "timestamp": _now(), "request_id": request_id}
    )


def openai_failure(refusal: Refusal) -> bytes:
    """A refusal as OpenAI's clients read it."""
    if refusal.status == 429:
        kind = "rate_limit_error"
    elif refusal.status >= 500:
        kind = "server_error"
    else:
        kind = "invalid_request_error"
    message = refusal.message
    if isinstance(refusal.details, str) and refusal.details:
        message = f"{message}: {refusal.details}"
    code = _OPENAI_CODES.get(refusal.code, refusal.code.lower())
    param = "model" if refusal.code == "MODEL_NOT_FOUND" else None
    return _json({"error": {"message": message, "type": kind, "param": param, "code": code}})


def v2_failure(refusal: Refusal) -> bytes:
    """A refusal as clients of the Open Inference Protocol read it."""
    details = refusal.details
    told = f": {details}" if isinstance(details, str) and details and details != refusal.message else ""
    return _json({"error": f"{refusal.message}{told}"})


def request_id(offered: str | None) -> str:
    """The client's own id where it is printable and at most 128 characters, else a new one."""
    return offered if offered is not None and is_request_id(offered) else new_id()


def is_request_id(offered: str) -> bool:
    """Whether a client's own id is taken."""
    return 0 < len(offered) <= 128 and offered.isascii() and offered.isprintable()


def new_id() -> str:
    """A request id: unique beyond this process, no secret, and much cheaper than a random one."""
    return f"{_process}{next(_numbers) & 0xFFFFFFFFFFFFFFFF:016x}"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
