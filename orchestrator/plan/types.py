"""The vocabulary of deciding: what is desired of a model. Frozen values; nothing here acts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

RuntimeKind = Literal["docker", "process"]
Network = Literal["none", "internal", "bridge"]
Right = Literal["infer", "manage", "observe"]
Restart = Literal["no", "on-failure", "always", "unless-stopped"]
SECRETS = "/run/secrets"
ReloadMode = Literal["auto", "spawn", "replace", "off"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a replica may use. memory in bytes, cpus in cores; None means no limit."""

    memory: int | None = None
    cpus: float | None = None
    pids: int = 512


@dataclass(frozen=True, slots=True)
class Mount:
    """A volume: an existing host path (absolute, resolved) seen at an absolute path inside the replica."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Batching:
    """Concurrent calls become calls of predict_batch: at most max_size together, max_wait seconds for company."""

    max_size: int = 32
    max_wait: float = 0.005


@dataclass(frozen=True, slots=True)
class Tmpfs:
    """A folder in memory that a replica may write to, gone with it. size in bytes; None means no limit of its own."""

    target: str
    size: int | None = None
    mode: int = 0o1777


@dataclass(frozen=True, slots=True)
class Secret:
    """What a model is told in confidence: a file at `path`, below SECRETS. content is shown nowhere."""

    name: str
    path: str
    content: bytes = field(repr=False)
    mode: int = 0o444


@dataclass(frozen=True, slots=True)
class Serving:
    """How a worker serves. Durations in seconds; a change of these is live (no new generation)."""

    concurrency: int = 16
    queue_size: int = 1000
    queue_timeout: float = 30.0
    timeout: float = 60.0
    max_input: int | None = None
    max_batch: int = 100
    batching: Batching | None = None
    debug: bool = False


@dataclass(frozen=True, slots=True)
class ReloadPolicy:
    """When and how a save becomes a generation. Durations in seconds."""

    quiet: float = 0.010
    max_wait: float = 0.250
    drain: float = 30.0
    mode: ReloadMode = "auto"
    keep: int = 10
    max_draining: int = 8


@dataclass(frozen=True, slots=True)
class Requirements:
    """A model's requirements, normalised: `-r`, `-c` resolved, comments dropped, local paths with their content hash.

    text: "" where the model has none. files: every file that was read (absolute), to be watched. constraints: what `-c`
    and sandbox.lock pin; where there is any, `text` ends with `-c constraints.txt`, a file to be written beside it.
    """

    text: str = ""
    files: tuple[str, ...] = ()
    constraints: str = ""


@dataclass(frozen=True, slots=True)
class ModelDesired:
    """One model as sandbox.yaml and its config.yaml want it, defaults filled in, paths absolute.

    lock_hash: identity of its environment (64 hex). replica_hash: versioned identity ("1:<hex>") of all that a replica
    is born with (environment, limits, mounts, network, python, runtime…), without the replica count and without what
    can change live. A changed replica_hash means new replicas; a changed `serving` is sent to the running ones.
    depends_on: models that must answer before this one starts; starts_after: those that must only run.
    """

    name: str
    path: str
    runtime: RuntimeKind
    lock_hash: str
    replica_hash: str
    python: str = ""
    replicas: int = 1
    limits: Limits = field(default_factory=Limits)
    environment: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    tmpfs: tuple[Tmpfs, ...] = ()
    secrets: tuple[Secret, ...] = ()
    data_writable: bool = False
    network: Network = "none"
    requirements: Requirements = field(default_factory=Requirements)
    serving: Serving = field(default_factory=Serving)
    reload: ReloadPolicy = field(default_factory=ReloadPolicy)
    load_timeout: float = 300.0
    stop_grace: float = 5.0
    restart: Restart = "on-failure"
    depends_on: tuple[str, ...] = ()
    starts_after: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    warmup: bool = False


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key of the gateway. digest: hex of its SHA-256, all that is kept of it. models: () for all of them.

    rate_limit: (requests, seconds).
    """

    name: str
    digest: str = field(repr=False)
    models: tuple[str, ...] = ()
    allow: tuple[Right, ...] = ()
    rate_limit: tuple[int, float] | None = None


@dataclass(frozen=True, slots=True)
class GatewayDesired:
    """The gateway as sandbox.yaml wants it. rate_limit: (requests, seconds) per client address; max_body in bytes."""

    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    insecure: bool = False
    access_log: bool = False
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    api_keys: tuple[ApiKey, ...] = ()
    rate_limit: tuple[int, float] | None = None
    max_body: int = 10 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Desired:
    """A whole sandbox as its files want it. models: those whose profiles are active, in file order.

    sandbox_id: 12 hex of the project directory's real path, so that two projects of one name never collide.
    files: every file that was read (sandbox.yaml, env files, config.yaml…), absolute, to be watched. roots: the real
    folders that a model's symbolic links may lead into (the project and what allow_outside names).
    """

    sandbox_id: str
    name: str
    directory: str
    gateway: GatewayDesired
    models: Mapping[str, ModelDesired]
    files: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Generation:
    """One content of a model directory, numbered. content: 64 hex over the user files. tree: its folder's name in the
    pool (`tree-3`). config: config.yaml as JSON types ({} where there is none). changed: files unlike the generation
    before, relative to the model directory. origin: after a rollback the generation whose content it is, as long as
    the model directory's own differs; else None.
    """

    model: str
    number: int
    content: str
    tree: str
    config: Mapping[str, Any] = field(default_factory=dict)
    changed: tuple[str, ...] = ()
    entry: str | None = None
    origin: int | None = None
