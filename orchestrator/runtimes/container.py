"""What a replica's container is made of, and what its labels say. Pure: no engine is asked."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from docker.types import LogConfig, Mount

from orchestrator.image.engine import EngineTraits
from orchestrator.plan.types import SECRETS, ModelDesired, Tmpfs
from orchestrator.ports import Environment, Process, ReplicaPlace, ReplicaRecord, Usage
from orchestrator.runtimes.secrets import folder_of

FORMAT = "1"
LABEL = "model-sandbox."
ROOT = "/run/sandbox"
PYTHON = "/opt/env/bin/python"
NOBODY = 65532
PS_COLUMNS = ("pid", "ppid", "user", "time", "rss", "args")
PATH = "/opt/env/bin:/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True, slots=True)
class User:
    """Who a container's processes are: inside it, and as the host sees them (the peer of every socket)."""

    inside: str
    uid: int

    @classmethod
    def of(cls, project: str, traits: EngineTraits, invoking: tuple[int, int]) -> User:
        """The user of this sandbox's containers.

        1. A rootless engine: container uid 0, which is the invoking user outside.
        2. Not root: the invoking uid and gid.
        3. Root: the owner of the project folder.
        4. That is root too: 65532, so that no model ever runs as root.
        """
        uid, gid = invoking
        if traits.rootless:
            return cls("0:0", uid)
        if uid == 0:
            status = os.stat(project)
            uid, gid = (status.st_uid, status.st_gid) if status.st_uid else (NOBODY, NOBODY)
        return cls(f"{uid}:{gid}", uid)


@dataclass(frozen=True, slots=True)
class Blueprint:
    """A container to be created: arguments of the engine client's create_container and create_host_config."""

    name: str
    image: str
    options: Mapping[str, Any]
    host: Mapping[str, Any]


def blueprint(
    sandbox: str,
    model: ModelDesired,
    place: ReplicaPlace,
    environment: Environment,
    *,
    user: User,
    traits: EngineTraits,
    network: str,
    inherited: Sequence[str] = (),
) -> Blueprint:
    """The container of one incarnation. network: "none" or a network's id. inherited: variables set by the image."""
    paths = inside_paths(place)
    limits = model.limits
    binds, mounts = _mounts(model, place, paths, traits)
    options = {
        "command": [PYTHON, "-I", "-B", paths["guest"], agent_config(sandbox, model, place)],
        "entrypoint": [],
        "environment": _environment(model, inherited),
        "healthcheck": {"test": ["NONE"]},
        "labels": labels(sandbox, model, place, environment, user=user, traits=traits),
        # What somebody's `docker stop` allows: long enough to drain.
        "stop_timeout": math.ceil(model.reload.drain + model.stop_grace),
        "use_config_proxy": False,
        "user": user.inside,
        "working_dir": "/tmp",  # noqa: S108 (the container's own)
    }
    host = {
        "binds": binds,
        "cap_drop": ["ALL"],
        "init": False,
        "log_config": LogConfig(type=LogConfig.types.JSON, config={"max-size": "1m", "max-file": "1"}),
        "mem_limit": limits.memory,
        "memswap_limit": limits.memory,
        "mounts": mounts,
        "nano_cpus": None if limits.cpus is None else round(limits.cpus * 1e9),
        "network_mode": network,
        "pids_limit": limits.pids,
        "read_only": True,
        "restart_policy": {"Name": "no"},
        "security_opt": ["no-new-privileges"],
        # exec: numba, cffi and others load what they have just compiled from there.
        "tmpfs": {"/tmp": "rw,nosuid,nodev,exec,mode=1777"} | dict(map(_tmpfs, model.tmpfs)),  # noqa: S108
        "userns_mode": "host" if traits.user_namespaces else None,
    }
    name = f"sandbox-{sandbox}-{model.name}-{place.index}-{place.incarnation}"
    return Blueprint(name, environment.location, options, {key: value for key, value in host.items() if value})


def inside_paths(place: ReplicaPlace) -> dict[str, str]:
    """How the replica sees its folders."""
    names = ["sockets", "generations", "guest"] + (["data"] if place.data is not None else [])
    return {name: f"{ROOT}/{name}" for name in names}


def agent_config(sandbox: str, model: ModelDesired, place: ReplicaPlace) -> str:
    """The agent's only argument (docs/internals.md, "Starting an agent")."""
    paths = inside_paths(place)
    config = {
        "version": 1,
        "sandbox": sandbox,
        "model": model.name,
        "incarnation": place.incarnation,
        "index": place.index,
        "sockets": paths["sockets"],
        "generations": paths["generations"],
        "data": paths.get("data"),
        "source": model.path,
        "cpus": model.limits.cpus,
        "volumes": [mount.target for mount in model.mounts],
        "isolation": None,
        "grace": model.stop_grace,
    }
    return json.dumps(config, ensure_ascii=False, separators=(",", ":"))


def labels(
    sandbox: str,
    model: ModelDesired,
    place: ReplicaPlace,
    environment: Environment,
    *,
    user: User,
    traits: EngineTraits,
) -> dict[str, str]:
    """All that is to be known of a replica after everything else was forgotten."""
    values = {
        "format": FORMAT,
        "kind": "replica",
        "sandbox": sandbox,
        "model": model.name,
        "index": str(place.index),
        "incarnation": place.incarnation,
        "replica-hash": model.replica_hash,
        "lock-hash": environment.lock_hash,
        "python": environment.python,
        "folder": place.folder,
        "sockets": place.sockets,
        "uid": str(user.uid),
        "not-enforced": json.dumps(not_enforced(model, traits)),
        "paths": json.dumps(inside_paths(place), separators=(",", ":")),
    }
    return {f"{LABEL}{key}": value for key, value in values.items()}


