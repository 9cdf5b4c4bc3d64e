"""From a Project to Desired: defaults filled in, config.yaml merged, paths real, hashes computed once.

Looks at the files that sandbox.yaml names; starts nothing. What is wrong *in* a model's code is not its business.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.errors import SandboxError, SpecError
from orchestrator.plan.types import (
    ApiKey,
    Batching,
    Desired,
    GatewayDesired,
    Limits,
    ModelDesired,
    ReloadPolicy,
    RuntimeKind,
    Serving,
)
from orchestrator.spec import config, requirements
from orchestrator.spec import profiles as profile_rules
from orchestrator.spec.environment import variables
from orchestrator.spec.hashes import joined_hash, lock_hash, replica_hash
from orchestrator.spec.load import Project
from orchestrator.spec.models import GatewaySpec, ModelSpec
from orchestrator.spec.paths import Boundary, data_dir
from orchestrator.spec.problems import Problem, of_error, refuse
from orchestrator.spec.secrets import secrets
from orchestrator.spec.volumes import mounts
from orchestrator.spec.yaml import KeyPath

__all__ = ["Interpreter", "data_dir", "model_config", "resolve"]

# (runtime, "3.11" or "") → the identity of the interpreter that this means there.
Interpreter = Callable[[RuntimeKind, str], str]


def resolve(
    project: Project,
    *,
    profiles: Sequence[str] = (),
    models: Sequence[str] = (),
    runtime: RuntimeKind,
    interpreter: Interpreter,
) -> Desired:
    """What the project wants, for these profiles and these models named on the command line.

    runtime: what `auto` means on this machine. Raises SpecError (problems.SpecErrors for several), and what
    `interpreter` raises, except that a Python that is not on this machine is left to the build: one model's
    missing interpreter must not stop the others.
    """
    spec = project.spec
    boundary = Boundary.of(project.directory, spec.allow_outside, project.variables.get("HOME", ""))
    names, problems = profile_rules.wanted(spec.models, profiles, models)
    resolver = _Resolver(project, boundary, runtime, interpreter)
    found: dict[str, ModelDesired] = {}
    files = list(project.files)
    for name in names:
        outcome = resolver.model(name, spec.models[name], frozenset(names))
        problems += outcome.problems
        files += outcome.files
        if outcome.model is not None:
            found[name] = outcome.model
    refuse(problems, project.where)
    joined: dict[str, ModelDesired] = {}
    for name in found:
        _with_those_it_restarts_with(name, found, spec.models, joined)
    return Desired(
        sandbox_id=project.sandbox_id,
        name=project.name,
        directory=project.directory,
        gateway=_gateway(spec.gateway),
        models={name: joined[name] for name in found},
        files=tuple(dict.fromkeys(files)),
        profiles=tuple(dict.fromkeys(profiles)),
        roots=(project.directory, *boundary.outside),
    )


def model_config(path: str, shown: str = config.FILE) -> dict[str, Any]:
    """config.yaml of the model directory (or generation tree) `path` as JSON types, {} where there is none.

    shown: the file's name in messages. Raises SpecError with file:line.
    """
    return config.read(path, shown)[0]


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What came of one model; `model` is None where `problems` says why."""

    model: ModelDesired | None
    problems: list[Problem]
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Resolver:
    project: Project
    boundary: Boundary
    auto: RuntimeKind
    interpreter: Interpreter

    def model(self, name: str, spec: ModelSpec, wanted: frozenset[str]) -> _Outcome:
        at: KeyPath = ("models", name)
        environment, problems = variables(spec, self.boundary, self.project.variables, at)
        volumes, memory, wrong = mounts(spec, self.boundary, at)
        confided, also_wrong = secrets(spec, self.project.spec.secrets, self.boundary, self.project.variables, at)
        problems += [*wrong, *also_wrong]
        try:
            path = self.boundary.model_directory(spec.path)
            data = self.data(path)
        except SpecError as error:
            return _Outcome(None, [*problems, of_error((*at, "path"), error)], environment.files)
        try:
            file = f"{self.boundary.shown(path)}/{config.FILE}"
            own, isolation = config.read(path, file)
            needs = requirements.read(path, self.boundary)
        except SpecError as error:
            # The place is in another file; the key path of sandbox.yaml would only confuse.
            return _Outcome(None, [*problems, of_error((), error)], environment.files)
        kind = self.runtime(spec, isolation)
        python = spec.python or isolation.python_version or ""
        bare = ModelDesired(
            name=name,
            path=path,
            runtime=kind,
            lock_hash=lock_hash(needs, kind, self.identity(kind, python), sysconfig.get_platform()),
            replica_hash="",
            python=python,
            replicas=spec.wanted_replicas[0],
            limits=_limits(spec, isolation),
            environment=environment.values,
            mounts=volumes,
            tmpfs=memory,
            secrets=confided.given,
            data_writable=spec.data == "rw",
            network=spec.network,
            requirements=needs,
            serving=_serving(spec),
            reload=_reload(spec),
            load_timeout=spec.load_timeout,
            stop_grace=spec.stop_grace_period,
            restart=spec.restart,
            depends_on=_awaited(spec, "service_healthy", wanted),
            starts_after=_awaited(spec, "service_started", wanted),
            profiles=tuple(dict.fromkeys(spec.profiles)),
            warmup=spec.warmup,
        )
        configs = (f"{path}/{config.FILE}",) if own else ()
        links = self.boundary.links(spec.path)
        files = (*environment.files, *confided.files, *configs, *needs.files, *links)
        return _Outcome(replace(bare, replica_hash=replica_hash(bare, data)), problems, files)

    def data(self, path: str) -> str | None:
        """The data folder, which may not lead out of the project by a symlink either."""
        folder = data_dir(path)
        return self.boundary.inside(folder) if folder else None

    def runtime(self, spec: ModelSpec, isolation: config.Isolation) -> RuntimeKind:
        """sandbox.yaml, of the model or of them all, wins over config.yaml; `auto` leaves it to the two others."""
        choice = spec.runtime or self.project.spec.runtime
        if choice != "auto":
            return choice
        return self.auto if isolation.enabled else "process"

    def identity(self, kind: RuntimeKind, python: str) -> str:
        try:
            return self.interpreter(kind, python)
        except SandboxError as error:
            if error.reference != "no-python":
                raise
            return f"missing {python}"


