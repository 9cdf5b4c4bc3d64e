"""sandbox.yaml as types: every key with its form and default. What a value leads to is resolve.py's business.

Every class forbids unknown keys, lets `x-…` keys through and takes a known key without a value as absent. A new key
needs its line in sandbox.yaml.example and its row in docs/configuration.md (tests compare the sets).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from orchestrator.plan.types import Network, ReloadMode, Restart, Right
from orchestrator.spec.scalars import (
    BodySize,
    Count,
    CountOrNone,
    Cpus,
    Duration,
    Environment,
    Flag,
    Gpus,
    Host,
    KeyDigest,
    Memory,
    Mode,
    ModelName,
    OneOrMany,
    Origin,
    Port,
    PositiveDuration,
    ProfileName,
    Python,
    Rate,
    SandboxName,
    SecretName,
    Size,
    Text,
    short_volume,
)
from orchestrator.spec.told import OR_NAMES, OR_TEXT

RuntimeChoice = Literal["auto", "docker", "process"]


class Section(BaseModel):
    """A mapping of ours."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _own_keys(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {
            key: child
            for key, child in value.items()
            if not key.startswith("x-") and not (child is None and key in cls.model_fields)
        }


class ResourcesSpec(Section):
    """What a replica may use; pids is never unlimited."""

    cpus: Cpus | None = None
    memory: Memory | None = None
    pids: Count | None = None


class DeployResourcesSpec(Section):
    """Compose's deploy.resources."""

    limits: ResourcesSpec = ResourcesSpec()


class DeploySpec(Section):
    """Compose's deploy, of which the limits and the number of replicas are known here."""

    replicas: CountOrNone = 1
    resources: DeployResourcesSpec = DeployResourcesSpec()


class QueueSpec(Section):
    """Requests that wait for a free slot of a replica."""

    size: CountOrNone = 1000
    timeout: Duration = 30.0


class BatchingSpec(Section):
    """Coalescing of concurrent calls."""

    max_size: Count = 32
    max_wait: Duration = 0.005


class ReloadSpec(Section):
    """When and how a save becomes a generation."""

    quiet: Duration = 0.010
    max_wait: Duration = 0.250
    drain: Duration = 30.0
    mode: ReloadMode = "auto"
    keep: Count = 10
    max_draining: Count = 8


class ApiKeySpec(Section):
    """One key of the gateway. key: hex of its SHA-256, whichever way it was written."""

    name: Text
    key: KeyDigest
    models: tuple[ModelName, ...] = ()
    allow: tuple[Right, ...] = ("infer",)
    rate_limit: Rate | None = None


class GatewaySpec(Section):
    """The one door in front of all models."""

    host: Host = "127.0.0.1"
    port: Port = 8080
    workers: Count = 1
    insecure: Flag = False
    hosts: tuple[Text, ...] = ()
    origins: tuple[Origin, ...] = ()
    api_keys: tuple[ApiKeySpec, ...] = ()
    rate_limit: Rate | None = None
    access_log: Flag = False
    max_body: BodySize = 10 * 1024**2


class TmpfsOptionsSpec(Section):
    """Of a volume of type tmpfs."""

    size: Size | None = None
    mode: Mode = 0o1777


class VolumeSpec(Section):
    """A path of the host, or a folder in memory, inside the model."""

    type: Literal["bind", "tmpfs"] = "bind"
    source: Text | None = None
    target: Text
    read_only: Flag = False

    tmpfs: TmpfsOptionsSpec = TmpfsOptionsSpec()


class SecretSpec(Section):
    """Where a secret is."""

    file: Text | None = None
    environment: Text | None = None


class SecretRefSpec(Section):
    """A secret that a model is given."""

    source: Text
    target: Text | None = None
    mode: Mode = 0o444


class EnvFileSpec(Section):
    """A file of variables."""

    path: Text
    required: Flag = True


class HealthcheckSpec(Section):
    """Compose's healthcheck."""

    test: OneOrMany = ()
    interval: Duration | None = None
    timeout: Duration | None = None
    retries: CountOrNone | None = None
    start_period: Duration | None = None
    start_interval: Duration | None = None
    disable: Flag = False


