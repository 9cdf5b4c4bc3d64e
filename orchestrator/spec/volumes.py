"""Volumes as sandbox.yaml writes them, `HOST:TARGET[:ro|rw]`, into mounts. Looks whether the host path exists."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence

from orchestrator.errors import SpecError
from orchestrator.plan.types import Mount
from orchestrator.spec.paths import Boundary, contains
from orchestrator.spec.problems import Problem, of_error
from orchestrator.spec.yaml import KeyPath

_FORM = "write HOST:TARGET or HOST:TARGET:ro, for example ./weights:/weights:ro"
# Folders that the replica needs as they are; what is ours in a replica lies in /run/sandbox.
_RESERVED = ("/run/sandbox", "/proc", "/sys", "/dev")
_REPLACED = ("/", "/run", "/usr", "/bin", "/lib", "/lib64", "/etc", "/opt", "/var", "/tmp")  # noqa: S108 - not used


def mounts(volumes: Sequence[str], boundary: Boundary, path: KeyPath) -> tuple[tuple[Mount, ...], list[Problem]]:
    """The mounts of a model, and what is wrong with its volumes. `path`: the key path of `volumes`."""
    found: list[Mount] = []
    problems: list[Problem] = []
    for index, volume in enumerate(volumes):
        try:
            found.append(_mount(volume, boundary, {mount.target for mount in found}))
        except SpecError as error:
            problems.append(of_error((*path, index), error))
    return tuple(found), problems


def _mount(volume: str, boundary: Boundary, taken: set[str]) -> Mount:
    parts = volume.split(":")
    if not 2 <= len(parts) <= 3 or not all(parts):
        raise SpecError("volume", f"{volume!r} is not of the form HOST:TARGET", hint=_FORM)
    source, target = parts[:2]
    mode = parts[2] if len(parts) == 3 else "rw"
    if mode not in {"ro", "rw"}:
        raise SpecError("volume", f"{mode!r} is no mode of a volume", hint="write ro or rw")
    if not source.startswith((".", "/", "~")):
        hint = f"write ./{source} for a path of the project; named volumes do not exist here"
        raise SpecError("volume", f"{source!r} is no path", hint=hint)
    mount = Mount(_source(source, boundary), _target(target), mode == "ro")
    if mount.target in taken:
        hint = "give each volume a target of its own"
        raise SpecError("volume", f"{target} is the target of two volumes", hint=hint)
    return mount


def _source(source: str, boundary: Boundary) -> str:
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
