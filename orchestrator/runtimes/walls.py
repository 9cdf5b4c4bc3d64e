"""What this machine lets us enforce on a process replica, and the instructions that make its agent do it.

It decides what is asked of `sandbox/isolation.py`, tried here first; it puts up no wall itself.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import SandboxError
from orchestrator.plan.types import SECRETS, ModelDesired
from orchestrator.ports import ReplicaPlace
from orchestrator.runtimes import cgroups
from orchestrator.runtimes.access import may
from orchestrator.runtimes.environments import Installed
from orchestrator.runtimes.secrets import folder_of
from sandbox import isolation

SEEN = "/run/sandbox"
TMP_SIZE = 1 << 28
# Stacks and arenas of threads are reserved whole and count as data long before they hold any.
DATA_SLACK = 1 << 29
_UIDS = range(1_500_000_000, 2_000_000_000)  # far from people, system users and the usual subuid ranges
_FEW_UIDS = range(50_000, 60_000)  # inside a container's 65536


@dataclass(frozen=True, slots=True)
class Machine:
    """What was tried. refused: per namespace ("mount", "network") why it cannot be had; absent where it can.

    said: what isolation itself reports when it works as well as it can here.
    """

    root: bool
    refused: dict[str, str]
    said: tuple[str, ...]
    hierarchies: tuple[cgroups.Hierarchy, ...]

    @property
    def own_root(self) -> bool:
        """Whether replicas see a root of their own."""
        return "mount" not in self.refused

    def limits(self, controller: cgroups.Controller) -> bool:
        """Whether a cgroup with this controller can be made."""
        return any(controller in hierarchy.controllers for hierarchy in self.hierarchies)


def machine() -> Machine:
    """What was found out once for this process; the first call blocks (see `survey`), and others wait for it."""
    with _surveying:
        return _surveyed()


@functools.cache
def _surveyed() -> Machine:
    return survey()


_surveying = threading.Lock()  # functools.cache lets two threads survey at once


def survey() -> Machine:
    """Try it all out. Takes some tenths of a second; blocks."""
    root = os.geteuid() == 0
    spaces = [] if root else ["user"]
    user = {"uid": _UIDS.start, "gid": _UIDS.start} if root and _mapped(_UIDS.start) else None
    said, refused = _try({"namespaces": [*spaces, "mount", "network", "ipc"], "user": user}), {}
    if isinstance(said, str):
        for space in ("mount", "network"):
            alone = _try({"namespaces": [*spaces, space]})
            if isinstance(alone, str):
                refused[space] = alone
            else:
                said = alone
    return Machine(root, refused, tuple(said) if isinstance(said, list) else (), cgroups.find())


def _try(instructions: dict[str, Any]) -> list[str] | str:
    """What isolation reports, or why it failed."""
    command = [sys.executable, "-I", "-S", "-B", isolation.__file__, json.dumps(instructions)]
    try:
        tried = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30, cwd="/")
    except subprocess.TimeoutExpired:
        return "no answer"
    if tried.returncode == 0:
        return [str(sentence) for sentence in json.loads(tried.stdout)]
    lines = tried.stderr.strip().splitlines()
    return lines[-1] if lines else f"ended with {tried.returncode}"


def _mapped(uid: int) -> bool:
    with open("/proc/self/uid_map", encoding="ascii") as file:
        rows = [list(map(int, line.split())) for line in file]
    return any(first <= uid < first + count for first, _, count in rows)


def uid_of(machine: Machine, sandbox_id: str, model: str) -> int:
    """The user that a model's processes run as: always the same one for a model of a project."""
    if not (machine.root and machine.own_root):
        return os.geteuid()
    uids = _UIDS if _mapped(_UIDS[-1]) else _FEW_UIDS
    digest = hashlib.sha256(f"{sandbox_id}/{model}".encode()).digest()
    return uids[int.from_bytes(digest[:8], "big") % len(uids)]


def paths(machine: Machine, place: ReplicaPlace) -> dict[str, str]:
    """How the replica sees its folders."""
    seen = {"sockets": place.sockets, "generations": place.generations, "guest": place.guest}
    if place.data is not None:
        seen["data"] = place.data
    return {name: f"{SEEN}/{name}" for name in seen} if machine.own_root else seen


@dataclass(frozen=True, slots=True)
class Hidden:
    """Folders of the sandbox that its replicas must not see: project, state and cache."""

    project: str
    state: str
    cache: str


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who is walled in: a replica's model, place, environment, cgroup (None: none can be made) and user."""

    model: ModelDesired
    place: ReplicaPlace
    installed: Installed
    group: cgroups.Group | None
    uid: int


def instructions(machine: Machine, tenant: Tenant, hidden: Hidden) -> dict[str, Any]:
    """`isolation` of the agent's configuration."""
    model, uid, group = tenant.model, tenant.uid, tenant.group
    asked: dict[str, Any] = {"not_enforced": predicted(machine, model), "tmp_size": TMP_SIZE}
    spaces = [space for space in ("mount", "network") if space not in machine.refused]
    if model.network != "none":
        spaces = [space for space in spaces if space != "network"]
    if spaces:
        asked["namespaces"] = [*([] if machine.root else ["user"]), *spaces, "ipc"]
    if group is not None:
        asked["oom"] = group.oom_file
    if machine.root and uid != 0:
        asked["user"] = {"uid": uid, "gid": uid}
    if model.limits.memory is not None and not machine.limits("memory"):
        asked["data_limit"] = model.limits.memory + DATA_SLACK
    if _counts_processes(machine):
        asked["processes"] = model.limits.pids
    if machine.own_root:
        asked |= _root(tenant, hidden)
    return asked


