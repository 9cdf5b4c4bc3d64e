"""One incarnation of a replica as control knows it, kept true by what its agent and its runtime say."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.control.agents import AgentLink
from orchestrator.plan.observed import Problem, ReplicaObserved, ReplicaState, WorkerObserved, WorkerState
from orchestrator.plan.types import Generation, ModelDesired, Serving
from orchestrator.ports import ReplicaPlace, ReplicaRecord

# What sandbox.discovery raises, by the name that it crosses the wire with.
REFERENCES_OF_TYPES = {"NoMainError": "no-main", "NoModelError": "no-model", "ManyModelsError": "many-models"}


@dataclass(slots=True)
class Worker:
    """A worker process of a replica. asked_at, drains_since: monotonic seconds. phases: seconds by name.

    waits: why it loads only when what ran before it has ended; "" where it does not wait. spawned: why it was
    not forked although it was to be.
    """

    generation: Generation
    attempt: int
    state: WorkerState
    asked_at: float
    drains_since: float | None = None
    socket: str = ""
    pid: int | None = None
    killed: bool = False
    waits: str = ""
    cause: str = ""
    spawned: str = ""
    info: Mapping[str, Any] = field(default_factory=dict)
    phases: dict[str, float] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class Replica:
    """A replica and what belongs to it. record is None until its agent was started.

    born: what was wanted when it was started; None where an earlier control did that. started_in: seconds until its
    agent answered. told: limits and load_timeout that it has confirmed, or was given with a load; telling: those that
    are on their way to it.
    """

    place: ReplicaPlace
    replica_hash: str
    record: ReplicaRecord | None = None
    born: ModelDesired | None = None
    state: ReplicaState = "starting"
    link: AgentLink | None = None
    link_task: asyncio.Task[None] | None = None
    task: asyncio.Task[None] | None = None  # bringing it up
    told: tuple[Serving, float] | None = None
    telling: tuple[Serving, float] | None = None
    started_in: float | None = None
    workers: dict[int, Worker] = field(default_factory=dict)
    agent_pid: int | None = None
    active: int | None = None  # the generation that the agent has recorded
    zygote: Mapping[str, Any] = field(default_factory=dict)
    not_enforced: tuple[str, ...] = ()
    greeted: asyncio.Event = field(default_factory=asyncio.Event)
    activated: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    taught: bool = False  # a worker of it got ready: later ones may be forked with what it imported
    last_attempt: int = 0
    memory: int | None = None  # bytes that all of it used when it was last asked; None where its agent cannot know
    measured: asyncio.Event = field(default_factory=asyncio.Event)
    silent_since: float | None = None  # monotonic: it lives, as far as is known, and its agent does not answer

    @property
    def incarnation(self) -> str:
        """8 hex, never reused."""
        return self.place.incarnation

    async def answered(self) -> bool:
        """Wait until its agent has greeted, or ended: whether it greeted."""
        waiting = [asyncio.create_task(event.wait()) for event in (self.greeted, self.ended)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        return self.greeted.is_set()

    @property
    def unforkable(self) -> str:
        """Why no worker is forked here; "" where one can be."""
        unsafe = self.zygote.get("state") == "unsafe"  # one that died is started again
        return str(self.zygote.get("reason") or "its zygote is unsafe") if unsafe else ""

    @property
    def comes_up(self) -> bool:
        """Whether its agent is being started, and has not answered yet."""
        return self.task is not None and not self.task.done()

    def confirmed(self) -> None:
        """Enter that its workers have taken over the limits they were told."""
        if self.telling is not None:
            self.told, self.telling = self.telling, None

    def find(self, generation: int, attempt: int) -> Worker | None:
        """The worker of this generation and attempt."""
        worker = self.workers.get(attempt)
        return worker if worker is not None and worker.generation.number == generation else None

    def next_attempt(self) -> int:
        """Return an attempt number that this incarnation has not used, so that no socket path is used twice."""
        self.last_attempt = max([self.last_attempt, *self.workers]) + 1
        return self.last_attempt

    def send(self, message: Mapping[str, Any]) -> bool:
        """Tell the agent; False where there is no connection."""
        return self.link is not None and self.link.send(dict(message))

    def observe(self, *, revivable: bool) -> ReplicaObserved:
        """Freeze for the planner. A worker that was told to die is no longer counted."""
        workers = tuple(
            WorkerObserved(each.generation.number, each.attempt, each.state, each.asked_at)
            for each in self.workers.values()
            if not each.killed
        )
        told = self.telling or self.told
        return ReplicaObserved(
            *(self.incarnation, self.place.index, self.replica_hash, self.state, workers),
            serving=told[0] if told is not None else None,
            load_timeout=told[1] if told is not None else None,
            revivable=revivable,
        )


def problem(error: Mapping[str, Any], phase: str) -> Problem:
    """An agent's error object as a Problem."""
    line, kind = error.get("line"), str(error.get("type", "Error"))
    return Problem(
        type=kind,
        message=str(error.get("message", "")),
        file=error.get("file"),
        line=int(line) if isinstance(line, int) else None,
        traceback=str(error.get("traceback") or ""),
        phase=phase,
        reference=REFERENCES_OF_TYPES.get(kind, "model-failed"),
    )
