"""Does what the planner decided, one action at a time, for one model. It decides nothing.

What takes long (building, starting, stopping) runs in tasks of its own, whose progress the planner sees in the state;
the rest is a message to an agent or to the gateways.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from typing import Any, assert_never

from orchestrator.control.launcher import Launcher
from orchestrator.control.replica import Replica, Worker
from orchestrator.control.reports import Reports
from orchestrator.control.state import ModelState
from orchestrator.control.tasks import Tasks
from orchestrator.control.world import World
from orchestrator.errors import BuildError, SandboxError
from orchestrator.plan.actions import Action, Build, Configure, Kill, Load, Proceed, Retire, Revive, Start, Stop, Swap
from orchestrator.plan.observed import Problem, Routed
from orchestrator.plan.overlap import Pause
from orchestrator.plan.types import Generation, ModelDesired, Serving
from orchestrator.ports import Progress, Runtime

ACTIVATION_WITHIN = 1.0


class Executor:
    """Acts on one model."""

    def __init__(self, state: ModelState, world: World, reports: Reports, launcher: Launcher, tasks: Tasks) -> None:
        self._state = state
        self._world = world
        self._reports = reports
        self._launcher = launcher
        self._tasks = tasks

    async def execute(self, action: Action) -> None:
        """Do one action; an action that takes long is only begun here."""
        match action:
            case Build(lock_hash, _):
                self._build(lock_hash)
            case Start(index, _):
                self._launcher.start(index)
            case Revive(incarnation, _):
                self._launcher.revive(self._state.replicas[incarnation])
            case Load(incarnation, generation, _, pause):
                self._load(self._state.replicas[incarnation], generation, pause)
            case Proceed(incarnation, generation, attempt, _):
                self._proceed(self._state.replicas[incarnation], generation, attempt)
            case Kill(incarnation, generation, attempt, _):
                self._kill(self._state.replicas[incarnation], generation, attempt)
            case Swap(generation, replica_hash, upstreams, _):
                await self._swap(Routed(generation, replica_hash, upstreams))
            case Retire(incarnation, generation, attempt, _):
                self._retire(self._state.replicas[incarnation], generation, attempt)
            case Configure(incarnation, _):
                self._configure(self._state.replicas[incarnation])
            case Stop(incarnation, _):
                self._launcher.stop(self._state.replicas[incarnation])
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

    # Building

    def _build(self, lock_hash: str) -> None:
        self._state.environments[lock_hash] = "building"
        self._tasks.spawn(self._prepare(self._desired, lock_hash))

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
            found = Problem(reference, error.with_hint, traceback=log, phase="build", reference=reference)
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

    # Workers

    def _load(self, replica: Replica, number: int, pause: Pause | None) -> None:
        desired, generation = self._desired, self._known(number)
        attempt = replica.next_attempt()
        routed = self._state.routed
        check = [path for path in generation.changed if path.endswith(".py")] if routed is not None else []
        worker = replica.workers[attempt] = Worker(generation, attempt, "loading", time.monotonic())
        if pause is not None and self._state.tight is not None:
            worker.waits = self._state.tight.reason
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
                "pause": pause,
            }
        )

    def _known(self, number: int) -> Generation:
        for each in (self._state.wanted, self._state.good):
            if each is not None and each.number == number:
                return each
        raise LookupError(f"generation {number} of {self._state.name} is not at hand")

    def _proceed(self, replica: Replica, number: int, attempt: int) -> None:
        worker = replica.find(number, attempt)
        if worker is not None and replica.send({"type": "proceed", "generation": number, "attempt": attempt}):
            worker.state = "loading"

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
        order = {
            "type": "retire",
            "generation": number,
            "attempt": attempt,
            "drain": drain,
            "grace": self._desired.stop_grace,
        }
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
        before, number = state.routed, routed.generation
        new = before is None or before.generation != number or before.replica_hash != routed.replica_hash
        if new and not self._all_there(routed):
            # A worker ended before the gateways heard of it: what answers goes on, and the next look decides anew.
            if before is not None:
                await self._activate(before)
            return
        state.routed = routed
        if new:
            state.superseded = 0
            state.good = generation
        await self._reports.publish()
        if new:
            self._reports.reloads.live(before, routed, self._reports.routed_workers(), began)
        elif before is not None:
            self._reports.reloads.gap(before, routed)

    def _all_there(self, routed: Routed) -> bool:
        replicas = self._state.replicas
        return all(
            incarnation in replicas and replicas[incarnation].find(routed.generation, attempt) is not None
            for incarnation, attempt in routed.upstreams
        )

    def _generation_of(self, routed: Routed) -> Generation | None:
        for incarnation, attempt in routed.upstreams:
            if worker := self._state.replicas[incarnation].find(routed.generation, attempt):
                return worker.generation
        return self._state.good

    async def _activate(self, routed: Routed) -> None:
        waiting = []
        for incarnation, attempt in routed.upstreams:
            replica = self._state.replicas.get(incarnation)
            if replica is None:
                continue
            replica.activated.clear()
            if replica.send({"type": "activate", "generation": routed.generation, "attempt": attempt}):
                waiting.append(asyncio.create_task(replica.activated.wait()))
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=ACTIVATION_WITHIN)
            for task in late:
                task.cancel()


def encode_serving(serving: Serving) -> dict[str, Any]:
    """The limits that a worker enforces (docs/internals.md)."""
    fields = asdict(serving)
    del fields["timeout"]  # the gateway's
    return fields