def _awaited(spec: ModelSpec, condition: str, wanted: frozenset[str]) -> tuple[str, ...]:
    return tuple(name for name, awaited in spec.depends_on.items() if awaited.condition == condition and name in wanted)


def _with_those_it_restarts_with(
    name: str, found: Mapping[str, ModelDesired], specs: Mapping[str, ModelSpec], done: dict[str, ModelDesired]
) -> ModelDesired:
    """With the identity of what it depends on in its own, where that says `restart`: replaced with them, or with what
    these restart with.
    """
    if name not in done:
        others = [other for other, each in specs[name].depends_on.items() if each.restart and other in found]
        born_with = [_with_those_it_restarts_with(other, found, specs, done).replica_hash for other in others]
        own = found[name]
        done[name] = replace(own, replica_hash=joined_hash(own.replica_hash, born_with)) if born_with else own
    return done[name]


def _limits(spec: ModelSpec, isolation: config.Isolation) -> Limits:
    """resources, else deploy.resources.limits, else config.yaml's isolation."""
    own, deploy, theirs = spec.resources, spec.deploy.resources.limits, isolation.resources
    return Limits(
        memory=own.memory or deploy.memory or theirs.memory,
        cpus=own.cpus or deploy.cpus or theirs.cpu,
        pids=own.pids or deploy.pids or Limits().pids,
    )


def _serving(spec: ModelSpec) -> Serving:
    return Serving(
        concurrency=spec.concurrency,
        queue_size=spec.queue.size,
        queue_timeout=spec.queue.timeout,
        timeout=spec.timeout,
        max_input=spec.max_input,
        max_batch=spec.max_batch,
        batching=None if spec.batching is None else Batching(spec.batching.max_size, spec.batching.max_wait),
        debug=spec.debug,
    )


def _reload(spec: ModelSpec) -> ReloadPolicy:
    return ReloadPolicy(
        quiet=spec.reload.quiet,
        max_wait=spec.reload.max_wait,
        drain=spec.reload.drain,
        mode=spec.reload.mode,
        keep=spec.reload.keep,
        max_draining=spec.reload.max_draining,
    )


def _gateway(spec: GatewaySpec) -> GatewayDesired:
    return GatewayDesired(
        host=spec.host,
        port=spec.port,
        workers=spec.workers,
        insecure=spec.insecure,
        access_log=spec.access_log,
        hosts=spec.hosts,
        origins=spec.origins,
        api_keys=tuple(ApiKey(each.name, each.key, each.models, each.allow, each.rate_limit) for each in spec.api_keys),
        rate_limit=spec.rate_limit,
        max_body=spec.max_body,
    )
