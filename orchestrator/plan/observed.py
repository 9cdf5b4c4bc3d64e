"""The vocabulary of what is there: one model as control last saw it. Frozen values; nothing here acts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.plan.overlap import Tight
from orchestrator.plan.types import Generation, Serving

# paused: it waits, before its import or its load(), until what runs beside it has ended.
WorkerState = Literal["loading", "paused", "ready", "draining"]
# starting: its agent is being started or not yet connected; up: connected; lost: alive, but the connection is gone;
# dead: its agent ended; stopping: being drained and removed.
ReplicaState = Literal["starting", "up", "lost", "dead", "stopping"]
EnvironmentState = Literal["building", "ready", "failed"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something does not work, in the terms of whoever must mend it. file is relative to the model directory.

    reference: what docs/errors.md has it under.
    """

    type: str
    message: str
    file: str | None = None
    line: int | None = None
    traceback: str = ""
    phase: str = ""
    reference: str = "model-failed"

    @property
    def where(self) -> str:
        """The place: "main.py:3", "main.py", or nothing."""
        if self.file is None:
            return ""
        return f"{self.file}:{self.line}" if self.line else self.file

    @property
    def line_for_people(self) -> str:
        """One line: "SyntaxError main.py:3 invalid syntax". Our own errors need no type: their message says it."""
        kind = "" if self.type == self.reference else self.type
        return " ".join(part for part in (kind, self.where, self.message) if part)


@dataclass(frozen=True, slots=True)
class WorkerObserved:
    """A worker process of a replica, by generation and attempt."""

    generation: int
    attempt: int
    state: WorkerState
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class ReplicaObserved:
    """One incarnation of a replica. serving, load_timeout: the limits its agent was last told; None where it was told
    none, or an earlier control did that.
    """

    incarnation: str
    index: int
    replica_hash: str
    state: ReplicaState
    workers: tuple[WorkerObserved, ...] = ()
    serving: Serving | None = None
    revivable: bool = False
    load_timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Routed:
    """What the gateways were last told, and confirmed: the active generation and the workers that answer for it."""

    generation: int
    replica_hash: str
    upstreams: frozenset[tuple[str, int]]  # (incarnation, attempt)


@dataclass(frozen=True, slots=True)
class ModelObserved:
    """One model as it is now.

    wanted: the newest content on disk. good: the generation that is, or last was, routed.
    rejected: why a generation does not run on a replica hash; keyed (number, replica_hash).
    environments: by lock hash; a missing one has not been asked for.
    retry_at: not before that time (monotonic seconds) for a key: "build", "start:0", "load:<incarnation>".
    halted: (incarnation, generation) that the restart policy leaves dead.
    superseded: how many candidates in a row were killed for a newer one.
    blocked: models of depends_on that are not ready yet.
    stopped: somebody stopped it by hand, which is why no replicas are desired.
    tight: why `wanted` does not fit beside what serves, None where it does.
    """

    wanted: Generation | None = None
    good: Generation | None = None
    routed: Routed | None = None
    replicas: tuple[ReplicaObserved, ...] = ()
    environments: Mapping[str, EnvironmentState] = field(default_factory=dict)
    rejected: Mapping[tuple[int, str], Problem] = field(default_factory=dict)
    retry_at: Mapping[str, float] = field(default_factory=dict)
    halted: frozenset[tuple[str, int]] = frozenset()
    superseded: int = 0
    blocked: tuple[str, ...] = ()
    tight: Tight | None = None
    stopped: bool = False