def replica_filter(sandbox: str) -> dict[str, list[str]]:
    """The engine's filter for the replicas of a sandbox."""
    return {"label": [f"{LABEL}kind=replica", f"{LABEL}sandbox={sandbox}"]}


def record(found: Mapping[str, str], container: str, *, alive: bool, pid: int | None) -> ReplicaRecord:
    """The replica that a container's labels describe. Raises KeyError where they are not of this format."""
    if found[f"{LABEL}format"] != FORMAT:
        raise KeyError(f"{LABEL}format")
    return ReplicaRecord(
        model=found[f"{LABEL}model"],
        index=int(found[f"{LABEL}index"]),
        incarnation=found[f"{LABEL}incarnation"],
        runtime="docker",
        replica_hash=found[f"{LABEL}replica-hash"],
        lock_hash=found[f"{LABEL}lock-hash"],
        folder=found[f"{LABEL}folder"],
        sockets=found[f"{LABEL}sockets"],
        uid=int(found[f"{LABEL}uid"]),
        alive=alive,
        python=found[f"{LABEL}python"],
        pid=pid,
        container=container,
        not_enforced=tuple(json.loads(found[f"{LABEL}not-enforced"])),
        paths=json.loads(found[f"{LABEL}paths"]),
    )


def not_enforced(model: ModelDesired, traits: EngineTraits) -> tuple[str, ...]:
    """What was asked for and this engine's kernel cannot do, a sentence each."""
    limits = model.limits
    found = []
    if limits.memory is not None and not traits.memory:
        found.append("memory: not limited: the kernel has no memory cgroup")
    elif limits.memory is not None and not traits.swap:
        found.append("memory: swap is not limited: the kernel does not account for it")
    if limits.cpus is not None and not traits.cpus:
        found.append("cpus: not limited: the kernel has no CPU quota")
    if not traits.pids:
        found.append("pids: not limited: the kernel has no pids cgroup")
    return tuple(found)


def death(exit_code: int, *, oom: bool) -> tuple[str, bool]:
    """Cause of an exit as people read it, and whether memory was it. The engine writes signal N as 128 + N."""
    if oom and exit_code == 137:
        return "out of memory", True
    return (f"signal {exit_code - 128}" if exit_code > 128 else f"exit {exit_code}"), False


def usage(stats: Mapping[str, Any]) -> Usage | None:
    """What the engine's sample says. Page cache that can be dropped at once is not counted (cgroup v1 and v2)."""
    memory = stats.get("memory_stats") or {}
    if "usage" not in memory:
        return None
    details = memory.get("stats") or {}
    cache = details.get("total_inactive_file", details.get("inactive_file", 0))
    return Usage(
        cpu_seconds=stats["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9,
        memory=max(0, memory["usage"] - cache),
        pids=stats.get("pids_stats", {}).get("current", 0),
    )


def process(row: Sequence[str]) -> Process:
    """A line of `ps` with PS_COLUMNS. Its time is [[days-]hours:]minutes:seconds."""
    pid, parent, user, elapsed, memory, command = row
    days, _, clock = elapsed.rpartition("-")
    seconds = 0
    for part in clock.split(":"):
        seconds = seconds * 60 + int(part)
    return Process(int(pid), int(parent), user, float(seconds + int(days or 0) * 86400), int(memory) * 1024, command)


def _environment(model: ModelDesired, inherited: Sequence[str]) -> dict[str, str | None]:
    # A name without a value takes the image's own variable away.
    values: dict[str, str | None] = dict.fromkeys(inherited)
    values |= {"PATH": PATH, "HOME": "/tmp", "LANG": "C.UTF-8", "TMPDIR": "/tmp"}  # noqa: S108
    return values | dict(model.environment)


def _tmpfs(tmpfs: Tmpfs) -> tuple[str, str]:
    size = "" if tmpfs.size is None else f",size={tmpfs.size}"
    return tmpfs.target, f"rw,nosuid,nodev,exec,mode={tmpfs.mode:o}{size}"


def _mounts(
    model: ModelDesired, place: ReplicaPlace, paths: Mapping[str, str], traits: EngineTraits
) -> tuple[list[str], list[Mount]]:
    """Binds and mounts: a mount refuses a missing source, only a bind can be relabelled for SELinux."""
    ours = [
        (place.sockets, paths["sockets"], False, "Z"),
        (place.generations, paths["generations"], True, "z"),
        (place.guest, paths["guest"], True, "z"),
    ]
    users = [(mount.source, mount.target, mount.read_only) for mount in model.mounts]
    if model.secrets:
        ours.append((folder_of(place), SECRETS, True, "Z"))
    if place.data is not None:
        users.append((place.data, paths["data"], not model.data_writable))
    if traits.selinux:
        binds = [f"{source}:{target}:{'ro' if ro else 'rw'},{mark}" for source, target, ro, mark in ours]
    else:
        binds = []
        users += [(source, target, ro) for source, target, ro, _ in ours]
    return binds, [Mount(target, source, type="bind", read_only=ro) for source, target, ro in users]
