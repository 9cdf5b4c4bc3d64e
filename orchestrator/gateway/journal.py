"""What is kept of each request once it is over: its figures, and a line of the access log. Both lanes write here."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

from orchestrator.gateway.metrics import OTHER_ROUTE, UNKNOWN_MODEL, Recorder

# Lines wait for each other this long at most, or until there are as many bytes: one write for hundreds of requests.
FLUSH_AFTER = 0.5
FLUSH_AT = 32 * 1024
_MASKED = r"\1***"
# The value of a query's parameter whose name says that it is a secret.
_SECRET = re.compile(r"((?:^|[?&;])[^=&;]*(?:key|token|secret|passw|credential|auth|sig)[^=&;]*=)[^&;]+", re.IGNORECASE)


@dataclass(slots=True)
class Entry:
    """One request. target: with its query. route: of the path table. generation: None where no model answered.

    key: the name of the key that it came with, "" without one.
    """

    id: str
    method: str
    target: str
    address: str | None
    model: str = ""
    route: str = OTHER_ROUTE
    generation: int | None = None
    key: str = ""


class Journal:
    """models: the names that may be labels. writes: whether there is an access log. output: the log's descriptor."""

    def __init__(self, recorder: Recorder, models: Container[str], output: int = 2) -> None:
        self._recorder = recorder
        self._models = models
        self._output = output
        self._waiting: list[str] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        self.writes = False

    def over(self, entry: Entry, code: int, seconds: float, *, counted: bool = True) -> None:
        """The request was answered with `code`, or ended so. counted: it is no probe."""
        if counted:
            self.count(entry.model, entry.route, code, seconds)
        if self.writes:
            self.write(entry, code, seconds)

    def count(self, model: str, route: str, code: int, seconds: float) -> None:
        """Its figures."""
        known = model if not model or model in self._models else UNKNOWN_MODEL
        self._recorder.answered(known, route, code, seconds)

    def write(self, entry: Entry, code: int, seconds: float) -> None:
        """Its line, which is written with those that come soon after it."""
        line = _line(entry, code, seconds)
        self._waiting.append(line)
        self._size += len(line)
        if self._size >= FLUSH_AT:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_AFTER, self.flush)

    def flush(self) -> None:
        """Write what waits. A log that takes nothing more (a full disk) loses lines, and no request waits for it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        data, self._waiting, self._size = "".join(self._waiting).encode(), [], 0
        try:
            while data:
                data = data[os.write(self._output, data) :]
        except OSError as error:
            print(f"access log: {error}", file=sys.stderr)


def redacted(target: str) -> str:
    """A request's target without the values that are nobody's business."""
    path, question, query = target.partition("?")
    return path + question + _SECRET.sub(_MASKED, query) if question else target


def _line(entry: Entry, code: int, seconds: float) -> str:
    fields: dict[str, Any] = {
        "time": round(time.time(), 3),
        "id": entry.id,
        "client": entry.address,
        "key": entry.key or None,
        "method": entry.method,
        "path": redacted(entry.target),
        "route": entry.route,
        "model": entry.model,
        "generation": entry.generation,
        "code": code,
        "seconds": round(seconds, 6),
    }
    return f"{_encode(fields)}\n"


_encode = json.JSONEncoder(separators=(",", ":")).encode
