"""What is kept of each request once it is over: its figures, and a line of the access log. Both lanes write here."""

from __future__ import annotations

import json
import logging
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

from orchestrator.gateway.metrics import OTHER_ROUTE, UNKNOWN_MODEL, Recorder

_access = logging.getLogger("orchestrator.gateway.access")


@dataclass(slots=True)
class Entry:
    """One request. target: with its query. route: of the path table. generation: None where no model answered."""

    id: str
    method: str
    target: str
    address: str | None
    model: str = ""
    route: str = OTHER_ROUTE
    generation: int | None = None


class Journal:
    """models: the names that may be labels. writes: whether there is a log to write to."""

    def __init__(self, recorder: Recorder, models: Container[str]) -> None:
        self._recorder = recorder
        self._models = models
        self.writes = _access.isEnabledFor(logging.DEBUG)

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
        """Its line."""
        line: dict[str, Any] = {"id": entry.id, "method": entry.method, "path": entry.target}
        line |= {"model": entry.model, "code": code, "seconds": round(seconds, 6), "client": entry.address}
        line["generation"] = None if entry.generation is None else str(entry.generation)
        _access.debug("%s", json.dumps(line))
