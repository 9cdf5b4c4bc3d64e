"""What a running process replica needs from the host now and then: its memory watched, its agent's log kept short.

It knows bytes and bounds; it reports nothing and decides nothing else. One task, which lives while there is a replica.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from contextlib import suppress

from orchestrator.runtimes.census import private_share, send
from orchestrator.runtimes.recorded import Recorded

_WATCH_PERIOD = 0.5
_LOG_PERIOD = 5.0
_LOG_SIZE = 1 << 20


class Tending:
    """Looks after replicas until they are dropped."""

    def __init__(self) -> None:
        self._replicas: dict[str, Recorded] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, known: Recorded) -> None:
        """Look after a replica; a newer record of the same incarnation takes the older one's place."""
        self._replicas[known.record.incarnation] = known
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="tending of process replicas")

    def drop(self, incarnation: str) -> None:
        """Look after it no longer."""
        self._replicas.pop(incarnation, None)

    async def close(self) -> None:
        """End the task."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            await asyncio.to_thread(_tend, list(self._replicas.values()))
            watching = any(known.watch is not None for known in self._replicas.values())
            await asyncio.sleep(_WATCH_PERIOD if watching else _LOG_PERIOD)


def _tend(replicas: list[Recorded]) -> None:
    for known in replicas:
        shorten(os.path.join(known.record.folder, "agent.log"))
        if known.watch is not None:
            enforce_memory(known, known.watch)


def enforce_memory(known: Recorded, limit: int) -> None:
    """Where no cgroup does it: kill the largest process but the agent while all together use more than `limit`."""
    shares = {pid: private_share(pid) for pid in known.census.living()}
    if sum(shares.values()) <= limit:
        return
    shares.pop(known.record.pid or 0, None)
    if shares:
        send(max(shares, key=lambda pid: shares[pid]), signal.SIGKILL)


def shorten(log: str) -> None:
    """Move what an agent wrote to `.1` once it is long. The agent appends: after the cut it goes on at the start."""
    try:
        if os.stat(log).st_size > _LOG_SIZE:
            shutil.copyfile(log, f"{log}.1")
            os.truncate(log, 0)
    except FileNotFoundError:
        return
