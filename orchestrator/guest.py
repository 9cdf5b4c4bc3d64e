"""The guest as replicas see it: a read-only copy of `sandbox/` in a folder named by its content."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile

import sandbox
from orchestrator.errors import SandboxError

_ENTRY = "__main__.py"


def install(cache_dir: str) -> str:
    """Copy the guest into `cache_dir/guests/<content hash>/` unless it is there; return that folder (absolute).

    Running agents keep the copy they began with, whatever is upgraded. Two calls at once end in one copy.
    Raises SandboxError("disk-full" | "start").
    """
    source = os.path.dirname(os.path.abspath(sandbox.__file__))
    files = _files(source)
    guests = os.path.join(os.path.abspath(cache_dir), "guests")
    target = os.path.join(guests, _digest(source, files))
    try:
        if not os.path.isdir(target):
            os.makedirs(guests, exist_ok=True)
            _build(source, files, guests, target)
    except OSError as error:
        reference = "disk-full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "start"
        message = f"{guests} cannot be written: {error.strerror}"
        raise SandboxError(reference, message, hint="free some space there, or set XDG_CACHE_HOME") from error
    return target


def _files(source: str) -> list[str]:
    """Every file of the package, relative and sorted. Bytecode stays behind: replicas never read it."""
    return sorted(
        os.path.relpath(os.path.join(folder, name), source)
        for folder, _, names in os.walk(source)
        for name in names
        if name.endswith((".py", ".typed"))
    )


def _digest(source: str, files: list[str]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with open(os.path.join(source, file), "rb") as opened:
            content = opened.read()
        digest.update(f"{file}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _build(source: str, files: list[str], guests: str, target: str) -> None:
    """Build aside and rename: nobody ever sees half a guest."""
    aside = tempfile.mkdtemp(prefix=".building-", dir=guests)
    try:
        for file in files:
            copied = os.path.join(aside, "sandbox", file)
            os.makedirs(os.path.dirname(copied), exist_ok=True)
            shutil.copyfile(os.path.join(source, file), copied)
        shutil.copyfile(os.path.join(source, _ENTRY), os.path.join(aside, _ENTRY))
        for folder, _, names in os.walk(aside, topdown=False):
            for name in names:
                os.chmod(os.path.join(folder, name), 0o444)
            os.chmod(folder, 0o555)  # noqa: S103 - every user that a replica may run as reads it
        os.rename(aside, target)
    except OSError:
        _discard(aside)
        if not os.path.isdir(target):
            raise


def _discard(aside: str) -> None:
    """Another process won, or the disk is full: remove what was built."""
    for folder, _, _ in os.walk(aside):
        os.chmod(folder, 0o700)
    shutil.rmtree(aside)
