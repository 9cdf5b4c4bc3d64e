"""Everything that control knows of one model, in one place. Its owner is the model's own task in the event loop."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

from orchestrator.control.replica import Replica
from orchestrator.plan import backoff
from orchestrator.plan.identity import born_with
from orchestrator.plan.lifecycle import ANSWERS
from orchestrator.plan.observed import EnvironmentState, ModelObserved, Problem, Routed
from orchestrator.plan.overlap import Peak, Tight
from orchestrator.plan.status import Status
from orchestrator.plan.types import Generation, ModelDesired
from orchestrator.ports import Environment

# Which trouble is told first, where there are several.
TROUBLES = ("source", "spec", "build", "start")


@dataclass(frozen=True, slots=True)
class Edit:
    """What is behind a generation: when it was noticed, looked at, and made (monotonic seconds), and its cause."""

    seen_at: float
    looked_at: float
    made_at: float
    cause: str


@dataclass(eq=False, slots=True)
class ModelState:
    """Mutable facts of one model; see plan/observed.py for what the planner is shown of them.

    wish: as the files say; desired: the same with `reload.mode: replace` and mounts worked in. mounts: device and inode
    of each folder that replicas mount, as last seen there. edits: what is behind
    each generation that was made here. respec: what is behind the replicas that are to come; told_live: behind limits
    that not all that runs has confirmed yet. built_in: seconds by lock hash, until a reload tells of them. failures:
    how often a key of retry_at failed in a row, and when last.
    peak: what the last generation that loaded took; tight: why the generation `measured_for` does not fit beside what
    serves; empty_since: monotonic, when the route was last emptied for want of memory. exit_code: of the last worker
    that ended by itself. renewals: how often its replicas were asked to be made anew; patience: seconds that replicas
    may drain which somebody ends by hand, None: as usual.
    """

    name: str
    wish: ModelDesired | None = None
    desired: ModelDesired | None = None
    wanted: Generation | None = None
    good: Generation | None = None
    routed: Routed | None = None
    replicas: dict[str, Replica] = field(default_factory=dict)
    environments: dict[str, EnvironmentState] = field(default_factory=dict)
    built: dict[str, Environment] = field(default_factory=dict)
    rejected: dict[tuple[int, str], Problem] = field(default_factory=dict)
    trouble: dict[str, Problem] = field(default_factory=dict)
    failures: dict[str, tuple[int, float]] = field(default_factory=dict)
    retry_at: dict[str, float] = field(default_factory=dict)
    halted: set[tuple[str, int]] = field(default_factory=set)
    edits: dict[int, Edit] = field(default_factory=dict)
    mounts: dict[str, str] = field(default_factory=dict)
    respec: Edit | None = None
    told_live: Edit | None = None
    built_in: dict[str, float] = field(default_factory=dict)
    superseded: int = 0
    peak: Peak | None = None
    tight: Tight | None = None
    measured_for: int = 0
    empty_since: float | None = None
    restarts: int = 0
    exit_code: int | None = None
    blocked: tuple[str, ...] = ()
    stopped: bool = False  # somebody stopped it: whatever the files say, it has no replica
    renewals: int = 0
    patience: float | None = None
    stopping: bool = False
    orphan: bool = False
    untidy: bool = False  # a reload was done, and its remains were not yet seen to
    status: Status = field(default_factory=lambda: Status("pending"))
    status_since: float = field(default_factory=time.time)

    @property
    def answers(self) -> bool:
        """Whether requests are answered now."""
        return self.status.state in ANSWERS

    @property
    def runs(self) -> bool:
        """Whether a replica was started, ready or not."""
        return any(each.record is not None and each.state != "stopping" for each in self.replicas.values())

    @property
    def first_trouble(self) -> Problem | None:
        """The trouble to tell first."""
        return next((self.trouble[kind] for kind in TROUBLES if kind in self.trouble), None)

    @property
    def unforkable(self) -> str:
        """Why no worker is forked; "" where one can be."""
        return next((each.unforkable for each in self.replicas.values() if each.unforkable), "")

    def born(self, wish: ModelDesired) -> ModelDesired:
        """What a wish asks replicas to be born with: a folder that is another now needs new ones, which mount it; with
        `reload.mode: replace` each generation has replicas of its own.
        """
        number = self.wanted.number if self.wanted is not None and wish.reload.mode == "replace" else None
        return replace(wish, replica_hash=born_with(wish.replica_hash, self.mounts, number, self.renewals))

    def resolve(self) -> None:
        """Derive `desired`."""
        self.desired = None if self.wish is None else self.born(self.wish)
        if self.desired is not None and self.stopped:
            self.desired = replace(self.desired, replicas=0)

    def generations_in_use(self) -> set[int]:
        """Generations whose trees must not change: a worker runs from them, or one may be started any moment."""
        used = {worker.generation.number for each in self.replicas.values() for worker in each.workers.values()}
        return used | {each.number for each in (self.wanted, self.good) if each is not None}

    def failed(self, key: str, longest: float = backoff.LONGEST) -> float:
        """Count a failure of `key`; returns the seconds until it may be tried again, at most `longest`."""
        now = time.monotonic()
        count, last = self.failures.get(key, (0, now))
        count = 1 if now - last > backoff.FORGET_AFTER else count + 1
        self.failures[key] = (count, now)
        wait = min(backoff.delay(count), longest)
        self.retry_at[key] = now + wait
        return wait

    def forgive(self) -> None:
        """Forget every failure: somebody asked for another try."""
        self.rejected.clear()
        self.failures.clear()
        self.retry_at.clear()
        self.halted.clear()
        self.trouble.clear()
        for lock_hash in [each for each, state in self.environments.items() if state == "failed"]:
            del self.environments[lock_hash]

    def observe(self, revivable: dict[str, bool]) -> ModelObserved:
        """Freeze for the planner. revivable: by runtime kind."""
        return ModelObserved(
            wanted=self.wanted,
            good=self.good,
            routed=self.routed,
            replicas=tuple(
                each.observe(revivable=each.record is not None and revivable.get(each.record.runtime, False))
                for each in self.replicas.values()
            ),
            environments=dict(self.environments),
            rejected=dict(self.rejected),
            retry_at=dict(self.retry_at),
            halted=frozenset(self.halted),
            superseded=self.superseded,
            blocked=self.blocked,
            stopped=self.stopped,
            tight=self.tight if self.wanted is not None and self.measured_for == self.wanted.number else None,
        )
