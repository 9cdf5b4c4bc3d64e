"""Work of one model that takes long, in tasks of its own: a defect in one is told, and the model goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from orchestrator.control.journal import Journal


class Tasks:
    """Owns the tasks of a model. `wake` is called when one has ended, since it may have changed the state."""

    def __init__(self, model: str, journal: Journal, wake: Callable[[], None]) -> None:
        self._model = model
        self._journal = journal
        self._wake = wake
        self._running: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin it."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A defect of ours must be seen, and must not stop the other models.
            self._journal.add("failed", f"internal error: {error!r}", model=self._model)
            asyncio.get_running_loop().call_exception_handler({"message": "task of a model", "exception": error})
        self._wake()

    async def close(self) -> None:
        """Cancel what runs."""
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
