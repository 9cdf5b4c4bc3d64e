"""Why a request is refused or failed: the error codes of the envelope and what each means in HTTP."""

from __future__ import annotations

from typing import Any, Dict, Optional

STATUS = {
    "INVALID_REQUEST": 400,
    "INPUT_TOO_LONG": 400,
    "PAYLOAD_TOO_LARGE": 413,
    "NOT_FOUND": 404,
    "METHOD_NOT_ALLOWED": 405,
    "QUEUE_FULL": 429,
    "QUEUE_TIMEOUT": 503,
    "PREDICTION_FAILED": 500,
    "INTERNAL_ERROR": 500,
}


class Refusal(Exception):  # noqa: N818 - an answer, not an accident
    """Ends a request. code: a key of STATUS. details: where, and what to do. param: the input that is at fault."""

    def __init__(
        self,
        code: str,
        message: str,
        details: Any = None,
        *,
        param: Optional[str] = None,
        retry_after: Optional[int] = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = message if details is None else details
        self.param = param
        self.retry_after = retry_after

    @property
    def status(self) -> int:
        return STATUS[self.code]

    @property
    def headers(self) -> Dict[str, str]:
        """The headers that go with it."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


def invalid(message: str, param: Optional[str] = None) -> Refusal:
    """The input is not what the model takes."""
    return Refusal("INVALID_REQUEST", message, param=param)
