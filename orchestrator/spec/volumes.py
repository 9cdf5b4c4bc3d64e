"""Volumes and tmpfs of sandbox.yaml, into mounts. Looks whether the host path exists."""

from __future__ import annotations

import os
import posixpath

from orchestrator.errors import SpecError
from orchestrator.plan.types import SECRETS, Mount, Tmpfs
from orchestrator.spec import units
from orchestrator.spec.models import ModelSpec, VolumeSpec
from orchestrator.spec.paths import Boundary, contains
from orchestrator.spec.problems import Problem, of_error
from orchestrator.spec.yaml import KeyPath

# Folders that the replica needs as they are; what is ours in a replica lies in /run/sandbox.
_RESERVED = ("/run/sandbox", SECRETS, "/proc", "/sys", "/dev")
_REPLACED = ("/", "/run", "/usr", "/bin", "/lib", "/lib64", "/etc", "/opt", "/var", "/tmp")  # noqa: S108 - not used


def mounts(
    model: ModelSpec, boundary: Boundary, path: KeyPath
) -> tuple[tuple[Mount, ...], tuple[Tmpfs, ...], list[Problem]]:
    """What a model has mounted, and what is wrong with it. `path`: the key path of the model."""
    binds: list[Mount] = []
    memory: list[Tmpfs] = []
    problems: list[Problem] = []
    taken: set[str] = set()
    wanted: list[tuple[KeyPath, VolumeSpec | str]] = [
        *(((*path, "volumes", index), volume) for index, volume in enumerate(model.volumes)),
        *(((*path, "tmpfs", index), text) for index, text in enumerate(model.tmpfs)),
    ]
    for at, each in wanted:
        try:
            made = _tmpfs(each) if isinstance(each, str) else _volume(each, boundary)
        except SpecError as error:
            problems.append(of_error(at, error))
            continue
        if made.target in taken:
            message = f"{made.target} is the target of two volumes"
            problems.append(Problem(at, "volume", message, "give each volume a target of its own"))
            continue
        taken.add(made.target)
        if isinstance(made, Mount):
            binds.append(made)
        else:
            memory.append(made)
    return tuple(binds), tuple(memory), problems


def _volume(volume: VolumeSpec, boundary: Boundary) -> Mount | Tmpfs:
    if volume.type == "tmpfs":
        return Tmpfs(_target(volume.target), volume.tmpfs.size, volume.tmpfs.mode)
    return Mount(_source(volume.source or "", boundary), _target(volume.target), volume.read_only)


def _tmpfs(text: str) -> Tmpfs:
    """`/target[:size=64M,mode=0700]`."""
    target, _, options = text.partition(":")
    size, mode = None, Tmpfs("").mode
    for option in filter(None, options.split(",")):
        name, _, value = option.partition("=")
        if name == "size":
            size = units.size(value)
        elif name == "mode" and value and not value.strip("01234567") and len(value) <= 5:
            mode = int(value, 8)
        else:
            hint = "write for example /scratch:size=64M,mode=0700"
            raise SpecError("volume", f"{option!r} is no option of a tmpfs", hint=hint)
    return Tmpfs(_target(target), size, mode)


def _source(source: str, boundary: Boundary) -> str:
    if not source.startswith((".", "/", "~")):
        hint = f"write ./{source} for a path of the project; named volumes do not exist here"
        raise SpecError("volume", f"{source!r} is no path", hint=hint)
    real = os.path.realpath(boundary.absolute(source))
    if not os.path.exists(real):
        hint = f"create {real}, or correct the path"
        raise SpecError("path-missing", f"{source} does not exist on this machine", hint=hint)
    return real


def _target(target: str) -> str:
    clean = posixpath.normpath(target)
    if not target.startswith("/"):
        raise SpecError("volume", f"the target {target!r} is not absolute", hint=f"write /{target}")
    if clean.startswith("//"):
        clean = clean[1:]
    if clean in _REPLACED or any(contains(folder, clean) for folder in _RESERVED):
        hint = "choose a folder of its own, for example /weights"
        raise SpecError("volume", f"the target {target} would cover what the model needs to run", hint=hint)
    return clean
