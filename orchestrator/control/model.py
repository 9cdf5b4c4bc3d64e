"""One model's control loop: observe, plan, execute, tell; again when something happened. Models know nothing of each
other, so one that is slow or broken delays nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from orchestrator import sockets
from orchestrator.control.executor import Executor
from orchestrator.control.generations import Generations
from orchestrator.control.launcher import GRACE, Launcher
from orchestrator.control.memory import Memory
from orchestrator.control.replica import Replica
from orchestrator.control.reports import Reports
from orchestrator.control.source import Source
from orchestrator.control.state import Edit, ModelState
from orchestrator.control.tasks import Tasks
from orchestrator.control.trees import TreesInUse
from orchestrator.control.world import World
from orchestrator.errors import SandboxError
from orchestrator.plan.actions import Action
from orchestrator.plan.changes import Change, classify
from orchestrator.plan.identity import specification_of
from orchestrator.plan.observed import ModelObserved, Routed
from orchestrator.plan.planner import Plan, plan
from orchestrator.plan.status import status
from orchestrator.plan.types import ModelDesired
from orchestrator.plan.waiting import Awaited, Coming, Hopeless, Live, Newest, verdict
from orchestrator.ports import ReplicaExit, ReplicaPlace, ReplicaRecord
from orchestrator.spec.resolve import data_dir

ADOPT_WITHIN = 5.0
RESYNC = 30.0
AFTER_FAILURE = 0.5
SUSPECT_FOR = 0.5


class Model:
    """Owns everything about one model. on_change is called when its state changed, for those that depend on it."""

    def __init__(self, name: str, world: World, generations: Generations, on_change: Callable[[], None]) -> None:
        self.state = ModelState(name, stopped=world.standing.stopped(name), renewals=world.standing.renewals(name))
        self._world = world
        self._on_change = on_change
        self._woken = asyncio.Event()
        self._changed = asyncio.Condition()
        self.source = Source(self.state, world, generations, self.wake)
        self.reports = Reports(self.state, world, self.source.lookup, self.wake)
        self._tasks = Tasks(name, world.journal, self.wake)
        self._launcher = Launcher(self.state, world, self.reports, self._tasks)
        self._executor = Executor(self.state, world, self.reports, self._launcher, self._tasks)
        self.memory = Memory(self.state, world)
        self._task: asyncio.Task[None] | None = None
        self._unwished = False  # adopted with a wish that its replicas were made to meet

    def wake(self) -> None:
        """Ask for a new look."""
        self._woken.set()

    def want(self, desired: ModelDesired, blocked: tuple[str, ...], seen_at: float | None = None) -> None:
        """Replace what is wanted of this model. seen_at: when the edit of a file that says so was noticed."""
        self.state.blocked = blocked
        self.state.stopping = False
        if self.state.orphan or self._unwished:  # it was: nothing was tried for it meanwhile
            self.state.orphan = self._unwished = False
            self.state.environments.clear()
        before = self.state.wish
        self.state.wish = desired
        self.state.resolve()
        self._note(classify((), before, desired) if before is not None else Change("none"), seen_at)
        if before is not None and before.replica_hash != desired.replica_hash:
            self.state.trouble.pop("build", None)
            self.state.trouble.pop("start", None)
            if self.state.environments.get(desired.lock_hash) == "failed":
                del self.state.environments[desired.lock_hash]  # it is tried once more, and told of, after any change
        if before is not None and before.lock_hash != desired.lock_hash:
            self.state.environments.pop(desired.lock_hash, None)
        self.wake()

    def mount(self, found: Mapping[str, str], seen_at: float, *, told: bool = True) -> None:
        """Note which folders lie where its replicas mount them. What is missing may come back: nothing changes yet.

        told: whether there is nothing else that the replicas are replaced for.
        """
        state = self.state
        moved = sorted(path for path, identity in found.items() if state.mounts.get(path) != identity)
        if not moved:
            return
        state.mounts = {**state.mounts, **found}
        state.resolve()
        if told and state.wish is not None:
            shown = ", ".join(os.path.relpath(path, state.wish.path) for path in moved)
            self._note(Change("replace", (f"{shown} is another folder now",)), seen_at)
            message = f"changed (replace: {shown} is another folder now)"
            self._world.journal.add("spec", message, model=state.name, tier="replace")
        self.wake()

    def _note(self, change: Change, seen_at: float | None) -> None:
        """Remember what the reload to come is for, until it is told."""
        state, now = self.state, time.monotonic()
        edit = Edit(now if seen_at is None else seen_at, now, now, ", ".join(change.causes))
        if change.tier == "replace":
            state.respec = edit if state.respec is None else replace(edit, seen_at=state.respec.seen_at)
        elif change.live:
            state.told_live = edit

    def orphan(self) -> None:
        """Note that no file wants it any more: it serves on as it is."""
        if not self.state.orphan:
            self.state.orphan = True
            self._world.journal.add("spec", "no longer in sandbox.yaml: it runs on as it is", model=self.state.name)
            self.wake()

    def block(self, blocked: tuple[str, ...]) -> None:
        """Tell which models it still waits for."""
        if blocked != self.state.blocked:
            self.state.blocked = blocked
            self.wake()

    def start(self) -> None:
        """Begin the loop."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"model {self.state.name}")

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            plan_, failed = Plan(), False
            self._launcher.replace_silent()
            try:
                await self.memory.look()
                plan_ = self.decide()
                for action in plan_.actions:
                    await self._executor.execute(action)
                await self.reports.publish()
                self.reports.reloads.told()
                await self.source.settle()
            except Exception as error:  # noqa: BLE001 - nothing may end the loop: the next look sees what is
                self._world.journal.add("failed", f"could not act: {error!r}", model=self.state.name)
                traceback.print_exception(error)
                failed = True
            async with self._changed:
                self._changed.notify_all()
            self._on_change()
            if failed:
                await self._wait(time.monotonic() + AFTER_FAILURE)
            elif not plan_.actions and self.state.untidy:
                await self.source.tidy()
            elif plan_.actions:
                await asyncio.sleep(0)  # what was done may allow, or need, a next step
            else:
                await self._wait(plan_.wake_at)

    async def _wait(self, until: float | None) -> None:
        seconds = RESYNC if until is None else max(0.0, until - time.monotonic())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, RESYNC)):
                await self._woken.wait()

    def observe(self) -> ModelObserved:
        """What the planner is shown."""
        return self.state.observe(self._world.revivable())

    def decide(self) -> Plan:
        """What would be done now."""
        if self.state.stopping:
            return Plan()
        return plan(self.state.desired, self.observe(), time.monotonic())

    def pending(self) -> Sequence[Action]:
        """Return the actions of the next look, for `sandbox plan`."""
        return self.decide().actions

    def answers(self, awaited: Awaited) -> Live | Coming | Hopeless:
        """Whether a generation is what answers now, or still can be."""
        state, observed = self.state, self.observe()
        found = status(state.desired, observed, state.first_trouble, stopping=state.stopping, orphan=state.orphan)
        return verdict(state.desired, observed, found, self.pending(), awaited)

    async def newest(self) -> Newest:
        """Look at the directory now: what must answer for its content to be live. Raises SandboxError("not-live")."""
        wish = self.state.wish
        if wish is not None and wish.reload.mode == "off":
            if await self.source.edited() is not None:
                message = f"{self.state.name}: the directory was edited, and reload.mode is off"
                raise SandboxError("not-live", message, hint=f"sandbox reload {self.state.name}")
        else:
            await self.source.look(None)
            await self.until(lambda _: not self.source.missed)
        wanted = self.state.wanted
        return Newest(wanted.number if wanted is not None else 0)

    async def until(self, settled: Callable[[ModelState], bool]) -> None:
        """Wait until the state satisfies a condition."""
        async with self._changed:
            await self._changed.wait_for(lambda: settled(self.state))

    async def reload(self) -> None:
        """Make a new generation of what is on disk, whatever failed before."""
        self.state.forgive()
        await self.source.look(None, force=True)
        self.wake()

    async def roll_back(self, number: int | None) -> None:
        """Serve a kept content under a new number (None: the one before). Raises SandboxError."""
        while True:
            before = self.source.releases  # one that comes while the attempt fails counts, too
            try:
                return await self.source.roll_back(number)
            except TreesInUse:
                await self.until(lambda _: self.source.releases > before)  # noqa: B023 - awaited here

    # What was there before this control started

    async def adopt(self, desired: ModelDesired, records: Sequence[ReplicaRecord], *, orphan: bool = False) -> None:
        """Take over replicas of an earlier control: nothing is restarted, their workers serve on.

        orphan: no file has the model, so that its directory is not looked at and nothing is built for it.
        """
        self.state.wish = desired
        self.state.resolve()
        for record in records:
            self._take_over(desired, record)
        living = [each for each in self.state.replicas.values() if each.state != "dead"]
        if living:
            waiting = [asyncio.create_task(each.answered()) for each in living]
            _, late = await asyncio.wait(waiting, timeout=ADOPT_WITHIN)
            for task in late:
                task.cancel()
        self._recall_route()
        if orphan:
            self._unwished = True
            self.state.wanted = self.state.good
            self.state.environments[desired.lock_hash] = "failed"
        else:
            # Only now, when every tree that a worker runs from is held, may one be brought to the newest content.
            await self.source.adopt(desired)
            if self.state.good is None and any(each.state == "up" for each in self.state.replicas.values()):
                self.state.good = await self.source.last_active(desired)  # its successor was about to load in its place
            self.state.resolve()

    def _take_over(self, desired: ModelDesired, record: ReplicaRecord) -> None:
        generations = os.path.join(self._world.generations, record.model)
        place = ReplicaPlace(
            *(record.incarnation, record.index, record.folder, record.sockets, generations),
            data=data_dir(desired.path),
            guest=self._world.guest,
        )
        replica = Replica(place, record.replica_hash, record=record, state="starting" if record.alive else "dead")
        if desired.replica_hash == specification_of(record.replica_hash):
            replica.born = replace(desired, replica_hash=record.replica_hash)
        replica.not_enforced = record.not_enforced
        replica.last_attempt = _last_attempt(record.sockets)
        self.state.replicas[record.incarnation] = replica
        if record.alive:
            replica.silent_since = time.monotonic()
            self._launcher.connect(replica)

    def _recall_route(self) -> None:
        """Find what the gateways were last told: the newest generation that an agent has recorded as active."""
        active = [
            (worker.generation.number, replica.replica_hash, (replica.incarnation, worker.attempt), worker.generation)
            for replica in self.state.replicas.values()
            for worker in replica.workers.values()
            if worker.state == "ready" and worker.generation.number == replica.active
        ]
        if not active:
            return
        number, replica_hash, _, generation = max(active, key=lambda each: each[0])
        upstreams = frozenset(who for n, h, who, _ in active if (n, h) == (number, replica_hash))
        self.state.routed = Routed(number, replica_hash, upstreams)
        self.state.good = generation

    def ended(self, exit_: ReplicaExit) -> bool:
        """Enter that a replica's agent ended; False where the replica is not this model's."""
        replica = self.state.replicas.get(exit_.incarnation)
        if replica is None:
            return False
        self.reports.ended(replica, exit_)
        return True

    def suspect(self, upstream: str) -> None:
        """Look in a moment at a worker that a gateway cannot reach: of one that died its agent has told by then."""
        asyncio.get_running_loop().call_later(SUSPECT_FOR, self._replace_unreachable, upstream)

    def _replace_unreachable(self, upstream: str) -> None:
        """A model may have removed its worker's socket, or put another there. A gateway may also just lack descriptors:
        so its word alone ends no worker.
        """
        incarnation, _, attempt = upstream.rpartition("-")
        replica = self.state.replicas.get(incarnation)
        worker = replica.workers.get(int(attempt)) if replica is not None and attempt.isdecimal() else None
        if replica is None or worker is None or (replica.state, worker.state) != ("up", "ready"):
            return
        uid = replica.record.uid if replica.record is not None else None
        try:
            sockets.connect(replica.place.sockets, worker.socket, uid=uid).close()
        except sockets.SocketBusy:
            return
        except sockets.SocketRefused:
            self._executor.give_up(replica, worker)
            self.wake()

    # By hand

    def begin(self) -> None:
        """Have replicas again, whatever was stopped or failed before."""
        state = self.state
        if state.stopped:
            self._world.standing.start(state.name)
            self._world.journal.add("start", "started by hand", model=state.name)
        state.stopped, state.patience = False, None
        if not state.answers:
            state.forgive()
        state.resolve()
        self.wake()

    def renew(self, drain: float | None) -> None:
        """Have new replicas, whatever runs; a stopped model is started."""
        self.begin()
        self.state.forgive()
        self.state.patience = drain
        self.state.renewals = self._world.standing.renew(self.state.name)
        self.state.resolve()
        self._note(Change("replace", ("asked for",)), None)
        self.wake()

    async def halt(self, drain: float | None) -> None:
        """Have no replicas until `begin`, whatever the files say; return when none is left, or somebody began."""
        self._renounce(drain)
        await self.until(lambda state: not state.replicas or not state.stopped)

    async def kill(self) -> None:
        """`halt` at once: nobody is asked to finish anything."""
        self._renounce(0.0)
        for replica in list(self.state.replicas.values()):
            self._launcher.kill(replica)
        await self.until(lambda state: not state.replicas or not state.stopped)

    def _renounce(self, drain: float | None) -> None:
        state = self.state
        self._world.standing.stop(state.name)
        if not state.stopped:
            self._world.journal.add("stop", "stopped by hand", model=state.name)
        state.stopped, state.patience = True, drain
        state.resolve()
        for replica in state.replicas.values():
            if drain is not None and replica.state == "stopping":  # of two who stop it, the less patient one counts
                replica.send({"type": "stop", "drain": drain, "grace": GRACE})
        self.wake()

    # Stopping

    async def stop(self, drain: float) -> None:
        """Drain and remove every replica; return when nothing is left."""
        self.state.stopping = True
        if self.state.routed is not None:  # the gateways let go of its workers, so that these see when they are done
            self.state.routed = replace(self.state.routed, upstreams=frozenset())
        await self.reports.publish()
        for replica in list(self.state.replicas.values()):
            self._launcher.stop(replica, drain)
        self.wake()
        await self.until(lambda state: not state.replicas)
        await self.close()
        await self.source.let_go()
        await self.reports.publish()

    async def close(self) -> None:
        """End the loop and let the replicas run on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await self._tasks.close()


def _last_attempt(folder: str) -> int:
    """Return the highest attempt number that a socket path in this folder carries."""
    attempts = [0]
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            head, _, tail = name.removesuffix(".sock").rpartition("-")
            if head.startswith("g") and tail.isdigit():
                attempts.append(int(tail))
    return max(attempts)
