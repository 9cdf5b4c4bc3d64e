"""JSON Lines between our processes: how a message becomes bytes and bytes become messages. It knows no socket."""

from __future__ import annotations

import json
import math
from typing import Any, Dict, Iterable, List

VERSION = 1
LIMIT = 1024 * 1024
# What a model has a say in, and is repeated in other messages: smaller than LIMIT by what they add.
MOST_NAMES = 2000
LARGEST_TABLE = LIMIT - 256 * 1024

Message = Dict[str, Any]


class WireError(Exception):
    """The other end broke the format: a line too long, not JSON, or not an object."""


def encode(message: Message) -> bytes:
    """One line, newline included. Raises WireError beyond LIMIT bytes: the other end would refuse it."""
    line = (
        json.dumps(message, ensure_ascii=False, separators=(",", ":"), default=str).encode("utf-8", "replace") + b"\n"
    )
    if len(line) > LIMIT:
        raise WireError(f"a {message.get('type')!r} message of {len(line)} bytes is over the limit of {LIMIT}")
    return line


class Lines:
    """Turns the bytes of one connection into messages. Empty lines are skipped."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> List[Message]:
        """The messages that `data` completes. Raises WireError; the connection is then of no more use."""
        *lines, rest = (self._rest + data).split(b"\n")
        if len(rest) > LIMIT:
            raise WireError(f"a line longer than {LIMIT} bytes")
        self._rest = rest
        return [_decode(line) for line in lines if line]


def _decode(line: bytes) -> Message:
    if len(line) > LIMIT:
        raise WireError(f"a line longer than {LIMIT} bytes")
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise WireError(f"not JSON: {error}") from None
    if not isinstance(message, dict):
        raise WireError("not a JSON object")
    return message


def number(value: Any) -> float:
    """A finite number, or 0: what a worker says is never trusted to have the right form."""
    good = isinstance(value, (int, float)) and math.isfinite(value)
    return float(value) if good else 0.0


def mapping(value: Any) -> Message:
    """A JSON object of bearable size, or {}."""
    good = isinstance(value, dict) and len(json.dumps(value)) <= LARGEST_TABLE
    return dict(value) if good else {}


def by_depth(modules: Iterable[str]) -> List[str]:
    """Dotted names, each once, the shallow first: where a list is cut short, those that bring the most others stay."""
    return sorted(set(modules), key=lambda name: (name.count("."), name))


def names(value: Any) -> List[str]:
    """Module names, or []."""
    given = value if isinstance(value, list) else []
    return [name for name in given if isinstance(name, str) and len(name) <= 200][:MOST_NAMES]
