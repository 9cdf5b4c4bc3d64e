"""Whether a user may use a path, judged by permission bits, and the words for when it may not.

It reads the file system and changes nothing; ACLs are not read.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from orchestrator.errors import SandboxError
from orchestrator.plan.types import ModelDesired

_CHECKED_FILES = 10_000


def check_access(model: ModelDesired, uid: int, data: str | None = None) -> None:
    """Raise SandboxError("path-permission") for a data folder or volume that this user cannot use.

    data: the live data folder or None. Looks at permission bits (no ACLs) of the folder and of what is in it, up to a
    bound: enough to find the common mistakes before a model meets them.
    """
    if uid == 0:
        return
    wanted: list[tuple[str, bool]] = [(mount.source, not mount.read_only) for mount in model.mounts]
    if data is not None:
        wanted.append((data, model.data_writable))
    for path, writable in wanted:
        refused = _refused(path, uid, writable)
        if refused is None:
            continue
        verb, change = ("write", f"chown -R {uid}:{uid}") if writable else ("read", "chmod -R a+rX")
        raise SandboxError(
            "path-permission",
            f"models.{model.name}: its user {uid} cannot {verb} {refused}",
            hint=f"run: {change} {path}",
        )


def _refused(path: str, uid: int, writable: bool) -> str | None:
    """The first path in the tree that this user cannot use."""
    pending: list[str] = [path]
    looked = 0
    while pending and looked < _CHECKED_FILES:
        current = pending.pop()
        looked += 1
        try:
            found = os.stat(current)
        except FileNotFoundError:
            continue  # a dangling link, or gone meanwhile
        except PermissionError:
            return current
        folder = os.path.isdir(current)
        if not may(found, uid, (2 if writable else 0) | (5 if folder else 4)):
            return current
        if folder and not os.path.islink(current):
            pending.extend(_entries(current))
    return None


def _entries(folder: str) -> Sequence[str]:
    try:
        return [entry.path for entry in os.scandir(folder) if not entry.is_symlink()]
    except OSError:
        return []


def may(found: os.stat_result, uid: int, rights: int) -> bool:
    """Whether permission bits give `rights` (4 read, 2 write, 1 pass) to a user in no group but that of its number."""
    groups = {os.getegid(), *os.getgroups()} if uid == os.geteuid() else {uid}
    shift = 6 if found.st_uid == uid else 3 if found.st_gid in groups else 0
    return (found.st_mode >> shift) & rights == rights
