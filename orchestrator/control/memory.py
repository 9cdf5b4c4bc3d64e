"""How much room a model has for a second generation, asked when it matters. What it means is plan/overlap.py's."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from orchestrator.control.replica import Replica
from orchestrator.control.state import ModelState
from orchestrator.control.world import World
from orchestrator.errors import SandboxError
from orchestrator.plan.overlap import Peak, Room, Tight, tight

# A load waits for this answer; one that does not come speaks against nothing.
ANSWER_WITHIN = 0.25


class Memory:
    """One model's. What its generations take is told by their agents (`peak`), and by those again to a new control."""

    def __init__(self, state: ModelState, world: World) -> None:
        self._state = state
        self._world = world

    async def look(self) -> None:
        """Where the newest generation is about to load beside another, find out once whether both fit."""
        state = self._state
        wanted, routed = state.wanted, state.routed
        if wanted is None or routed is None or not routed.upstreams or wanted.number == routed.generation:
            return
        if state.measured_for != wanted.number and not state.stopping:
            state.tight, state.measured_for = await self.verdict(), wanted.number

    async def verdict(self) -> Tight | None:
        """Whether two generations fit now; None where they do, or where nothing is known against it."""
        state = self._state
        if state.peak is None or state.desired is None:
            return None
        limit = state.desired.limits.memory
        used = await self._used() if limit is not None else None
        count = len(state.routed.upstreams) if state.routed is not None else 1
        return tight(Room(limit, used, available(), replicas=max(1, count)), state.peak)

    async def _used(self) -> int | None:
        """By the replica that uses most."""
        asked = [each for each in self._state.replicas.values() if each.state == "up"]
        found = [used for used in await asyncio.gather(*map(self._ask, asked)) if used is not None]
        return max(found, default=None)

    async def _ask(self, replica: Replica) -> int | None:
        replica.measured.clear()
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                if replica.send({"type": "usage"}):
                    await replica.measured.wait()
                    if replica.memory is not None:
                        return replica.memory
                if replica.record is None:
                    return None
                usage = await self._world.runtimes[replica.record.runtime].usage(replica.record)
        except (TimeoutError, SandboxError, OSError):
            return None
        return usage.memory if usage is not None else None


def peak_of(told: object) -> Peak | None:
    """An agent's `peak`: bytes by phase; None where it says nothing of use."""
    if not isinstance(told, Mapping):
        return None
    sizes: dict[Any, int] = {phase: size for phase, size in told.items() if isinstance(size, int)}
    return Peak(imported=sizes.get("import", 0), loaded=max(sizes.values())) if sizes else None


def available() -> int | None:
    """MemAvailable of this machine in bytes; None where it does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            found = next((line.split()[1] for line in file if line.startswith("MemAvailable:")), None)
    except OSError:
        return None
    return int(found) * 1024 if found is not None else None