class DependencySpec(Section):
    """What is awaited of another model. Compose's words; a model is healthy once it is ready."""

    condition: Literal["service_started", "service_healthy", "service_completed_successfully"] = "service_healthy"
    required: Flag = True
    restart: Flag = False


class ExtendsSpec(Section):
    """Another model that one begins as. composition.py takes it away once it is followed."""

    service: Text
    file: Text | None = None


class IncludeSpec(Section):
    """Another project whose models are ours too."""

    path: OneOrMany
    project_directory: Text | None = None
    env_file: OneOrMany = ()


def _named(key: str) -> BeforeValidator:
    """Text where a mapping may stand is the value of its first key."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


def _one_or_list(value: Any) -> Any:
    return [value] if isinstance(value, str | Mapping) else value


def _dependencies(value: Any) -> Any:
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return {name: {} for name in value}
    return value


class ModelSpec(Section):
    """One model. replicas, scale and deploy.replicas say the same."""

    path: Text
    extends: Annotated[ExtendsSpec, _named("service"), OR_TEXT] | None = None
    runtime: RuntimeChoice | None = None
    python: Python | None = None
    replicas: CountOrNone = 1
    scale: CountOrNone = 1
    resources: ResourcesSpec = ResourcesSpec()
    deploy: DeploySpec = DeploySpec()
    environment: Environment = {}
    env_file: Annotated[
        tuple[Annotated[EnvFileSpec, _named("path"), OR_TEXT], ...], BeforeValidator(_one_or_list), OR_TEXT
    ] = ()
    volumes: tuple[Annotated[VolumeSpec, BeforeValidator(short_volume), OR_TEXT], ...] = ()
    tmpfs: OneOrMany = ()
    secrets: tuple[Annotated[SecretRefSpec, _named("source"), OR_TEXT], ...] = ()
    data: Literal["ro", "rw"] = "ro"
    gpus: Gpus | None = None
    healthcheck: HealthcheckSpec | None = None
    network: Network = "none"
    concurrency: Count = 16
    queue: QueueSpec = QueueSpec()
    timeout: PositiveDuration = 60.0
    load_timeout: PositiveDuration = 300.0
    stop_grace_period: Duration = 5.0
    max_input: Count | None = None
    max_batch: Count = 100
    batching: BatchingSpec | None = None
    reload: ReloadSpec = ReloadSpec()
    restart: Restart = "on-failure"
    depends_on: Annotated[dict[ModelName, DependencySpec], BeforeValidator(_dependencies), OR_NAMES] = {}
    profiles: tuple[ProfileName, ...] = ()
    warmup: Flag = False
    debug: Flag = False

    @property
    def wanted_replicas(self) -> tuple[int, ...]:
        """Each number of replicas that was written; more than one is a contradiction."""
        written = [
            section.replicas if name == "replicas" else self.scale
            for section, name in ((self, "replicas"), (self, "scale"), (self.deploy, "replicas"))
            if name in section.model_fields_set
        ]
        return tuple(dict.fromkeys(written)) or (1,)


def _long_form(value: Any) -> Any:
    match value:
        case str():
            return {"path": value}
        case None:
            return {}
        case _:
            return value


def _empty_mapping(value: Any) -> Any:
    return {} if value is None else value


class SandboxSpec(Section):
    """The whole file."""

    name: SandboxName | None = None
    runtime: RuntimeChoice = "auto"
    include: tuple[Annotated[IncludeSpec, _named("path"), OR_TEXT], ...] = ()
    allow_outside: tuple[Text, ...] = ()
    gateway: GatewaySpec = GatewaySpec()
    secrets: dict[SecretName, SecretSpec] = {}
    models: dict[ModelName, Annotated[ModelSpec, BeforeValidator(_long_form), OR_TEXT]]

    @model_validator(mode="before")
    @classmethod
    def _no_models_yet(cls, value: Any) -> Any:
        """`models:` without anything below it is a sandbox without models, not a missing key."""
        if isinstance(value, Mapping) and "models" in value:
            return {**value, "models": _empty_mapping(value["models"])}
        return value
