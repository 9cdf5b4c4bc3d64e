"""What can be done about a model: one class per action, each with its cause. They carry no behaviour."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.plan.overlap import Pause


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
    """Have a replica load a generation in a new worker beside the one that serves.

    pause: the phase before which it waits for a Proceed, where the two do not fit.
    """

    incarnation: str
    generation: int
    cause: str
    pause: Pause | None = None


@dataclass(frozen=True, slots=True)
class Proceed:
    """Let a worker that waits go on: what it waited for has ended."""

    incarnation: str
    generation: int
    attempt: int
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


Action = Build | Start | Revive | Load | Proceed | Kill | Swap | Retire | Configure | Stop


def verb(action: Action) -> str:
    """What the action is called: "load"."""
    return type(action).__name__.lower()


def detail(action: Action) -> str:
    """What it is done to, and where: "g3 on ab12cd34"."""
    match action:
        case Build(lock_hash, _):
            return lock_hash[:12]
        case Start(index, _):
            return f"replica {index}"
        case Revive(incarnation, _) | Configure(incarnation, _) | Stop(incarnation, _):
            return incarnation
        case Load(incarnation, generation, _, None):
            return f"g{generation} on {incarnation}"
        case Load(incarnation, generation, _, pause):
            return f"g{generation} on {incarnation}, waiting before its {pause}"
        case (
            Kill(incarnation, generation, attempt, _)
            | Proceed(incarnation, generation, attempt, _)
            | Retire(incarnation, generation, attempt, _)
        ):
            return f"g{generation}-{attempt} on {incarnation}"
        case Swap(generation, _, upstreams, _):
            on = ", ".join(f"{incarnation}-{attempt}" for incarnation, attempt in sorted(upstreams)) or "nothing"
            return f"to g{generation} on {on}"


def describe(action: Action) -> str:
    """The action as one stable line: what the log and the tests show."""
    return f"{verb(action)} {detail(action)}: {action.cause}"
