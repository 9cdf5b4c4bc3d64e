"""A model's side of the disk: from "these paths changed" to the generation that is wanted. It starts nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from dataclasses import replace

from orchestrator.control.generations import Generations
from orchestrator.control.state import Edit, ModelState
from orchestrator.control.trees import TreesInUse
from orchestrator.control.workshop import Workshop
from orchestrator.control.world import World
from orchestrator.errors import SandboxError
from orchestrator.plan.observed import Problem
from orchestrator.plan.types import Generation, ModelDesired
from orchestrator.store import GenerationState


class Source:
    """Makes generations of one model. Every look at the disk happens in a thread, one at a time."""

    def __init__(self, state: ModelState, world: World, generations: Generations, wake: Callable[[], None]) -> None:
        self._state = state
        self._world = world
        self._generations = generations
        self._wake = wake
        self._held: set[int] = set()
        self._lock = asyncio.Lock()
        self._marked: dict[int, GenerationState] = {}
        self.missed = False  # a look that found no free tree: taken again when one is let go
        self.releases = 0  # how often a generation let go of its tree
        self._missed_force = False  # and whether it was to make a generation of equal content

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

    async def last_active(self, desired: ModelDesired) -> Generation | None:
        """The generation that answered last, in a tree again; None where none ever did, or it is not kept."""
        workshop = self._generations.workshop(desired)
        try:
            latest = await asyncio.to_thread(workshop.latest, "active")
            if latest is None:
                return None
            found = await asyncio.to_thread(workshop.restore, latest.number, self._target(desired))
        except (SandboxError, TreesInUse):
            return None
        self._held.add(found.number)
        return found

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
        """Make a generation if what is on disk differs from the last one (or `force`).

        seen_at: when the watcher saw what it is for; such a look makes nothing once reload.mode is off.
        """
        began = time.monotonic()
        async with self._lock:
            desired = self._state.desired
            if desired is None or (seen_at is not None and desired.reload.mode == "off"):
                return  # the files may have turned it off while this waited
            try:
                # Where nothing is wanted yet, equal content is no reason to make nothing.
                anew = force or self._state.wanted is None
                generation = await self._taken(desired, paths, anew)
            except TreesInUse:
                self.missed, self._missed_force = True, force  # every tree has a worker that drains: wait for one
                return
            except SandboxError as error:
                self._trouble(desired, error)
                return
            self.missed = False
            cleared = self._state.trouble.pop("source", None)
            if generation is not None:
                files = ", ".join(generation.changed[:3]) + (" …" if len(generation.changed) > 3 else "")
                cause = "asked for" if force else files
                self._made(generation, Edit(seen_at or began, began, time.monotonic(), cause))
            elif cleared is not None or await self._rejoined(desired):
                self._wake()

    async def _taken(self, desired: ModelDesired, paths: Collection[str] | None, force: bool) -> Generation | None:
        """Raises TreesInUse where every tree has a worker, and none was let go of meanwhile: that nobody would tell."""
        while True:
            before = self.releases
            try:
                return await asyncio.to_thread(self._take, desired, paths, force)
            except TreesInUse:
                if self.releases == before:
                    raise
                paths = None  # what the first try has read counts as seen

    def _made(self, generation: Generation, edit: Edit) -> None:
        self._held.add(generation.number)
        self._state.wanted = generation
        self._state.resolve()
        self._state.edits[generation.number] = edit
        self._wake()

    async def _rejoined(self, desired: ModelDesired) -> bool:
        """Whether the directory has just come to what a rollback went back to."""
        wanted = self._state.wanted
        if wanted is None or wanted.origin is None:
            return False
        latest = await asyncio.to_thread(self._generations.workshop(desired).latest)
        if latest is None or latest.origin is not None:
            return False
        self._state.wanted = replace(wanted, origin=None)
        return True

    async def edited(self) -> tuple[str, ...] | None:
        """The files of which a look would make a generation, None where it would make none.

        Raises SandboxError where the directory cannot be read.
        """
        desired = self._state.desired
        if desired is None:
            return None
        async with self._lock:
            workshop = self._generations.workshop(desired)
            snapshot = await asyncio.to_thread(workshop.snapshot, None)
        return None if snapshot is None else snapshot.changed

    async def roll_back(self, number: int | None) -> None:
        """Want the content of a kept generation (None: of the one before) until the next edit of the directory.

        Raises TreesInUse; SandboxError, and then nothing has changed.
        """
        desired, routed = self._state.desired, self._state.routed
        if desired is None:
            return
        began, active = time.monotonic(), routed.generation if routed is not None else None
        async with self._lock:
            workshop = self._generations.workshop(desired)
            made = await asyncio.to_thread(workshop.roll_back, number, active, self._target(desired))
            self.missed = False
            self._state.forgive()
            cause = f"rollback to g{made.origin}"
            self._made(made.generation, Edit(began, began, time.monotonic(), cause))
        note = f"{cause}, as g{made.generation.number}" + ("; data/ is not what it was then" if made.data_moved else "")
        self._world.journal.add(
            "reload",
            note,
            model=desired.name,
            generation=made.generation.number,
            content=made.generation.content,
            origin=made.origin,
            data_moved=made.data_moved,
        )

    async def let_go(self) -> None:
        """After a `down`: a rollback is over, the next `up` starts with what the directory has."""
        if self._state.desired is None:
            return
        try:
            await asyncio.to_thread(self._generations.workshop(self._state.desired).follow_directory)
        except SandboxError as error:  # no reason not to end
            self._world.journal.add("failed", f"the rollback is not over: {error}", model=self._state.name)

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
        if desired is None:
            return
        await self._mark(desired)
        unused = self._held - self._state.generations_in_use()
        if not unused:
            return
        workshop = self._generations.workshop(desired)
        for number in unused:
            self._held.discard(number)
            self._state.edits.pop(number, None)
            workshop.release(number)
            self.releases += 1
        if self.missed:
            await self.look(None, force=self._missed_force)

    async def _mark(self, desired: ModelDesired) -> None:
        """Remember what became of each generation. What cannot be written now is tried again after the next step."""
        active = self._state.routed.generation if self._state.routed is not None else 0
        found: dict[int, GenerationState] = {n: "failed" for n, _ in self._state.rejected if n > active}
        if active:
            found[active] = "active"
        news = {number: state for number, state in found.items() if self._marked.get(number) != state}
        if not news:
            return
        workshop = self._generations.workshop(desired)
        try:
            for number, state in sorted(news.items()):
                await asyncio.to_thread(workshop.mark, number, state)
        except SandboxError:
            return
        self._marked = found

    async def tidy(self) -> None:
        """After a reload is done: forget old generations, and prepare a tree for the next save."""
        self._state.untidy = False
        desired = self._state.desired
        if desired is None:
            return
        try:
            async with self._lock:
                await asyncio.to_thread(_tidy, self._generations.workshop(desired))
        except (TreesInUse, SandboxError, OSError):
            return  # every tree has a worker, or the disk is full: the next save says so where it matters


def _tidy(workshop: Workshop) -> None:
    workshop.prune()
    workshop.spare()
