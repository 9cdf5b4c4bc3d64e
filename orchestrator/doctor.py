"""Examines the machine and the project: what works, what does not, and what to do about it. It changes nothing."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from orchestrator import client, folders
from orchestrator.errors import SandboxError
from orchestrator.listener import PortError, listen

if TYPE_CHECKING:
    from orchestrator.spec.load import Project

Verdict = Literal["ok", "note", "problem"]
OLDEST_PYTHON = (3, 11)
LEAST_SPACE = 1 << 30
# One watch per folder of every model, one instance per sandbox; editors and containers share them.
LEAST_INOTIFY = {"max_user_watches": 8192, "max_user_instances": 64}
TOOL_DEADLINE = 10.0


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. hint: the next step, "" where none is needed."""

    name: str
    verdict: Verdict
    message: str
    hint: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def examine(files: Sequence[str], directory: str | None, environ: Mapping[str, str]) -> list[Check]:
    """Every check, in the order in which a person would look. files: as `-f` names them."""
    found = os.path.abspath(files[0]) if files else folders.find_spec(directory or os.getcwd())
    checks = [_python(), _uv()]
    project: Project | None = None
    if found is None:
        checks.append(Check("sandbox.yaml", "note", "there is none here or above", "write one with: sandbox init"))
    else:
        project, check = _spec(found, environ, files[1:] if files else None)
        checks.append(check)
    checks += [*_docker(project), *_isolation(), *_inotify()]
    place = folders.Folders(os.path.dirname(found)) if found is not None else None
    checks += list(_space(place))
    if place is not None:
        checks += [*_keeper(place), *_port(place, project)]
    return checks


def _python() -> Check:
    text = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info[:2] >= OLDEST_PYTHON:
        return Check("python", "ok", text)
    return Check("python", "problem", text, "install Python 3.11 or newer, and model-sandbox with it")


def _uv() -> Check:
    try:
        import uv

        return Check("uv", "ok", str(uv.find_uv_bin()))
    except (ImportError, FileNotFoundError) as error:
        return Check("uv", "problem", f"cannot be found: {error}", "pip install uv")


def _spec(path: str, environ: Mapping[str, str], overrides: Sequence[str] | None) -> tuple[Project | None, Check]:
    from orchestrator.spec import load, resolve

    try:
        project = load.load(path, environ, overrides)
        profiles = ("*",) if any(model.profiles for model in project.spec.models.values()) else ()
        resolve.resolve(project, profiles=profiles, runtime="process", interpreter=lambda _kind, python: python)
    except SandboxError as error:
        return None, Check("sandbox.yaml", "problem", str(error), error.hint)
    return project, Check("sandbox.yaml", "ok", f"{len(project.spec.models)} models")


def _docker(project: Project | None) -> Iterator[Check]:
    from orchestrator.image.engine import live_restore, probe

    spec = project.spec if project is not None else None
    asked = spec is not None and "docker" in {spec.runtime, *(model.runtime for model in spec.models.values())}
    reason = probe()
    if reason is not None:
        hint = "start the engine, or set runtime: auto" if asked else "models run in processes instead"
        yield Check("docker engine", "problem" if asked else "note", reason, hint)
        return
    try:
        survives = live_restore()
    except SandboxError as error:
        yield Check("docker engine", "problem", str(error), error.hint)
        return
    yield Check("docker engine", "ok", "answers on a local socket")
    if not survives:
        hint = 'add "live-restore": true to /etc/docker/daemon.json, then: sudo systemctl reload docker'
        yield Check("live-restore", "note", "is off: a restart of the engine ends every container", hint)
    if _runs("docker", "buildx", "version"):
        yield Check("buildx", "ok", "builds use its caches")
    else:
        yield Check(
            "buildx", "note", "is missing: the classic builder is used, which caches less", "install docker-buildx"
        )


def _runs(*command: str) -> bool:
    if shutil.which(command[0]) is None:
        return False
    try:
        tried = subprocess.run(command, check=False, capture_output=True, timeout=TOOL_DEADLINE)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return tried.returncode == 0


def _isolation() -> Iterator[Check]:
    from orchestrator.runtimes import walls

    machine = walls.survey()
    for space in ("mount", "network"):
        reason = machine.refused.get(space)
        if reason is None:
            yield Check(f"{space} namespaces", "ok", "process models get their own")
        else:
            yield Check(f"{space} namespaces", "note", reason, "process models share the host's; containers do not")
    for sentence in machine.said:
        yield Check("isolation", "note", sentence)
    missing = [name for name in ("memory", "cpu", "pids") if not machine.limits(name)]
    if not missing:
        yield Check("cgroups", "ok", "memory, cpu and pids can be limited")
        return
    hint = "memory is watched instead; for the rest use runtime: docker, or delegate the controllers to this user"
    yield Check("cgroups", "note", f"cannot be written for: {', '.join(missing)}", hint)


def _inotify() -> Iterator[Check]:
    for name, least in LEAST_INOTIFY.items():
        try:
            with open(f"/proc/sys/fs/inotify/{name}", encoding="ascii") as file:
                value = int(file.read())
        except (OSError, ValueError):
            continue
        if value >= least:
            yield Check(f"inotify {name}", "ok", str(value))
        else:
            hint = f"sudo sysctl fs.inotify.{name}={least * 8}"
            yield Check(f"inotify {name}", "problem", f"{value} is little: saves may go unseen", hint)


def _space(place: folders.Folders | None) -> Iterator[Check]:
    wanted = {"cache": folders.cache_home(), "state": folders.state_home()}
    if place is not None:
        wanted["project"] = place.directory
    for name, path in wanted.items():
        existing = path
        while not os.path.exists(existing):
            existing = os.path.dirname(existing)
        free = shutil.disk_usage(existing).free
        text = f"{free / (1 << 30):.1f} GiB free for {path}"
        if free >= LEAST_SPACE:
            yield Check(f"{name} folder", "ok", text)
        else:
            yield Check(f"{name} folder", "problem", text, "free some: environments and images need gigabytes")


def _keeper(place: folders.Folders) -> Iterator[Check]:
    record = folders.read_json(place.keeper_record)
    if record is None or record.get("boot_id") != folders.boot_id():
        yield Check("sandbox", "note", "none runs here", "start it with: sandbox up")
    elif not folders.living(record):
        yield Check(
            "keeper", "problem", "is gone: a crash would not be repaired", "any command restores it: sandbox ps"
        )
    else:
        yield Check("keeper", "ok", f"pid {record['pid']}, port {record.get('port')}")
        try:
            client.ControlClient(place).get("/api/models")
        except SandboxError as error:
            yield Check("control", "problem", str(error), error.hint)
        else:
            yield Check("control", "ok", "answers")


def _port(place: folders.Folders, project: Project | None) -> Iterator[Check]:
    if project is None or client.keeper_lives(place):
        return
    gateway = project.spec.gateway
    if folders.living((folders.read_json(place.keeper_record) or {}).get("control")):
        return  # without a keeper, but the port is ours
    try:
        listen(gateway.host, gateway.port).close()
    except PortError as error:
        yield Check("port", "problem", error.message, error.hint)
    else:
        yield Check("port", "ok", f"{gateway.host}:{gateway.port} is free")
