"""The sandbox as a whole: from the files to the models that are wanted, from events to the models they concern.

It holds no rule about a single model (plan/planner.py does) and touches no machine (executor.py, the runtimes do).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any

from orchestrator.control.generations import Generations
from orchestrator.control.latecomers import end_latecomers, unaccounted
from orchestrator.control.model import Model
from orchestrator.control.mounts import mounted
from orchestrator.control.orphans import wish_of
from orchestrator.control.scan import DATA_FOLDERS
from orchestrator.control.state import ModelState
from orchestrator.control.watcher import Batch, Watcher
from orchestrator.control.world import World
from orchestrator.errors import SandboxError
from orchestrator.plan.changes import classify
from orchestrator.plan.overlay import Overlay
from orchestrator.plan.types import Desired, ModelDesired
from orchestrator.ports import ReplicaRecord, Runtime

DRAIN_AT_DOWN = 10.0
COLLECT_EVERY = 1800.0
LISTEN_AGAIN = 1.0
LOOK_AT_MOUNTS_EVERY = 1.0

# Reads the files anew for these profiles and models; raises SpecError.
Read = Callable[[Sequence[str], Sequence[str]], Desired]


class Reconciler:
    """Keeps every model at what the files say. One per control process."""

    def __init__(self, world: World, generations: Generations, watcher: Watcher, read: Read, file: str) -> None:
        self._world = world
        self._generations = generations
        self._watcher = watcher
        self._read = read
        self._file = file
        self.models: dict[str, Model] = {}
        self.desired: Desired | None = None
        self.spec_problem: SandboxError | None = None
        self.profiles: tuple[str, ...] = ()
        self.selected: tuple[str, ...] = ()
        self.overlay = Overlay()
        self._tasks: list[asyncio.Task[None]] = []
        self._applying = asyncio.Lock()
        self._moved = asyncio.Event()  # a fresh one after each change of any model
        self.on_desired: Callable[[Desired], None] = lambda _: None

    async def start(self, profiles: Sequence[str], selected: Sequence[str], overlay: Overlay | None = None) -> None:
        """Take over what runs, then work until `close`."""
        self.profiles, self.selected, self.overlay = tuple(profiles), tuple(selected), overlay or Overlay()
        records = await self._records()
        for runtime in self._world.runtimes.values():
            self._tasks.append(asyncio.create_task(self._exits(runtime), name=f"exits of {runtime.kind}"))
        try:
            desired = await self.read_anew()
        except SandboxError as error:
            # A control that comes back to a file that is wrong meanwhile: what runs serves on as it is.
            self._refuse(error)
            await asyncio.gather(*(self._adopt_orphan(name, found) for name, found in records.items()))
            self._watcher.watch({}, {self._file})
        else:
            await self._apply(desired, records)
        self._tasks.append(asyncio.create_task(self._watch(), name="watch"))
        self._tasks.append(asyncio.create_task(self._collect(), name="collect"))
        self._tasks.append(asyncio.create_task(self._look_at_mounts(), name="mounts"))

    def tell(self, message: str) -> None:
        """Tell people something about the sandbox as a whole."""
        self._world.journal.add("spec", message)

    async def _records(self) -> Mapping[str, list[ReplicaRecord]]:
        by_model: dict[str, list[ReplicaRecord]] = {}
        away: list[Runtime] = []
        for runtime in self._world.runtimes.values():
            try:
                found = await runtime.list()
            except SandboxError as error:
                away.append(runtime)
                if error.reference != "no-engine":  # whoever needs it is told; the others have no use for the news
                    self._world.journal.add("failed", f"{runtime.kind}: {error}")
                continue
            for record in found:
                by_model.setdefault(record.model, []).append(record)
        known = {record.incarnation for records in by_model.values() for record in records}
        if unaccounted(self._world.state, known):
            for runtime in away:
                self._background(end_latecomers(runtime, self._world, self._has))
        return by_model

    def _has(self, incarnation: str) -> bool:
        return any(incarnation in model.state.replicas for model in self.models.values())

    async def close(self) -> None:
        """Stop working; replicas run on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for model in self.models.values():
            await model.close()

    # From the files

    async def reread(
        self,
        profiles: Sequence[str] | None = None,
        selected: Sequence[str] | None = None,
        overlay: Overlay | None = None,
        seen_at: float | None = None,
    ) -> None:
        """Read the files again and apply them. Raises SandboxError, and changes nothing, where they are invalid.

        seen_at: when the edit that asks for it was noticed.
        """
        new_profiles = self.profiles if profiles is None else tuple(profiles)
        new_selected = self.selected if selected is None else tuple(selected)
        try:
            desired = await asyncio.to_thread(self._read, new_profiles, new_selected)
        except SandboxError as error:
            self._refuse(error)
            raise
        self.profiles, self.selected = new_profiles, new_selected
        self.overlay = self.overlay if overlay is None else overlay
        await self._apply(self.overlay.over(desired), {}, seen_at)

    async def read_anew(self) -> Desired:
        """What the files say now, whatever was acted on. Raises SandboxError where they are invalid."""
        return self.overlay.over(await asyncio.to_thread(self._read, self.profiles, self.selected))

    def _refuse(self, error: SandboxError) -> None:
        if str(error) != str(self.spec_problem or ""):
            hint = f" ({error.hint})" if error.hint else ""
            self._world.journal.add("spec", f"✖ {error}{hint}; nothing changed", ok=False, reference=error.reference)
        self.spec_problem = error

    async def _apply(
        self, desired: Desired, records: Mapping[str, list[ReplicaRecord]], seen_at: float | None = None
    ) -> None:
        async with self._applying:
            before, self.desired, self.spec_problem = self.desired, desired, None
            if before is not None and before == desired:
                return
            self._generations.allow(desired.roots)
            self.on_desired(desired)
            folders = await asyncio.to_thread(_folders, desired.models)
            adopting = []
            for name, wish in desired.models.items():
                model = self.models.get(name)
                if model is None:
                    model = self.models[name] = Model(name, self._world, self._generations, self._unblock)
                    adopting.append(self._introduce(model, wish, records.get(name, ()), folders[name]))
                else:
                    told = before is not None and before.models.get(name) == wish
                    model.mount(folders[name], seen_at or time.monotonic(), told=told)
                    known = before.models.get(name) if before is not None else None
                    self._update(model, known, wish, seen_at)
                    if known is not None and known.reload.mode == "off" != wish.reload.mode:
                        adopting.append(model.source.look(None))  # what was saved meanwhile counts from now on
            adopting += [self._adopt_orphan(name, records[name]) for name in records if name not in self.models]
            await asyncio.gather(*adopting)
            for name in self.orphans():
                self.models[name].orphan()
            self._watcher.watch(
                desired.models,
                {*desired.files, *(file for wish in desired.models.values() for file in wish.requirements.files)},
            )
            self._unblock()

    async def _introduce(
        self, model: Model, wish: ModelDesired, records: Sequence[ReplicaRecord], folders: Mapping[str, str]
    ) -> None:
        model.mount(folders, time.monotonic(), told=False)
        await model.adopt(wish, records)
        model.want(wish, self._blocked(wish))
        await model.reports.publish()  # the gateways must know it before they are told anything
        model.start()
        self._background(model.source.look(None))

    def _update(self, model: Model, before: ModelDesired | None, wish: ModelDesired, seen_at: float | None) -> None:
        if before == wish and not model.state.stopping:
            return
        change = classify((), before, wish) if before is not None else None
        if change is not None and change.tier not in {"none", "live"}:  # what is live is told once it is
            self._world.journal.add("spec", f"changed ({change})", model=wish.name, tier=change.tier)
        model.want(wish, self._blocked(wish), seen_at)
        model.start()

    async def _adopt_orphan(self, name: str, records: Sequence[ReplicaRecord]) -> None:
        """Keep the replicas of a model that the file does not have: they serve on until `--remove-orphans`."""
        model = self.models[name] = Model(name, self._world, self._generations, self._unblock)
        await model.adopt(wish_of(records), records, orphan=True)
        await model.reports.publish()
        model.start()

    def orphans(self) -> list[str]:
        """Return models that run and that the file does not have."""
        wanted = self.desired.models if self.desired is not None else {}
        return sorted(name for name in self.models if name not in wanted)

    async def remove_orphans(self) -> None:
        """Stop and remove them."""
        await asyncio.gather(*(self._remove(name) for name in self.orphans()))

    async def _remove(self, name: str) -> None:
        await self.models[name].stop(DRAIN_AT_DOWN)
        await self._world.traffic.route(name, None)
        if self.models.pop(name, None) is None:
            return  # somebody else asked for it, too
        await asyncio.to_thread(self._generations.forget, name)
        self._world.journal.add("stop", "removed: not in sandbox.yaml", model=name)

    # Between models

    def _blocked(self, wish: ModelDesired) -> tuple[str, ...]:
        """Models that this one waits for; once it answers, its dependencies' fate is their own."""
        found = []
        for name in wish.depends_on:
            other = self.models.get(name)
            if other is None or not other.state.answers:
                found.append(name)
        for name in wish.starts_after:
            other = self.models.get(name)
            if other is None or not other.state.runs:
                found.append(name)
        own = self.models.get(wish.name)
        return () if own is not None and own.state.routed is not None else tuple(found)

    def _unblock(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()
        for name, model in self.models.items():
            wish = self.desired.models.get(name) if self.desired is not None else None
            if wish is not None and (wish.depends_on or wish.starts_after):
                model.block(self._blocked(wish))

    # From events

    async def _exits(self, runtime: Runtime) -> None:
        told = ""
        while True:
            try:
                async for exit_ in runtime.exits():
                    for model in self.models.values():
                        if model.ended(exit_):
                            break
            except Exception as error:  # noqa: BLE001 - deaths must be heard of as long as control lives
                if repr(error) != told:
                    self._fault(f"{runtime.kind}: deaths of replicas were not heard", error)
                told = repr(error)
            else:
                return
            await asyncio.sleep(LISTEN_AGAIN)

    async def _watch(self) -> None:
        async for batch in self._watcher.batches():
            try:
                await self._seen(batch)
            except SandboxError:
                continue  # told where it was found; what ran runs on
            except Exception as error:  # noqa: BLE001 - nothing may end the watch: later saves count
                self._fault("a save was not acted on", error)

    async def _collect(self) -> None:
        """Now and then remove file contents that no kept generation has."""
        while True:
            await asyncio.sleep(COLLECT_EVERY)
            try:
                await asyncio.to_thread(self._generations.collect)
            except (SandboxError, OSError) as error:
                self._world.journal.add("failed", f"old generations were not cleaned up: {error}")

    async def _seen(self, batch: Batch) -> None:
        if batch.model is None:
            if not self.overlay.watched:
                return
            await self.reread(seen_at=batch.seen_at)
            return
        model = self.models.get(batch.model)
        if model is None or (model.state.desired is not None and model.state.desired.reload.mode == "off"):
            return
        if batch.paths is None or _touches_spec(batch.paths):
            with contextlib.suppress(SandboxError):
                await self.reread(seen_at=batch.seen_at)
        if batch.paths is None or any(path.split("/")[0] in DATA_FOLDERS for path in batch.paths):
            await self.remount()  # first: what a dead mount shows is no content of the new generation
        # One look at a time per model, but no model waits for another's.
        self._background(model.source.look(batch.paths, seen_at=batch.seen_at))

    async def _look_at_mounts(self) -> None:
        """Nothing tells that a folder was deleted and made again, but for the folder itself."""
        while True:
            await asyncio.sleep(LOOK_AT_MOUNTS_EVERY)
            await self.remount()

    async def remount(self) -> None:
        """Have replicas of folders that were deleted and made again replaced."""
        seen_at = time.monotonic()
        wishes = {name: model.state.wish for name, model in self.models.items() if not model.state.orphan}
        found = await asyncio.to_thread(_folders, {name: wish for name, wish in wishes.items() if wish is not None})
        for name, folders in found.items():
            model = self.models.get(name)
            if model is not None and model.state.wish is wishes[name]:
                model.mount(folders, seen_at)

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.append(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.remove(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fault("a look at a model's directory failed", error)

    def _fault(self, what: str, error: BaseException) -> None:
        """Tell of a defect of ours, or of the machine, that nobody foresaw."""
        self._world.journal.add("failed", f"{what}: {error!r}")
        traceback.print_exception(error)

    def suspect(self, name: str, upstream: str) -> None:
        """Have a worker looked at that a gateway cannot reach. upstream: its id in the route."""
        model = self.models.get(name)
        if model is not None:
            model.suspect(upstream)

    # Waiting

    async def settled(self, names: Iterable[str]) -> list[str]:
        """Wait until each of these models answers or failed; return those that failed."""
        chosen = [name for name in names if name in self.models]
        while not all(self._is_settled(name) for name in chosen):
            await self._moved.wait()
        return [name for name in chosen if self._is_hopeless(name)]

    def _is_settled(self, name: str) -> bool:
        settled = {"running", "degraded", "failed", "stopped"}
        return self.models[name].state.status.state in settled or self._is_hopeless(name)

    def _is_hopeless(self, name: str) -> bool:
        """Whether a model failed, or waits for one that did, or for one that is not there."""
        model = self.models.get(name)
        if model is None or model.state.status.state == "failed":
            return True
        return model.state.status.state == "pending" and any(map(self._never_comes, model.state.blocked))

    def _never_comes(self, name: str) -> bool:
        """Whether it is no use to wait for a model."""
        stopped = name in self.models and self.models[name].state.status.state == "stopped"
        return stopped or self._is_hopeless(name)

    async def reload(self, name: str) -> bool:
        """Force a new generation of a model and wait for it; True where it was rejected or could not be made."""
        with contextlib.suppress(SandboxError):  # told; with reload.mode off it may not have been read since
            await self.reread()
        model = self.models[name]
        await model.reload()
        wanted = model.state.wanted

        def done(state: ModelState) -> bool:
            if state.blocked or state.halted or (state.desired is not None and state.desired.replicas == 0):
                return True  # nothing will load it now
            if state.wanted is not wanted or state.first_trouble is not None:
                return True
            if wanted is None or state.desired is None:
                return True
            live = state.routed is not None and state.routed.generation == wanted.number
            return live or (wanted.number, state.desired.replica_hash) in state.rejected

        await model.until(done)
        return model.state.status.problem is not None or model.state.status.state == "failed"

    async def down(self, drain: float) -> None:
        """Stop and remove everything of this sandbox, orphans too."""
        await asyncio.gather(*(model.stop(drain) for model in self.models.values()))
        for model in self.models.values():
            self._world.journal.add("stop", "stopped", model=model.state.name)
        self._world.standing.clear()


def _folders(models: Mapping[str, ModelDesired]) -> dict[str, Mapping[str, str]]:
    return {name: mounted(wish) for name, wish in models.items()}


def _touches_spec(paths: Iterable[str]) -> bool:
    """Whether a change may alter what is wanted of the model, not only its code."""
    return any(path in {"config.yaml", "sandbox.lock"} or path.endswith((".txt", ".in")) for path in paths)
