"""Does what the planner decided, one action at a time, for one model. It decides nothing.

What takes long (building, starting, stopping) runs in tasks of its own, whose progress the planner sees in the state;
the rest is a message to an agent or to the gateways.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import shutil
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from typing import Any, assert_never

from orchestrator.control.agents import AgentLink
from orchestrator.control.replica import Replica, Worker
from orchestrator.control.reports import Reports
from orchestrator.control.state import ModelState
from orchestrator.control.world import World
from orchestrator.errors import BuildError, RuntimeFailure, SandboxError
from orchestrator.plan import backoff
from orchestrator.plan.actions import Action, Build, Configure, Kill, Load, Retire, Revive, Start, Stop, Swap
from orchestrator.plan.observed import Problem, Routed
from orchestrator.plan.types import Generation, ModelDesired, Serving
from orchestrator.ports import Environment, Progress, ReplicaPlace, ReplicaRecord, Runtime
from orchestrator.spec.resolve import data_dir

GREETING_WITHIN = 30.0
ACTIVATION_WITHIN = 1.0
GRACE = 5.0
SILENT_FOR = 30.0
MOST_REVIVALS = 5
ENGINE_AGAIN_WITHIN = 1.0  # to ask costs next to nothing, and calls wait for the answer
REMOVE_AGAIN_WITHIN = 5.0  # a `down` waits for the next try


class Executor:
    """Acts on one model. `wake` is called when a task of its own has changed the state."""

    def __init__(self, state: ModelState, world: World, reports: Reports, wake: Callable[[], None]) -> None:
        self._state = state
        self._world = world
        self._reports = reports
        self._wake = wake
        self._tasks: set[asyncio.Task[None]] = set()

    async def execute(self, action: Action) -> None:
        """Do one action; an action that takes long is only begun here."""
        match action:
            case Build(lock_hash, _):
                self._build(lock_hash)
            case Start(index, _):
                self._start(self._place(secrets.token_hex(4), index))
            case Revive(incarnation, _):
                self._revive(self._state.replicas[incarnation])
            case Load(incarnation, generation, _):
                self._load(self._state.replicas[incarnation], generation)
            case Kill(incarnation, generation, attempt, _):
                self._kill(self._state.replicas[incarnation], generation, attempt)
            case Swap(generation, replica_hash, upstreams, _):
                await self._swap(Routed(generation, replica_hash, upstreams))
            case Retire(incarnation, generation, attempt, _):
                self._retire(self._state.replicas[incarnation], generation, attempt)
            case Configure(incarnation, _):
                self._configure(self._state.replicas[incarnation])
            case Stop(incarnation, _):
                self.stop(self._state.replicas[incarnation])
            case _:
                assert_never(action)

    @property
    def _desired(self) -> ModelDesired:
        if self._state.desired is None:
            raise LookupError(f"{self._state.name} is not wanted")
        return self._state.desired

    @property
    def _runtime(self) -> Runtime:
        return self._world.runtimes[self._desired.runtime]

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A defect of ours must be seen, and must not stop the other models.
            self._world.journal.add("failed", f"internal error: {error!r}", model=self._state.name)
            asyncio.get_running_loop().call_exception_handler({"message": "task of a model", "exception": error})
        self._wake()

    # Building

    def _build(self, lock_hash: str) -> None:
        self._state.environments[lock_hash] = "building"
        self._spawn(self._prepare(self._desired, lock_hash))

    async def _prepare(self, desired: ModelDesired, lock_hash: str) -> None:
        loop, began = asyncio.get_running_loop(), time.monotonic()
        name = self._state.name

        def report(progress: Progress) -> None:  # may be called from a thread
            loop.call_soon_threadsafe(self._progress, progress)

        try:
            environment = await self._runtime.prepare(desired, report)
        except SandboxError as error:
            self._state.environments[lock_hash] = "failed"
            log = "\n".join(error.log) if isinstance(error, BuildError) else ""
            reference = error.reference
            found = Problem(reference, _with_hint(error), traceback=log, phase="build", reference=reference)
            if lock_hash == self._desired.lock_hash:  # it may not be wanted any more
                self._state.trouble["build"] = found
            seconds = time.monotonic() - began
            self._reports.reloads.unbuilt(f"build failed: {error}", lock_hash, seconds, log=log)
            return
        self._state.built[lock_hash] = environment
        self._state.environments[lock_hash] = "ready"
        if lock_hash == self._desired.lock_hash:
            self._state.trouble.pop("build", None)
        seconds = self._state.built_in[lock_hash] = time.monotonic() - began
        if seconds > 0.5:
            self._world.journal.add("build", f"environment ready in {seconds:.1f} s", model=name, ok=True)

    def _progress(self, progress: Progress) -> None:
        self._world.journal.add("progress", progress.message, model=self._state.name, fraction=progress.fraction)

    # Starting

    def _place(self, incarnation: str, index: int) -> ReplicaPlace:
        folder = os.path.join(self._world.state, "r", incarnation)
        return ReplicaPlace(
            incarnation=incarnation,
            index=index,
            folder=folder,
            sockets=os.path.join(folder, "s"),
            generations=os.path.join(self._world.generations, self._state.name),
            data=data_dir(self._desired.path),
            guest=self._world.guest,
        )

    def _start(self, place: ReplicaPlace) -> None:
        replica = Replica(place, self._desired.replica_hash, born=self._desired)
        self._state.replicas[replica.incarnation] = replica
        environment = self._state.built[self._desired.lock_hash]
        replica.task = self._spawn(self._bring_up(replica, self._desired, environment))

    def _revive(self, replica: Replica) -> None:
        replica.state = "starting"
        replica.greeted.clear()
        replica.ended.clear()
        replica.ended.clear()
        born = replica.born  # it goes on as it was started, whatever is wanted by now
        if born is None and replica.replica_hash == self._desired.replica_hash:
            born = self._desired
        environment = self._state.built.get(born.lock_hash) if born is not None else None
        if born is None or environment is None:
            self.stop(replica)  # an earlier control started it as nobody knows any more: a new one takes its place
            return
        replica.task = self._spawn(self._bring_up(replica, born, environment))

    async def _bring_up(self, replica: Replica, desired: ModelDesired, environment: Environment) -> None:
        began = time.monotonic()
        try:
            _make_folders(replica.place)
            replica.record = await self._world.runtimes[desired.runtime].start(desired, replica.place, environment)
            replica.not_enforced = replica.record.not_enforced
            self.connect(replica)
            async with asyncio.timeout(GREETING_WITHIN):
                if not await replica.answered():
                    raise RuntimeFailure("start", "its agent ended at once")
            replica.started_in = time.monotonic() - began
        except (SandboxError, OSError, TimeoutError) as error:
            message = (
                _with_hint(error) if isinstance(error, SandboxError) else str(error) or "its agent does not answer"
            )
            reference = error.reference if isinstance(error, SandboxError) else "start"
            found = Problem(reference, message, phase="start", reference=reference)
            told = self._state.trouble.get("start") == found
            self._state.trouble["start"] = found
            longest = ENGINE_AGAIN_WITHIN if reference == "no-engine" else backoff.LONGEST
            wait = self._state.failed(f"start:{replica.place.index}", longest)
            if not told:  # it is tried again and again; people need to hear of it once
                note = f"start failed: {message}; again in {wait:.1f} s"
                self._world.journal.add("failed", note, model=self._state.name)
            if replica.workers and self._state.failures[f"start:{replica.place.index}"][0] < MOST_REVIVALS:
                replica.state = "dead"  # its workers serve on: another agent is tried before they are given up
            else:
                self.stop(replica)
            return
        self._state.trouble.pop("start", None)

    def connect(self, replica: Replica) -> None:
        """Keep a connection to the replica's agent until it is stopped or dead."""
        if replica.record is None:
            return
        if replica.link_task is not None:
            replica.link_task.cancel()
        replica.link = AgentLink(
            replica.record.sockets,
            replica.record.uid,
            lambda message: self._reports.receive(replica, message),
            lambda: self._reports.lost(replica),
        )
        replica.link_task = self._spawn(replica.link.run())
        self._world.logs.follow(self._state.name, replica.incarnation, replica.record.sockets, replica.record.uid)

    # Workers

    def _load(self, replica: Replica, number: int) -> None:
        desired, generation = self._desired, self._known(number)
        attempt = replica.next_attempt()
        routed = self._state.routed
        check = [path for path in generation.changed if path.endswith(".py")] if routed is not None else []
        replica.workers[attempt] = Worker(generation, attempt, "loading", time.monotonic())
        replica.told = (desired.serving, desired.load_timeout)
        replica.send(
            {
                "type": "load",
                "generation": generation.number,
                "attempt": attempt,
                "content": generation.content,
                "tree": generation.tree,
                "config": generation.config,
                "entry": generation.entry,
                "serving": encode_serving(desired.serving),
                "load_timeout": desired.load_timeout,
                "warmup": desired.warmup,
                "check": check,
                "mode": "spawn" if desired.reload.mode == "spawn" else "fork",
            }
        )

    def _known(self, number: int) -> Generation:
        for each in (self._state.wanted, self._state.good):
            if each is not None and each.number == number:
                return each
        raise LookupError(f"generation {number} of {self._state.name} is not at hand")

    def _kill(self, replica: Replica, number: int, attempt: int) -> None:
        worker = replica.find(number, attempt)
        if worker is not None and replica.send({"type": "kill", "generation": number, "attempt": attempt}):
            worker.killed = True
            self._state.superseded += 1
            self._reports.reloads.superseded(worker)

    def _retire(self, replica: Replica, number: int, attempt: int) -> None:
        worker = replica.find(number, attempt)
        if worker is None:
            return
        drain = self._desired.reload.drain
        order = {"type": "retire", "generation": number, "attempt": attempt, "drain": drain, "grace": GRACE}
        if replica.send(order):
            worker.state = "draining"
            worker.drains_since = time.monotonic()

    def give_up(self, replica: Replica, worker: Worker) -> None:
        """Retire a worker that serves and cannot be reached any more; another of its generation is loaded."""
        number = worker.generation.number
        wait = self._state.failed(f"load:{replica.incarnation}")
        note = f"worker of g{number} cannot be reached on its socket; another in {wait:.1f} s"
        self._world.journal.add("exit", note, model=self._state.name, generation=number, socket=worker.socket)
        self._retire(replica, number, worker.attempt)

    def _configure(self, replica: Replica) -> None:
        wish = self._desired
        order = {"serving": encode_serving(wish.serving), "load_timeout": wish.load_timeout}
        if replica.send({"type": "configure", **order}):
            replica.telling = (wish.serving, wish.load_timeout)

    # Traffic

    async def _swap(self, routed: Routed) -> None:
        """Have the agents record the active generation, then every gateway use it; then it is acknowledged."""
        state, began = self._state, time.monotonic()
        generation = self._generation_of(routed)  # a save may come while the agents answer: what is wanted may differ
        await self._activate(routed)
        if state.stopping:
            return  # the gateways have let go of its workers meanwhile
        before, state.routed = state.routed, routed
        number = routed.generation
        new = before is None or before.generation != number or before.replica_hash != routed.replica_hash
        if new:
            state.superseded = 0
            state.good = generation
        await self._reports.publish()
        if new:
            self._reports.reloads.live(before, routed, self._reports.routed_workers(), began)

    def _generation_of(self, routed: Routed) -> Generation | None:
        for incarnation, attempt in routed.upstreams:
            if worker := self._state.replicas[incarnation].find(routed.generation, attempt):
                return worker.generation
        return self._state.good

    async def _activate(self, routed: Routed) -> None:
        waiting = []
        for incarnation, attempt in routed.upstreams:
            replica = self._state.replicas[incarnation]
            replica.activated.clear()
            if replica.send({"type": "activate", "generation": routed.generation, "attempt": attempt}):
                waiting.append(asyncio.create_task(replica.activated.wait()))
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=ACTIVATION_WITHIN)
            for task in late:
                task.cancel()

    # Stopping

    def replace_silent(self) -> None:
        """Stop replicas whose agents live and have not answered for long: they would never load anything again."""
        now = time.monotonic()
        for replica in list(self._state.replicas.values()):
            if replica.silent_since is not None and now - replica.silent_since > SILENT_FOR:
                replica.silent_since = None
                note = f"the agent of replica {replica.place.index} does not answer: replaced"
                self._world.journal.add("exit", note, model=self._state.name)
                self.stop(replica, 0.0)

    def stop(self, replica: Replica, drain: float | None = None) -> None:
        """Drain a replica and remove it, in the background; its folder goes last."""
        if replica.state == "stopping":
            return
        was_dead = replica.state == "dead"
        replica.state = "stopping"
        if drain is None:
            drain = self._state.desired.reload.drain if self._state.desired is not None else GRACE
        self._spawn(self._take_down(replica, replica.task, 0.0 if was_dead else drain))

    async def _take_down(self, replica: Replica, starting: asyncio.Task[None] | None, drain: float) -> None:
        if starting is not None and starting is not asyncio.current_task() and not starting.done():
            await asyncio.wait([starting], timeout=GREETING_WITHIN)
        if replica.send({"type": "stop", "drain": drain, "grace": GRACE}):
            try:
                async with asyncio.timeout(drain + GRACE + 1.0):
                    await replica.ended.wait()
            except TimeoutError:
                self._world.journal.add("stop", "its agent did not end in time: killed", model=self._state.name)
        if replica.link_task is not None:
            replica.link_task.cancel()
        removed = replica.record is None or await self._remove(replica.record)
        await self._world.logs.forget(self._state.name, replica.incarnation)
        if removed:
            await asyncio.to_thread(shutil.rmtree, replica.place.folder, ignore_errors=True)
        self._state.replicas.pop(replica.incarnation, None)
        for key in [each for each in self._state.halted if each[0] == replica.incarnation]:
            self._state.halted.discard(key)

    async def _remove(self, record: ReplicaRecord) -> bool:
        """Have its runtime remove a replica, again and again where it cannot: an engine that is restarted comes back.

        False where that was given up for a `down`. Its folder stays then, too: a later control finds it by that.
        """
        for tries in itertools.count(1):
            try:
                await self._world.runtimes[record.runtime].stop(record, GRACE)
            except SandboxError as error:
                if tries == 1:
                    self._world.journal.add("failed", f"cannot be removed: {error}", model=self._state.name)
                if self._state.stopping:
                    return False
                await asyncio.sleep(min(backoff.delay(tries), REMOVE_AGAIN_WITHIN))
            else:
                break
        return True

    async def close(self) -> None:
        """Let everything run on, and forget it."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def encode_serving(serving: Serving) -> dict[str, Any]:
    """The limits that a worker enforces (docs/internals.md)."""
    fields = asdict(serving)
    del fields["timeout"]  # the gateway's
    return fields


def _make_folders(place: ReplicaPlace) -> None:
    os.makedirs(place.folder, mode=0o700, exist_ok=True)
    if not os.path.isdir(place.sockets):
        os.mkdir(place.sockets)
        os.chmod(place.sockets, 0o777)  # noqa: S103 - shared with the replica's user, under a folder of ours with 0700
    os.makedirs(place.generations, exist_ok=True)


def _with_hint(error: SandboxError) -> str:
    return f"{error} ({error.hint})" if error.hint else str(error)
