"""The bounded folder in which a replica may write: a small tmpfs over its socket folder, where root can mount one."""

from __future__ import annotations

import ctypes
import os

SIZE = 64 << 20
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 4, 8, 2, 8

_libc = ctypes.CDLL(None, use_errno=True)


def mount(folder: str, incarnation: str) -> bool:
    """Mount it unless it is, or files are there already; False where it was not. Its source names the incarnation."""
    if os.path.ismount(folder):
        return True
    if os.listdir(folder):
        return False
    options = f"mode=0777,size={SIZE}".encode()
    flags = ctypes.c_ulong(_MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    source = f"model-sandbox-{incarnation}".encode()
    return bool(_libc.mount(source, os.fsencode(folder), b"tmpfs", flags, options) == 0)


def unmount(folder: str) -> None:
    """Take it away, if it is there; what still uses it keeps it alive, unseen."""
    if os.path.ismount(folder):
        _libc.umount2(os.fsencode(folder), _MNT_DETACH | _UMOUNT_NOFOLLOW)
