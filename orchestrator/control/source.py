"""A model's side of the disk: from "these paths changed" to the generation that is wanted. It starts nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection

from orchestrator.control.generations import Generations, TreesInUse, Workshop
from orchestrator.control.state import Edit, ModelState
from orchestrator.control.world import World
from orchestrator.errors import SandboxError
from orchestrator.plan.observed import Problem
from orchestrator.plan.types import Generation, ModelDesired


class Source:
    """Makes generations of one model. Every look at the disk happens in a thread, one at a time."""

    def __init__(self, state: ModelState, world: World, generations: Generations, wake: Callable[[], None]) -> None:
        self._state = state
        self._world = world
        self._generations = generations
        self._wake = wake
        self._held: set[int] = set()
        self._lock = asyncio.Lock()
        self._missed = False  # a look that found no free tree: taken again when one is let go

    async def adopt(self, desired: ModelDesired) -> None:
        """Remember the newest generation that was made before this control started, where its tree still holds it."""
        workshop = self._generations.workshop(desired)
        latest = await asyncio.to_thread(workshop.latest)
        if latest is None:
            return
        try:
            self._state.wanted = await asyncio.to_thread(workshop.restore, latest.number, self._target(desired))
        except (SandboxError, TreesInUse):
            return  # not kept any more: the first look makes a new one
        self._held.add(latest.number)

    def lookup(self, number: int) -> Generation | None:
        """A generation that a worker says it runs, held from now on; None where it is not known."""
        desired = self._state.desired
        if desired is None:
            return None
        try:
            generation = self._generations.workshop(desired).hold(number)
        except SandboxError:
            return None
        self._held.add(number)
        return generation

    async def look(self, paths: Collection[str] | None, *, seen_at: float | None = None, force: bool = False) -> None:
        """Make a generation if what is on disk differs from the last one (or `force`)."""
        desired = self._state.desired
        if desired is None:
            return
        began = time.monotonic()
        async with self._lock:
            try:
                generation = await asyncio.to_thread(self._take, desired, paths, force)
            except TreesInUse:
                self._missed = True  # every tree has a worker that drains: wait for one
                return
            except SandboxError as error:
                self._trouble(desired, error)
                return
            self._missed = False
            cleared = self._state.trouble.pop("source", None)
            if generation is not None:
                self._held.add(generation.number)
                self._state.wanted = generation
                self._state.resolve()
                files = ", ".join(generation.changed[:3]) + (" …" if len(generation.changed) > 3 else "")
                cause = "asked for" if force else files
                self._state.edits[generation.number] = Edit(seen_at or began, began, time.monotonic(), cause)
            if generation is not None or cleared is not None:
                self._wake()

    def _take(self, desired: ModelDesired, paths: Collection[str] | None, force: bool) -> Generation | None:
        workshop = self._generations.workshop(desired)
        snapshot = workshop.snapshot(paths, force=force)
        return None if snapshot is None else workshop.commit(snapshot, self._target(desired))

    def _target(self, desired: ModelDesired) -> str | None:
        return self._world.runtimes[desired.runtime].data_target(desired)

    def _trouble(self, desired: ModelDesired, error: SandboxError) -> None:
        file, _, line = error.at.rpartition(":") if error.at else ("", "", "")
        where = file.rpartition("/")[2] or None
        found = Problem(
            type=error.reference,
            message=error.message,
            file=where,
            line=int(line) if line.isdigit() else None,
            phase="source",
            reference=error.reference,
        )
        if self._state.trouble.get("source") != found:
            self._state.trouble["source"] = found
            self._world.journal.add("reload", f"✖ {error}", model=desired.name, ok=False, reference=error.reference)
            self._wake()

    async def settle(self) -> None:
        """Let go of what no worker needs any more; look again where a look had to wait for that."""
        desired = self._state.desired
        unused = self._held - self._state.generations_in_use()
        if desired is None or not unused:
            return
        workshop = self._generations.workshop(desired)
        for number in unused:
            self._held.discard(number)
            self._state.edits.pop(number, None)
            workshop.release(number)
        if self._missed:
            await self.look(None)

    async def tidy(self) -> None:
        """After a reload is done: forget old generations, and prepare a tree for the next save."""
        self._state.untidy = False
        desired = self._state.desired
        if desired is None:
            return
        try:
            async with self._lock:
                await asyncio.to_thread(_tidy, self._generations.workshop(desired))
        except (TreesInUse, SandboxError):
            return  # every tree has a worker, or the disk is full: the next save says so where it matters


def _tidy(workshop: Workshop) -> None:
    workshop.prune()
    workshop.spare()
