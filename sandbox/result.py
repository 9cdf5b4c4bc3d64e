"""From what a model returned to JSON text. It knows the rules for results, and nothing of requests."""

from __future__ import annotations

import dataclasses
import enum
import json
from typing import Any


class ResultError(Exception):
    """The model returned something that JSON cannot carry."""


def dumps(value: Any) -> str:
    """Compact JSON. NaN and infinity, foreign objects and keys that are no strings raise ResultError."""
    try:
        return _ENCODER.encode(value)
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        raise ResultError(_why(error)) from error


def _convert(value: Any) -> Any:
    """One step towards JSON for what is not a JSON type; the encoder asks again for what is inside."""
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    for name in ("model_dump", "tolist", "item"):
        method = getattr(value, name, None)
        if callable(method) and not isinstance(value, type):
            return method()
    kind = type(value)
    if kind.__name__ == "Prediction" and kind.__module__ == "sandbox.model":
        raise TypeError("a sandbox.Prediction inside another value: return it by itself")
    raise TypeError(f"a value of type {kind.__module__}.{kind.__qualname__} is not JSON".replace("builtins.", ""))


def _why(error: BaseException) -> str:
    text = str(error)
    if "Out of range float" in text:
        return "the result holds NaN or infinity, which JSON cannot carry"
    if "Circular reference" in text:
        return "the result contains itself"
    if text.startswith("keys must be"):
        return f"the result has a dict whose {text}"
    if isinstance(error, RecursionError):
        return "the result is nested too deeply"
    return text


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_convert)


def encode(text: str) -> bytes:
    """JSON text as bytes. A lone surrogate, which UTF-8 cannot carry, goes as an escape."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(json.loads(text), separators=(",", ":")).encode("ascii")
