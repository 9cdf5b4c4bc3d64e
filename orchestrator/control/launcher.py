"""Brings replicas of one model up and takes them down, in tasks of their own. What runs in them is not its business."""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import shutil
import time
import traceback

from orchestrator.control.agents import AgentLink
from orchestrator.control.replica import Replica
from orchestrator.control.reports import Reports
from orchestrator.control.state import ModelState
from orchestrator.control.tasks import Tasks
from orchestrator.control.world import World
from orchestrator.errors import RuntimeFailure, SandboxError
from orchestrator.plan import backoff
from orchestrator.plan.observed import Problem
from orchestrator.plan.types import ModelDesired
from orchestrator.ports import Environment, ReplicaPlace, ReplicaRecord
from orchestrator.spec.resolve import data_dir

GREETING_WITHIN = 30.0
GRACE = 5.0
SILENT_FOR = 30.0
MOST_REVIVALS = 5
ENGINE_AGAIN_WITHIN = 1.0  # to ask costs next to nothing, and calls wait for the answer
REMOVE_AGAIN_WITHIN = 5.0  # a `down` waits for the next try


class Launcher:
    """Starts, revives, connects and stops the replicas of one model."""

    def __init__(self, state: ModelState, world: World, reports: Reports, tasks: Tasks) -> None:
        self._state = state
        self._world = world
        self._reports = reports
        self._tasks = tasks

    @property
    def _desired(self) -> ModelDesired:
        if self._state.desired is None:
            raise LookupError(f"{self._state.name} is not wanted")
        return self._state.desired

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

    def start(self, index: int) -> None:
        """Begin to start a new incarnation of the replica with this index."""
        replica = Replica(self._place(secrets.token_hex(4), index), self._desired.replica_hash, born=self._desired)
        self._state.replicas[replica.incarnation] = replica
        environment = self._state.built[self._desired.lock_hash]
        replica.task = self._tasks.spawn(self._bring_up(replica, self._desired, environment))

    def revive(self, replica: Replica) -> None:
        """Begin to start a new agent for a replica whose agent died."""
        replica.state = "starting"
        replica.greeted.clear()
        replica.ended.clear()
        born = replica.born  # it goes on as it was started, whatever is wanted by now
        if born is None and replica.replica_hash == self._desired.replica_hash:
            born = self._desired
        environment = self._state.built.get(born.lock_hash) if born is not None else None
        if born is None or environment is None:
            self.stop(replica)  # an earlier control started it as nobody knows any more: a new one takes its place
            return
        replica.task = self._tasks.spawn(self._bring_up(replica, born, environment))

    async def _bring_up(self, replica: Replica, desired: ModelDesired, environment: Environment) -> None:
        began = time.monotonic()
        try:
            _make_folders(replica.place)
            replica.record = await self._world.runtimes[desired.runtime].start(desired, replica.place, environment)
            replica.not_enforced = replica.record.not_enforced
            self.connect(replica)
            if replica.state == "stopping":
                return  # whoever stops it waits for this
            async with asyncio.timeout(GREETING_WITHIN):
                await _answer(replica)
            replica.started_in = time.monotonic() - began
        except Exception as error:  # noqa: BLE001 - whatever it was, the replica is not up: it is told, and tried again
            if not isinstance(error, (SandboxError, OSError)):
                traceback.print_exception(error)
            self._not_up(replica, error)
        else:
            self._state.trouble.pop("start", None)

    def _not_up(self, replica: Replica, error: Exception) -> None:
        found = _problem(error)
        told = self._state.trouble.get("start") == found
        self._state.trouble["start"] = found
        longest = ENGINE_AGAIN_WITHIN if found.reference == "no-engine" else backoff.LONGEST
        wait = self._state.failed(f"start:{replica.place.index}", longest)
        if not told:  # it is tried again and again; people need to hear of it once
            note = f"start failed: {found.message}; again in {wait:.1f} s"
            self._world.journal.add("failed", note, model=self._state.name)
        if replica.workers and self._state.failures[f"start:{replica.place.index}"][0] < MOST_REVIVALS:
            replica.state = "dead"  # its workers serve on: another agent is tried before they are given up
        else:
            self.stop(replica)

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
        replica.link_task = self._tasks.spawn(replica.link.run())
        self._world.logs.follow(self._state.name, replica.incarnation, replica.record.sockets, replica.record.uid)

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
            drain = self._state.patience
        if drain is None:
            drain = self._state.desired.reload.drain if self._state.desired is not None else GRACE
        self._tasks.spawn(self._take_down(replica, replica.task, 0.0 if was_dead else drain))

    def kill(self, replica: Replica) -> None:
        """End a replica at once, in the background, also one that is being stopped."""
        replica.send({"type": "stop", "drain": 0.0, "grace": 0.0})
        self.stop(replica, 0.0)

    async def _take_down(self, replica: Replica, starting: asyncio.Task[None] | None, drain: float) -> None:
        if starting is not None and starting is not asyncio.current_task() and not starting.done():
            await asyncio.wait(
                [starting]
            )  # its steps have deadlines of their own; only then is it known what to remove
        grace = self._state.desired.stop_grace if self._state.desired is not None else GRACE
        if replica.send({"type": "stop", "drain": drain, "grace": grace}):
            try:
                async with asyncio.timeout(drain + grace + 1.0):
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


def _make_folders(place: ReplicaPlace) -> None:
    os.makedirs(place.folder, mode=0o700, exist_ok=True)
    if not os.path.isdir(place.sockets):
        os.mkdir(place.sockets)
        os.chmod(place.sockets, 0o777)  # noqa: S103 - shared with the replica's user, under a folder of ours with 0700
    os.makedirs(place.generations, exist_ok=True)


async def _answer(replica: Replica) -> None:
    if not await replica.answered() or replica.ended.is_set():
        raise RuntimeFailure("start", "its agent ended at once")


def _problem(error: Exception) -> Problem:
    match error:
        case SandboxError():
            return Problem(error.reference, error.with_hint, phase="start", reference=error.reference)
        case OSError():  # TimeoutError is one
            return Problem("start", str(error) or "its agent does not answer", phase="start", reference="start")
        case _:
            return Problem("start", f"internal error: {error!r}", phase="start", reference="start")
