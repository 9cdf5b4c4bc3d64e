"""One model, its control's facts and a pretend machine, with a clock of its own: what the planner decides is done as
control does it. What follows of that is life.py's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, assert_never

from orchestrator.plan.actions import (
    Action,
    Build,
    Configure,
    Kill,
    Load,
    Proceed,
    Retire,
    Revive,
    Start,
    Stop,
    Swap,
    describe,
)
from orchestrator.plan.lifecycle import move
from orchestrator.plan.observed import (
    EnvironmentState,
    ModelObserved,
    Problem,
    ReplicaObserved,
    ReplicaState,
    Routed,
    WorkerObserved,
    WorkerState,
)
from orchestrator.plan.overlap import Tight
from orchestrator.plan.planner import plan
from orchestrator.plan.status import Status, status
from orchestrator.plan.types import Generation, ModelDesired, ReloadPolicy, Serving

# How a content fares. tied: it loads only with the packages that were wanted when it was saved.
Fate = Literal["good", "broken", "hang", "tied"]

# A plan, and all that follows of it at once, is over within so many looks, however many replicas there are.
MOST_LOOKS = 12

WISH = ModelDesired(
    name="m",
    path="/m",
    runtime="process",
    lock_hash="lock-1",
    replica_hash="1:lock-1-a",
    load_timeout=20.0,
    reload=ReloadPolicy(max_draining=3),
)


@dataclass(slots=True)
class Worker:
    """As control has it. gone: it ended while nobody could tell control. pauses: before its load; loads_since: when
    its time to load began.
    """

    generation: Generation
    attempt: int
    state: WorkerState
    since: float
    loads_since: float = 0.0
    pauses: bool = False
    killed: bool = False
    gone: bool = False


@dataclass(slots=True)
class Replica:
    """One incarnation. born: the lock hash that it was started with; remembered: by this control.
    doomed: its agent was told to end.
    """

    incarnation: str
    index: int
    replica_hash: str
    born: str
    state: ReplicaState = "starting"
    agent: bool = True
    doomed: bool = False
    remembered: bool = True
    active: int | None = None
    serving: Serving | None = None
    load_timeout: float | None = None
    workers: dict[int, Worker] = field(default_factory=dict)
    attempts: int = 0
    unseen: dict[int, Worker] = field(default_factory=dict)  # what lives on of a dead agent, as a new control finds it


@dataclass(slots=True)
class World:
    """revivable: whether workers outlive their agent. unbuildable: lock hashes. fates: by content. short: of memory, so
    that no two generations fit.
    """

    revivable: bool = True
    now: float = 1000.0
    wish: ModelDesired = WISH
    wanted: Generation | None = None
    good: Generation | None = None
    marked: Generation | None = None  # the store has it as the active one
    routed: Routed | None = None
    replicas: dict[str, Replica] = field(default_factory=dict)
    environments: dict[str, EnvironmentState] = field(default_factory=dict)
    built: set[str] = field(default_factory=set)
    rejected: dict[tuple[int, str], Problem] = field(default_factory=dict)
    trouble: dict[str, Problem] = field(default_factory=dict)
    failures: dict[str, tuple[int, float]] = field(default_factory=dict)
    retry_at: dict[str, float] = field(default_factory=dict)
    halted: set[tuple[str, int]] = field(default_factory=set)
    superseded: int = 0
    short: bool = False
    status: Status = field(default_factory=lambda: Status("pending"))
    unbuildable: set[str] = field(default_factory=set)
    fates: dict[str, tuple[Fate, str]] = field(default_factory=dict)
    generations: dict[int, Generation] = field(default_factory=dict)
    blamed: set[int] = field(default_factory=set)  # generations of which a worker was killed while it loaded
    log: list[str] = field(default_factory=list)
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    wake_at: float | None = None
    restarted: bool = False  # control, at least once
    given_up: bool = False  # then a replica whose agent died may be: nobody knows how it was started

    # What control sees

    @property
    def desired(self) -> ModelDesired:
        """As ModelState.resolve derives it."""
        if self.wanted is None or self.wish.reload.mode != "replace":
            return self.wish
        return replace(self.wish, replica_hash=f"{self.wish.replica_hash}+g{self.wanted.number}")

    def observe(self) -> ModelObserved:
        return ModelObserved(
            wanted=self.wanted,
            good=self.good,
            routed=self.routed,
            replicas=tuple(self._seen(each) for each in self.replicas.values()),
            environments=dict(self.environments),
            rejected=dict(self.rejected),
            retry_at=dict(self.retry_at),
            halted=frozenset(self.halted),
            superseded=self.superseded,
            tight=Tight("load", "as asked") if self.short else None,
        )

    def _seen(self, replica: Replica) -> ReplicaObserved:
        workers = tuple(
            WorkerObserved(each.generation.number, each.attempt, each.state, each.since)
            for each in replica.workers.values()
            if not each.killed
        )
        return ReplicaObserved(
            *(replica.incarnation, replica.index, replica.replica_hash, replica.state),
            workers,
            replica.serving,
            self.revivable,
            replica.load_timeout,
        )

    # Looks

    def look(self, meanwhile: Callable[[], None] | None = None) -> bool:
        """Plan once and do it; True where there was something to do. meanwhile: happens while gateways confirm."""
        made = plan(self.desired, self.observe(), self.now)
        self.wake_at = made.wake_at
        for action in made.actions:
            self.log.append(f"{self.now:g} {describe(action)}")
            self._execute(action, meanwhile)
        self._publish()
        return bool(made.actions)

    def settle(self) -> None:
        """Look until there is nothing to do, which must not take long: nothing else happens."""
        for _ in range(MOST_LOOKS):
            if not self.look():
                return
        raise AssertionError("the plan has no end")

    def _publish(self) -> None:
        problem = next((self.trouble[kind] for kind in ("build", "start") if kind in self.trouble), None)
        found = status(self.desired, self.observe(), problem, stopping=False)
        self.status = Status(move(self.status.state, found.state), found.reason, found.problem)

    def _execute(self, action: Action, meanwhile: Callable[[], None] | None) -> None:
        match action:
            case Build(lock_hash, _):
                assert lock_hash not in self.environments, "built twice"
                self.environments[lock_hash] = "building"
            case Start(index, _):
                self._start(index)
            case Revive(incarnation, _):
                self._revive(self.replicas[incarnation])
            case Load(incarnation, generation, _, pause):
                self._load(self.replicas[incarnation], generation, pauses=pause is not None)
            case Proceed(incarnation, generation, attempt, _):
                self._proceed(self.replicas[incarnation], generation, attempt)
            case Kill(incarnation, generation, attempt, _):
                self._kill(self.replicas[incarnation].workers[attempt], incarnation, generation)
            case Swap(generation, replica_hash, upstreams, _):
                self._swap(Routed(generation, replica_hash, upstreams), meanwhile)
            case Retire(incarnation, generation, attempt, _):
                self._retire(self.replicas[incarnation], generation, attempt)
            case Configure(incarnation, _):
                assert self.replicas[incarnation].state == "up"
                replica = self.replicas[incarnation]
                replica.serving, replica.load_timeout = self.desired.serving, self.desired.load_timeout
            case Stop(incarnation, _):
                self._stop(self.replicas[incarnation])
            case _:
                assert_never(action)

    def _start(self, index: int) -> None:
        desired = self.desired
        assert self.environments.get(desired.lock_hash) == "ready", "started without its environment"
        twins = [
            each
            for each in self.replicas.values()
            if (each.index, each.replica_hash) == (index, desired.replica_hash) and each.state != "stopping"
        ]
        assert not twins or not self.revivable, "a second replica in one place"
        name = f"r{next(self.numbers)}"
        self.replicas[name] = Replica(name, index, desired.replica_hash, desired.lock_hash)

    def _revive(self, replica: Replica) -> None:
        assert replica.state == "dead"
        assert self.revivable
        known = replica.remembered or replica.replica_hash == self.desired.replica_hash
        if not known or replica.born not in self.built:
            self.given_up = self.restarted
            assert self.given_up, "a replica that was started here cannot be revived"
            replica.state = "stopping"
            return
        replica.state, replica.agent = "starting", True

    def _load(self, replica: Replica, number: int, *, pauses: bool) -> None:
        assert replica.state == "up", "told to load and not connected"
        generation = next(
            (each for each in (self.wanted, self.good) if each is not None and each.number == number), None
        )
        assert generation is not None, f"g{number} is not at hand"
        replica.attempts += 1
        replica.workers[replica.attempts] = Worker(
            generation, replica.attempts, "loading", self.now, loads_since=self.now, pauses=pauses
        )
        replica.serving, replica.load_timeout = self.desired.serving, self.desired.load_timeout
        living = [each for each in replica.workers.values() if not each.killed]
        assert len(living) > 1 or not pauses, "waits for nothing"
        assert len(living) <= self.desired.reload.max_draining + 2, "too many workers at once"

    def _proceed(self, replica: Replica, number: int, attempt: int) -> None:
        worker = replica.workers[attempt]
        assert (replica.state, worker.state, worker.generation.number) == ("up", "paused", number)
        assert [each for each in replica.workers.values() if not each.killed] == [worker], "there is no room yet"
        worker.state, worker.loads_since = "loading", self.now

    def _kill(self, worker: Worker, incarnation: str, number: int) -> None:
        assert worker.generation.number == number
        assert worker.state in {"loading", "paused"}, "killed although it answered"
        assert not self._is_routed(incarnation, worker.attempt)
        worker.killed = True
        self.superseded += 1

    def _retire(self, replica: Replica, number: int, attempt: int) -> None:
        worker = replica.workers[attempt]
        assert worker.generation.number == number
        assert worker.state == "ready"
        assert not self._is_routed(replica.incarnation, attempt), "retired while gateways are sent to it"
        worker.state = "draining"

    def _stop(self, replica: Replica) -> None:
        assert replica.state != "stopping"
        serving = [each.attempt for each in replica.workers.values() if each.state == "ready" and not each.gone]
        assert not any(self._is_routed(replica.incarnation, each) for each in serving), "stopped while it serves"
        replica.state = "stopping"

    def _is_routed(self, incarnation: str, attempt: int) -> bool:
        return self.routed is not None and (incarnation, attempt) in self.routed.upstreams

    def _swap(self, routed: Routed, meanwhile: Callable[[], None] | None) -> None:
        before = self.routed
        kept = [] if before is None else self.answering(before)
        if before is not None and routed.generation < before.generation:
            assert not kept, "went back to an older generation while the newer one answered"
        if kept and not routed.upstreams:
            assert self.desired.replicas == 0 or self._gives_way(kept), "emptied the route of workers that answer"
        if before is not None and kept:
            self._keeps_enough(before, routed, set(kept))
        known = [each for each in (self.wanted, self.good) if each is not None]
        for incarnation, attempt in routed.upstreams:
            worker = self.replicas[incarnation].workers[attempt]
            assert (worker.generation.number, worker.state) == (routed.generation, "ready"), "routed, and not ready"
            self.replicas[incarnation].active = routed.generation
            known.append(worker.generation)
        if meanwhile is not None:
            meanwhile()
        new = before is None or (before.generation, before.replica_hash) != (routed.generation, routed.replica_hash)
        if new and not self._all_there(routed):
            for incarnation, _ in before.upstreams if before is not None else ():
                if incarnation in self.replicas:
                    self.replicas[incarnation].active = before.generation
            return
        self.routed = routed
        if new:
            self.superseded = 0
            self.good = self.marked = next(each for each in known if each.number == routed.generation)

    def _all_there(self, routed: Routed) -> bool:
        """Whether control has heard of no end of these workers while the agents answered."""
        replicas = self.replicas
        return all(each in replicas and attempt in replicas[each].workers for each, attempt in routed.upstreams)

    def _keeps_enough(self, before: Routed, routed: Routed, kept: set[tuple[str, int]]) -> None:
        """All of `replicas` answer, but for laggards that were waited for and what gives way for want of memory.

        kept: what answers until now.
        """
        most = min(len(kept), self.desired.replicas)
        if len(routed.upstreams) >= most or self._waiting():
            return
        if (before.generation, before.replica_hash) == (routed.generation, routed.replica_hash):
            missed = [each for each in kept - routed.upstreams if self.replicas[each[0]].index < self.desired.replicas]
            assert not missed, f"{missed} answered and were left out"
            return
        began = [
            worker.since
            for replica in self.replicas.values()
            for worker in replica.workers.values()
            if replica.replica_hash == routed.replica_hash and worker.generation.number == routed.generation
        ]
        assert self.now >= max(began) + self.desired.load_timeout, "did not wait for its laggards"

    def _waiting(self) -> bool:
        """Whether a candidate waits until there is memory for it."""
        return any(
            worker.state == "paused" for replica in self.replicas.values() for worker in replica.workers.values()
        )

    def _gives_way(self, answering: list[tuple[str, int]]) -> bool:
        """Whether the only replica that answers does so no more for a worker that waits in it."""
        names = {incarnation for incarnation, _ in answering}
        waiting = any(worker.state == "paused" for name in names for worker in self.replicas[name].workers.values())
        return len(names) == 1 and waiting

    def answering(self, routed: Routed | None) -> list[tuple[str, int]]:
        """The upstreams of a route that are ready, as far as control can know."""
        return [
            (incarnation, attempt)
            for incarnation, attempt in (routed.upstreams if routed is not None else ())
            if incarnation in self.replicas
            and self.replicas[incarnation].state != "stopping"
            and attempt in self.replicas[incarnation].workers
            and self.replicas[incarnation].workers[attempt].state == "ready"
        ]
