"""Folders on file systems that others write to, too: what those write raises no event here, so it is looked for.

It knows the kinds of file systems by name; whether an event would have come cannot be known beforehand.
"""

from __future__ import annotations

import os

from orchestrator.control.notify import Notifier, OnNotice
from orchestrator.control.polling import Polling

# Network file systems, and what virtual machines have of their host's files.
REMOTE = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "lustre", "beegfs", "gpfs", "9p", "virtiofs"),
        *("vboxsf", "vmhgfs", "prl_fs", "fuse"),
    }
)
# Beneath FUSE that is mostly so (sshfs, the hosts of desktop engines), but for these.
_LOCAL_FUSE = frozenset({"fuse.fuse-overlayfs", "fuse.bindfs", "fuse.encfs", "fuse.gocryptfs"})


class AlsoRemote:
    """A notifier's news, and with it what looking tells of the watched folders on remote file systems."""

    def __init__(self, on_notice: OnNotice, local: Notifier) -> None:
        self._on_notice = on_notice
        self._local = local
        self._polling: Polling | None = None
        self._kinds: dict[int, str] = {}

    def arm(self, folder: str) -> None:
        self._local.arm(folder)
        if is_remote(self._kind(folder)):
            if self._polling is None:
                self._polling = Polling(self._on_notice)
            self._polling.arm(folder)

    def keep(self, folders: set[str]) -> None:
        self._local.keep(folders)
        if self._polling is not None:
            self._polling.keep(folders)

    def close(self) -> None:
        self._local.close()
        if self._polling is not None:
            self._polling.close()

    async def closed(self) -> None:
        await self._local.closed()
        if self._polling is not None:
            await self._polling.closed()

    def _kind(self, folder: str) -> str:
        try:
            device = os.stat(folder).st_dev
        except OSError:
            return ""
        if device not in self._kinds:
            self._kinds = {device: "", **mounted()}
        return self._kinds[device]


def is_remote(kind: str) -> bool:
    """Whether files of this kind of file system may change without an event here."""
    return kind in REMOTE or (kind.startswith("fuse.") and kind not in _LOCAL_FUSE)


def mounted() -> dict[int, str]:
    """The kind of each mounted file system, by device (proc_pid_mountinfo(5): fields 3 and, after a dash, 9)."""
    found = {}
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                before, _, after = line.partition(" - ")
                major, _, minor = before.split()[2].partition(":")
                found[os.makedev(int(major), int(minor))] = after.split()[0]
    except (OSError, ValueError, IndexError):
        return found
    return found
