"""What happened, for people and programs: each event goes to the store and to whoever listens now."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from orchestrator.control.stderr import note
from orchestrator.errors import SandboxError
from orchestrator.store import Store

Event = dict[str, Any]
LONGEST_BACKLOG = 10_000
RECENT = 1000


class Journal:
    """Publishes events. A listener that does not read loses the oldest, never blocks anybody."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._listeners: set[asyncio.Queue[Event]] = set()
        self._recent: deque[Event] = deque(maxlen=RECENT)

    def add(self, event: str, message: str, *, model: str | None = None, **data: Any) -> None:
        """Record that `event` happened. message is one line for people; data is for programs."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        entry: Event = {"type": "event", "time": now, "model": model, "event": event, "message": message, "data": data}
        self._recent.append(entry)
        self._publish(entry)
        if event == "progress":
            return  # fleeting: for those who watch
        try:
            self._store.add_event(now, model, event, message, data)
        except SandboxError as error:
            note(f"event not stored: {error}")

    def _publish(self, entry: Event) -> None:
        for queue in self._listeners:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(entry)

    @contextlib.contextmanager
    def listen(self) -> Iterator[asyncio.Queue[Event]]:
        """Give a queue of the events from now on."""
        queue: asyncio.Queue[Event] = asyncio.Queue(LONGEST_BACKLOG)
        self._listeners.add(queue)
        try:
            yield queue
        finally:
            self._listeners.discard(queue)

    def recent(self) -> list[Event]:
        """Events since this control started, progress too, oldest first."""
        return list(self._recent)

    def past(self, since: str | None, models: tuple[str, ...], limit: int = 1000) -> list[Mapping[str, Any]]:
        """Stored events, oldest first."""
        return [{"type": "event", **each} for each in self._store.events(since=since, models=models, limit=limit)]
