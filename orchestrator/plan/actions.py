"""What can be done about a model: one class per action, each with its cause. They carry no behaviour."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Build:
    """Make the environment or image of a lock hash."""

    lock_hash: str
    cause: str


@dataclass(frozen=True, slots=True)
class Start:
    """Start a new incarnation of the replica with this index."""

    index: int
    cause: str


@dataclass(frozen=True, slots=True)
class Revive:
    """Start a new agent for a replica whose agent died; it adopts the workers that live on."""

    incarnation: str
    cause: str


@dataclass(frozen=True, slots=True)
class Load:
    """Have a replica load a generation in a new worker beside the one that serves."""

    incarnation: str
    generation: int
    cause: str


@dataclass(frozen=True, slots=True)
class Kill:
    """End a worker that never served: a newer generation is wanted."""

    incarnation: str
    generation: int
    attempt: int
    cause: str


@dataclass(frozen=True, slots=True)
class Swap:
    """Have every gateway send new requests to these workers, and only these, from one moment on."""

    generation: int
    replica_hash: str
    upstreams: frozenset[tuple[str, int]]
    cause: str


@dataclass(frozen=True, slots=True)
class Retire:
    """Let a worker finish what it has and end."""

    incarnation: str
    generation: int
    attempt: int
    cause: str


@dataclass(frozen=True, slots=True)
class Configure:
    """Send a replica new limits for its running workers."""

    incarnation: str
    cause: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Drain a replica and remove it."""

    incarnation: str
    cause: str


Action = Build | Start | Revive | Load | Kill | Swap | Retire | Configure | Stop


def describe(action: Action) -> str:
    """The action as one stable line: what `sandbox plan`, the log and the tests show."""
    match action:
        case Build(lock_hash, cause):
            return f"build {lock_hash[:12]}: {cause}"
        case Start(index, cause):
            return f"start replica {index}: {cause}"
        case Revive(incarnation, cause):
            return f"revive {incarnation}: {cause}"
        case Load(incarnation, generation, cause):
            return f"load g{generation} on {incarnation}: {cause}"
        case Kill(incarnation, generation, attempt, cause):
            return f"kill g{generation}-{attempt} on {incarnation}: {cause}"
        case Swap(generation, _, upstreams, cause):
            on = ", ".join(f"{incarnation}-{attempt}" for incarnation, attempt in sorted(upstreams)) or "nothing"
            return f"swap to g{generation} on {on}: {cause}"
        case Retire(incarnation, generation, attempt, cause):
            return f"retire g{generation}-{attempt} on {incarnation}: {cause}"
        case Configure(incarnation, cause):
            return f"configure {incarnation}: {cause}"
        case Stop(incarnation, cause):
            return f"stop {incarnation}: {cause}"
