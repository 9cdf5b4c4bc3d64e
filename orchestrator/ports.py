"""What the control loop needs of the world: protocols only. Adapters implement them, testing.py fakes them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from orchestrator.plan.types import ModelDesired, RuntimeKind


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of long work, for people: "installing scikit-learn 1.5.2". fraction in 0…1, or None where unknown."""

    message: str
    fraction: float | None = None


Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Environment:
    """What `prepare` made: an environment folder (process) or an image (docker), for one lock hash.

    location: the folder's absolute path, or the image's id ("sha256:…"). python: "3.11.7".
    """

    lock_hash: str
    location: str
    python: str


@dataclass(frozen=True, slots=True)
class ReplicaPlace:
    """Where one incarnation of a replica lives on the host. All paths absolute; whoever calls `start` made them.

    incarnation: 8 hex, never reused. folder: private to the host (0700). sockets: `folder/s`, 0777, shared with the
    replica: agent.sock, worker sockets, logs. generations: the model's pool of trees. data: the live data folder or
    None. guest: the folder that holds `__main__.py` and `sandbox/`.
    """

    incarnation: str
    index: int
    folder: str
    sockets: str
    generations: str
    data: str | None
    guest: str


@dataclass(frozen=True, slots=True)
class ReplicaRecord:
    """A replica as its runtime knows it: from container labels or from a file in its folder, never from its name.

    uid: the user its processes run as (checked on every socket). alive: whether its agent (its container) runs.
    not_enforced: what was asked for and cannot be had here, a sentence each ("network: not isolated: …").
    paths: how the replica sees its folders: {"sockets", "generations", "data", "guest"}.
    """

    model: str
    index: int
    incarnation: str
    runtime: RuntimeKind
    replica_hash: str
    lock_hash: str
    folder: str
    sockets: str
    uid: int
    alive: bool
    python: str = ""
    pid: int | None = None
    container: str | None = None
    not_enforced: tuple[str, ...] = ()
    paths: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReplicaExit:
    """A replica's agent (container) ended. cause: "exit 0", "signal 9", "out of memory"."""

    incarnation: str
    cause: str
    oom: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """What a replica uses now. cpu_seconds is a counter since its start; memory in bytes without page cache."""

    cpu_seconds: float
    memory: int
    pids: int


@dataclass(frozen=True, slots=True)
class Process:
    """A process of a replica, by the numbers of the host. memory: resident bytes; user: its name or number."""

    pid: int
    parent: int
    user: str
    cpu_seconds: float
    memory: int
    command: str


class Runtime(Protocol):
    """Runs replicas somewhere. Every verb is idempotent; every error is a SandboxError of errors.REFERENCES."""

    kind: RuntimeKind
    # True where a dead agent may be started again in the same incarnation, to adopt the workers it left (process);
    # False where the agent's death is the replica's (docker).
    revivable: bool

    async def check(self) -> None:
        """Return if this runtime works here; else raise RuntimeFailure("no-engine", why)."""

    async def interpreter(self, python: str) -> str:
        """Identity of the interpreter that `python` ("3.11", "" = default) means here, part of the lock hash.

        Raises SandboxError("no-python").
        """

    async def find(self, model: ModelDesired) -> Environment | None:
        """The model's environment, where it exists."""

    async def prepare(self, model: ModelDesired, report: Report) -> Environment:
        """Make the model's environment unless it exists. Two calls for one lock hash build once. Raises BuildError."""

    def data_target(self, model: ModelDesired) -> str | None:
        """The path under which the model's replicas see its data folder; None where it has none."""

    async def start(self, model: ModelDesired, place: ReplicaPlace, environment: Environment) -> ReplicaRecord:
        """Start a replica's agent and return once it runs; its control socket appears as `sockets/agent.sock`.

        Raises RuntimeFailure("start" | "engine" | "isolation").
        """

    async def stop(self, replica: ReplicaRecord, grace: float) -> None:
        """End the replica and remove every trace of it (container, processes, cgroups, mounts, folder)."""

    async def list(self) -> Sequence[ReplicaRecord]:
        """Every replica of this sandbox, dead ones too."""

    def exits(self) -> AsyncIterator[ReplicaExit]:
        """Deaths of agents as they happen, until closed. A lost event stream is reopened, never silently ended."""

    async def usage(self, replica: ReplicaRecord) -> Usage | None:
        """None where it cannot be known (just died)."""

    async def processes(self, replica: ReplicaRecord) -> Sequence[Process]:
        """Every process of a replica; none of one that is gone."""

    async def remove_images(self) -> None:
        """`down --rmi`: remove this sandbox's images (docker); nothing elsewhere."""

    async def close(self) -> None:
        """Let go of clients and tasks. Replicas run on."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """One ready worker, as the gateway reaches it: a socket name under a folder, and the uid its peer must have."""

    id: str
    directory: str
    socket: str
    uid: int


@dataclass(frozen=True, slots=True)
class Route:
    """All that a gateway knows of a model. generation and content are None until something was active.

    state: see plan/lifecycle.py. error: {"type", "message", "file", "line", "traceback"} of what is wrong, or None.
    info: the body of /models/{name}/info less what the gateway adds.
    """

    state: str
    generation: int | None = None
    content: str | None = None
    upstreams: tuple[Upstream, ...] = ()
    reason: str | None = None
    error: Mapping[str, Any] | None = None
    timeout: float = 60.0
    queue_timeout: float = 30.0
    info: Mapping[str, Any] = field(default_factory=dict)


class Traffic(Protocol):
    """The gateways, as control sees them."""

    async def route(self, model: str, route: Route | None) -> None:
        """Make every gateway use `route` for `model`; return when each has confirmed (a gateway that is gone counts
        as confirmed: it asks for everything when it is back).
        """

    async def metrics(self) -> Sequence[Sequence[Mapping[str, Any]]]:
        """Each gateway's families (see exposition.py), those of dead gateways included."""
