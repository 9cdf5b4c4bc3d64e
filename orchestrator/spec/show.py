"""The resolved configuration as `sandbox config` prints it: a sandbox.yaml that says everything, secrets masked."""

from __future__ import annotations

import posixpath
import re
from typing import Any

import yaml

from orchestrator.plan.types import SECRETS, ApiKey, Batching, Desired, GatewayDesired, ModelDesired, Mount, Tmpfs
from orchestrator.spec.load import Project
from orchestrator.spec.models import DependencySpec, ModelSpec, SecretSpec
from orchestrator.spec.scalars import MASK
from orchestrator.spec.units import duration_text, rate_text, size_text

_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL", re.IGNORECASE)
_USERINFO = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def render_config(project: Project, desired: Desired) -> str:
    """YAML; what is resolved here means the same when it is read as a sandbox.yaml, but for what is masked."""
    return yaml.safe_dump(config_mapping(project, desired), sort_keys=False, allow_unicode=True, width=120)


def config_mapping(project: Project, desired: Desired) -> dict[str, Any]:
    """The same as JSON types."""
    spec = project.spec
    return {
        "name": desired.name,
        **({"allow_outside": list(spec.allow_outside)} if spec.allow_outside else {}),
        "gateway": _gateway(desired.gateway),
        **({"secrets": {name: _secret(each) for name, each in spec.secrets.items()}} if spec.secrets else {}),
        "models": {name: _model(model, spec.models[name]) for name, model in desired.models.items()},
    }


def _gateway(gateway: GatewayDesired) -> dict[str, Any]:
    return {
        "host": gateway.host,
        "port": gateway.port,
        "workers": gateway.workers,
        "insecure": gateway.insecure,
        "hosts": list(gateway.hosts),
        "origins": list(gateway.origins),
        "api_keys": [_api_key(key) for key in gateway.api_keys],
        "rate_limit": None if gateway.rate_limit is None else rate_text(gateway.rate_limit),
        "access_log": gateway.access_log,
        "max_body": size_text(gateway.max_body),
    }


def _api_key(key: ApiKey) -> dict[str, Any]:
    limit = None if key.rate_limit is None else rate_text(key.rate_limit)
    shown = {"name": key.name, "key": MASK, "models": list(key.models), "allow": list(key.allow), "rate_limit": limit}
    return {name: value for name, value in shown.items() if value is not None}


def _model(model: ModelDesired, spec: ModelSpec) -> dict[str, Any]:
    serving, reload = model.serving, model.reload
    return {
        "path": model.path,
        "runtime": model.runtime,
        "python": model.python or None,
        "replicas": model.replicas,
        "resources": {
            "cpus": model.limits.cpus,
            "memory": None if model.limits.memory is None else size_text(model.limits.memory),
            "pids": model.limits.pids,
        },
        "environment": {name: _masked(name, value, spec) for name, value in model.environment.items()},
        "volumes": [_volume(mount) for mount in model.mounts],
        "tmpfs": [_tmpfs(each) for each in model.tmpfs],
        "secrets": [
            {"source": each.name, "target": posixpath.relpath(each.path, SECRETS), "mode": f"0{each.mode:o}"}
            for each in model.secrets
        ],
        "data": "rw" if model.data_writable else "ro",
        "network": model.network,
        "concurrency": serving.concurrency,
        "queue": {"size": serving.queue_size, "timeout": duration_text(serving.queue_timeout)},
        "timeout": duration_text(serving.timeout),
        "load_timeout": duration_text(model.load_timeout),
        "max_input": serving.max_input,
        "max_batch": serving.max_batch,
        "batching": _batching(serving.batching),
        "reload": {
            "quiet": duration_text(reload.quiet),
            "max_wait": duration_text(reload.max_wait),
            "drain": duration_text(reload.drain),
            "mode": reload.mode,
            "keep": reload.keep,
            "max_draining": reload.max_draining,
        },
        "stop_grace_period": duration_text(model.stop_grace),
        "restart": model.restart,
        "depends_on": _depends_on(model, spec),
        "profiles": list(model.profiles),
        "warmup": model.warmup,
        "debug": serving.debug,
    }


def _batching(batching: Batching | None) -> Any:
    return batching and {"max_size": batching.max_size, "max_wait": duration_text(batching.max_wait)}


def _depends_on(model: ModelDesired, spec: ModelSpec) -> list[str] | dict[str, Any]:
    """The short form where it says everything."""
    awaited = {*model.depends_on, *model.starts_after}
    found = {name: each.model_dump() for name, each in spec.depends_on.items() if name in awaited}
    return list(found) if all(each == DependencySpec().model_dump() for each in found.values()) else found


def _masked(name: str, value: str, spec: ModelSpec) -> str:
    """What came from an env file is never shown; a dollar is doubled, so that it is not read as a variable."""
    if name not in spec.environment or _SECRET.search(name):
        return MASK
    return _USERINFO.sub(MASK, value).replace("$", "$$")


def _secret(secret: SecretSpec) -> dict[str, str]:
    """Where it is, never what it is."""
    return {key: value for key, value in secret.model_dump().items() if value is not None}


def _tmpfs(tmpfs: Tmpfs) -> str:
    size = "" if tmpfs.size is None else f"size={size_text(tmpfs.size)},"
    return f"{tmpfs.target}:{size}mode=0{tmpfs.mode:o}"


def _volume(mount: Mount) -> str:
    return f"{mount.source}:{mount.target}:{'ro' if mount.read_only else 'rw'}"