def _root(tenant: Tenant, hidden: Hidden) -> dict[str, list[Any]]:
    model, place, installed = tenant.model, tenant.place, tenant.installed
    interpreter = os.path.dirname(os.path.realpath(installed.executable))
    needed = [installed.folder, installed.prefix, interpreter, place.guest]
    if model.network != "none":
        needed.append(os.path.realpath("/etc/resolv.conf"))  # often a link into /run
    keep = sorted({path for each in needed for path in (each, os.path.realpath(each))} - {"/"})
    cover = [hidden.project, os.path.dirname(hidden.state), hidden.cache, "/root", "/home", os.path.expanduser("~")]
    cover += _impassable(keep, tenant.uid)
    seen = f"{SEEN}/"
    binds = [
        {"source": place.sockets, "target": seen + "sockets", "read_only": False},
        {"source": place.generations, "target": seen + "generations", "read_only": True},
        {"source": place.guest, "target": seen + "guest", "read_only": True},
    ]
    if place.data is not None:
        binds.append({"source": place.data, "target": seen + "data", "read_only": not model.data_writable})
    if model.secrets:
        binds.append({"source": folder_of(place), "target": SECRETS, "read_only": True})
    binds += [{"source": mount.source, "target": mount.target, "read_only": mount.read_only} for mount in model.mounts]
    folders = [{"target": each.target, "size": each.size, "mode": each.mode} for each in model.tmpfs]
    return {"cover": cover, "hide": _engine_sockets(), "keep": keep, "binds": binds, "tmpfs": folders}


def _impassable(needed: Iterable[str], uid: int) -> list[str]:
    """The topmost folder above each needed one through which this user may not pass."""
    found = []
    for path in needed:
        parts = path.split("/")[1:-1]
        for depth in range(1, len(parts) + 1):
            folder = "/" + "/".join(parts[:depth])
            if not may(os.stat(folder), uid, 1):
                found.append(folder)
                break
    return found


def _engine_sockets() -> list[str]:
    """Sockets of engines outside the folders that are covered anyway (/run, homes)."""
    host = os.environ.get("DOCKER_HOST", "")
    return [os.path.realpath(host.removeprefix("unix://"))] if host.startswith("unix://") else []


def predicted(machine: Machine, model: ModelDesired) -> list[str]:
    """What is asked for and will not be enforced, a sentence each; less what isolation reports itself."""
    sentences = []
    if not machine.own_root:
        who = "runs as root and can read and write" if machine.root else "runs as your own user and can reach"
        sentences.append(f"files: not isolated: the model {who} your files ({machine.refused['mount']})")
    if model.network == "none" and "network" in machine.refused:
        sentences.append(f"network: not isolated: {machine.refused['network']}")
    if model.limits.memory is not None and not machine.limits("memory"):
        sentences.append("memory: watched, not enforced: no cgroup can be made here")
    if model.limits.cpus is not None and not machine.limits("cpu"):
        sentences.append("cpus: not enforced: no cgroup can be made here")
    if not machine.limits("pids"):
        if _counts_processes(machine):
            sentences.append("pids: enforced by a limit of the user's processes: no cgroup can be made here")
        else:
            sentences.append("pids: not enforced: no cgroup can be made here")
    return sentences


def not_enforced(machine: Machine, model: ModelDesired) -> tuple[str, ...]:
    """All that will not be enforced, as ReplicaRecord tells it."""
    return (*predicted(machine, model), *(said for said in machine.said if said not in predicted(machine, model)))


def _counts_processes(machine: Machine) -> bool:
    """Whether the kernel counts the processes of this user apart from everyone else's.

    That is so for a uid of its own; in a user namespace since Linux 5.14.
    """
    if machine.limits("pids") or not machine.own_root:
        return False
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return machine.root or (release is not None and (int(release[1]), int(release[2])) >= (5, 14))


def check_mounts(machine: Machine, model: ModelDesired) -> None:
    """Raise SandboxError("volume" | "isolation") for what cannot be given to the model here."""
    if model.network == "internal":
        raise SandboxError(
            "isolation",
            f"models.{model.name}.network: internal cannot be had by a process: its network is none or the host's",
            hint="use `network: none` or `bridge`, or `runtime: docker`",
        )
    if not machine.own_root and (model.secrets or model.tmpfs):
        raise SandboxError(
            "isolation",
            f"models.{model.name}.{'secrets' if model.secrets else 'tmpfs'}: cannot be mounted here"
            f" ({machine.refused['mount']})",
            hint="use `runtime: docker`",
        )
    for mount in model.mounts:
        if not machine.own_root and mount.source != mount.target:
            raise SandboxError(
                "volume",
                f"models.{model.name}.volumes: {mount.target} cannot be mounted here ({machine.refused['mount']})",
                hint="use `runtime: docker`, or mount the volume at its own path",
            )
