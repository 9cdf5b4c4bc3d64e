"""What must hold between keys of sandbox.yaml. Pure: the spec alone, no file, no machine."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address

from orchestrator.errors import near
from orchestrator.spec.models import GatewaySpec, ModelSpec, SandboxSpec, SecretSpec
from orchestrator.spec.problems import Problem


def broken_rules(spec: SandboxSpec) -> list[Problem]:
    """Every rule that the spec breaks."""
    problems = _gateway(spec.gateway) + _keys(spec) + _secrets(spec.secrets)
    for name, model in spec.models.items():
        problems += _model(name, model)
        problems += _dependencies(name, model, spec.models)
    return problems + _cycles(spec.models)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host` (an address, or a name)."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def cycle(depends_on: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The first circle of dependencies, its first name repeated at the end; () where there is none."""
    done: set[str] = set()
    for start in depends_on:
        trail: list[str] = []
        pending = [(start, 0)]
        while pending:
            name, depth = pending.pop()
            del trail[depth:]
            if name in trail:
                return (*trail[trail.index(name) :], name)
            if name in done:
                continue
            trail.append(name)
            pending += [(other, depth + 1) for other in reversed(depends_on.get(name, ()))]
            if not any(other not in done for other in depends_on.get(name, ())):
                done.add(name)
        done.add(start)
    return ()


def _gateway(gateway: GatewaySpec) -> list[Problem]:
    if is_loopback(gateway.host) or gateway.insecure or gateway.api_keys:
        return []
    return [
        Problem(
            ("gateway", "host"),
            "insecure-gateway",
            f"{gateway.host} can be reached from other machines, and there are no keys",
            "write gateway.api_keys, or gateway.insecure: true to open it to everybody, or host: 127.0.0.1",
        )
    ]


def _keys(spec: SandboxSpec) -> list[Problem]:
    """A key is one name's alone, and names models that there are."""
    problems = []
    names: set[str] = set()
    digests: set[str] = set()
    for index, key in enumerate(spec.gateway.api_keys):
        at = ("gateway", "api_keys", index)
        if key.name in names:
            problems.append(Problem((*at, "name"), "bad-value", f"{key.name!r} is there twice", "give each its own"))
        if key.key in digests:
            problems.append(Problem((*at, "key"), "bad-value", "is another name's, too", "give each its own"))
        names.add(key.name)
        digests.add(key.key)
        problems += [
            Problem(
                (*at, "models", place),
                "unknown-model",
                f"there is no model {model!r}",
                near(model, spec.models) or f"the models are {', '.join(spec.models) or 'none'}",
            )
            for place, model in enumerate(key.models)
            if model not in spec.models
        ]
    return problems


def _model(name: str, model: ModelSpec) -> list[Problem]:
    at = ("models", name)
    problems = []
    if model.reload.max_wait < model.reload.quiet:
        problems.append(
            Problem(
                (*at, "reload", "max_wait"), "bad-value", "is shorter than reload.quiet", "write at least reload.quiet"
            )
        )
    if len(model.wanted_replicas) > 1:
        key = ("deploy", "replicas") if "replicas" in model.deploy.model_fields_set else ("scale",)
        counts = " and ".join(map(str, model.wanted_replicas))
        problems.append(
            Problem((*at, *key), "bad-value", f"the number of replicas is both {counts}", "keep one of the two")
        )
    problems += _volumes(name, model)
    twice = [
        key
        for key in ("cpus", "memory", "pids")
        if getattr(model.resources, key) is not None and getattr(model.deploy.resources.limits, key) is not None
    ]
    problems += [
        Problem(
            (*at, "deploy", "resources", "limits", key),
            "bad-value",
            f"is set in resources.{key} as well",
            "keep one of the two",
        )
        for key in twice
    ]
    return problems


def _volumes(name: str, model: ModelSpec) -> list[Problem]:
    """What a volume's type needs, and what says nothing of it."""
    problems = []
    for index, volume in enumerate(model.volumes):
        at = ("models", name, "volumes", index)
        if volume.type == "bind" and volume.source is None:
            problems.append(Problem((*at, "source"), "missing-key", "is missing", "add source: PATH"))
        if volume.type == "tmpfs" and volume.source is not None:
            problems.append(
                Problem((*at, "source"), "bad-value", "a tmpfs has no source", "remove it, or write type: bind")
            )
        if volume.type == "bind" and "tmpfs" in volume.model_fields_set:
            problems.append(Problem((*at, "tmpfs"), "bad-value", "says nothing of a volume of type bind", "remove it"))
    return problems


def _secrets(secrets: Mapping[str, SecretSpec]) -> list[Problem]:
    return [
        Problem(("secrets", name), "bad-value", "must have either file or environment", "write {file: PATH}")
        for name, secret in secrets.items()
        if (secret.file is None) == (secret.environment is None)
    ]


def _dependencies(name: str, model: ModelSpec, models: Mapping[str, ModelSpec]) -> list[Problem]:
    unknown = [
        Problem(
            ("models", name, "depends_on", other),
            "unknown-model",
            f"there is no model {other!r}",
            near(other, models) or f"the models are {', '.join(models)}",
        )
        for other in model.depends_on
        if other not in models
    ]
    return unknown + [
        Problem(
            ("models", name, "depends_on", other, "condition"),
            "bad-value",
            "a model never completes: it serves until it is stopped",
            "write service_healthy: the other model is ready",
        )
        for other, dependency in model.depends_on.items()
        if dependency.condition == "service_completed_successfully"
    ]


def _cycles(models: Mapping[str, ModelSpec]) -> list[Problem]:
    found = cycle({name: tuple(model.depends_on) for name, model in models.items()})
    if not found:
        return []
    return [
        Problem(
            ("models", found[0], "depends_on"),
            "dependency-cycle",
            f"goes in a circle: {' → '.join(found)}",
            "remove one of these dependencies",
        )
    ]
