"""Identities: of an environment (lock hash) and of all that a replica is born with (replica hash). Pure.

A hash may change only when what it stands for changes; its version is raised when its recipe does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from orchestrator.plan.types import ModelDesired, Requirements, RuntimeKind

_LOCK_FORMAT = 1
_REPLICA_FORMAT = 1


def lock_hash(requirements: Requirements, runtime: RuntimeKind, interpreter: str, platform: str) -> str:
    """64 hex. interpreter: what the runtime says that the model's Python is. platform: "linux-x86_64"."""
    return _sha256(
        {
            "format": _LOCK_FORMAT,
            "requirements": requirements.text,
            "constraints": requirements.constraints,
            "runtime": runtime,
            "interpreter": interpreter,
            "platform": platform,
            "system": [],
        }
    )


def replica_hash(model: ModelDesired, data: str | None) -> str:
    """1:<hex>. Left out: the number of replicas, and what can change while one runs. data: its data folder."""
    # Keys that came later count only where they are used: a release that knows one more replaces nothing by itself.
    later: dict[str, Any] = {}
    if model.tmpfs:
        later["tmpfs"] = [[each.target, each.size, each.mode] for each in model.tmpfs]
    if model.secrets:
        later["secrets"] = [[each.path, each.mode, hashlib.sha256(each.content).hexdigest()] for each in model.secrets]
    return f"{_REPLICA_FORMAT}:" + _sha256(
        {
            **later,
            "name": model.name,
            "path": model.path,
            "runtime": model.runtime,
            "lock_hash": model.lock_hash,
            "python": model.python,
            "memory": model.limits.memory,
            "cpus": model.limits.cpus,
            "pids": model.limits.pids,
            "environment": dict(sorted(model.environment.items())),
            "mounts": [[mount.source, mount.target, mount.read_only] for mount in model.mounts],
            "data": data,
            "data_writable": model.data_writable,
            "network": model.network,
        }
    )


def joined_hash(own: str, others: Sequence[str]) -> str:
    """A replica hash that changes with those of other models too."""
    return f"{_REPLICA_FORMAT}:" + _sha256({"own": own, "others": list(others)})


def _sha256(value: dict[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
