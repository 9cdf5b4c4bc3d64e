"""Linux's own news of changed files, inotify(7), by ctypes: nothing runs while nothing happens.

Folders are added to the one instance one by one, so no event is lost when the watched set changes.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import struct

from orchestrator.control.notify import Exhausted, Notice, OnNotice

IN_MODIFY, IN_ATTRIB, IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO = 0x2, 0x4, 0x8, 0x40, 0x80
IN_CREATE, IN_DELETE, IN_DELETE_SELF, IN_MOVE_SELF = 0x100, 0x200, 0x400, 0x800
IN_Q_OVERFLOW, IN_IGNORED, IN_ONLYDIR, IN_EXCL_UNLINK, IN_ISDIR = 0x4000, 0x8000, 0x1000000, 0x4000000, 0x40000000
_MASK = (
    IN_MODIFY | IN_ATTRIB | IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE
    | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR | IN_EXCL_UNLINK
)  # fmt: skip
_HEAD = struct.Struct("iIII")


class Inotify:
    """inotify(7) on the running event loop. Raises Exhausted where the system has no instance left."""

    def __init__(self, on_notice: OnNotice) -> None:
        self._on_notice = on_notice
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise exhausted(ctypes.get_errno())
        self._folders: dict[int, str] = {}
        self._watches: dict[str, int] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._descriptor, self._read)

    def arm(self, folder: str) -> None:
        watch = self._libc.inotify_add_watch(self._descriptor, os.fsencode(folder), _MASK)
        if watch < 0:
            number = ctypes.get_errno()
            if number in (errno.ENOSPC, errno.ENOMEM):
                raise exhausted(number)
            return  # gone, no folder, or not ours to read: its parent's watch tells when that changes
        stale = self._watches.get(folder)
        if stale is not None and stale != watch:
            self._folders.pop(stale, None)
        moved = self._folders.get(watch)
        if moved is not None and moved != folder:
            self._watches.pop(moved, None)
        self._folders[watch], self._watches[folder] = folder, watch

    def keep(self, folders: set[str]) -> None:
        for folder in self._watches.keys() - folders:
            watch = self._watches.pop(folder)
            self._folders.pop(watch, None)
            self._libc.inotify_rm_watch(self._descriptor, watch)

    def close(self) -> None:
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)

    async def closed(self) -> None:
        return

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, 1 << 16)
        except BlockingIOError:
            return
        offset = 0
        while offset < len(data):
            watch, mask, _, length = _HEAD.unpack_from(data, offset)
            offset += _HEAD.size
            name = os.fsdecode(data[offset : offset + length].rstrip(b"\0"))
            offset += length
            self._tell(watch, mask, name)

    def _tell(self, watch: int, mask: int, name: str) -> None:
        if mask & IN_Q_OVERFLOW:
            self._on_notice(Notice(None))
            return
        folder = self._folders.get(watch)
        if folder is None:
            return  # of a folder that is not watched any more
        if mask & (IN_IGNORED | IN_DELETE_SELF | IN_MOVE_SELF):
            del self._folders[watch]
            del self._watches[folder]
            if mask & IN_MOVE_SELF:
                self._libc.inotify_rm_watch(self._descriptor, watch)
            self._on_notice(Notice(folder, gone=True, folder=True))
            return
        if mask & IN_ISDIR and mask & IN_ATTRIB:
            return  # a folder's own mode or times
        self._on_notice(
            Notice(
                os.path.join(folder, name),
                gone=bool(mask & (IN_MOVED_FROM | IN_DELETE)),
                folder=bool(mask & IN_ISDIR),
                writing=bool(mask & IN_MODIFY),
            )
        )


def exhausted(number: int) -> Exhausted:
    name = "max_user_instances" if number == errno.EMFILE else "max_user_watches"
    return Exhausted(
        f"the system gives no more file watches ({errno.errorcode.get(number, number)}): saves are polled for "
        f"until then; raise the limit with `sysctl fs.inotify.{name}={_double(name)}`"
    )


def _double(name: str) -> int:
    try:
        with open(f"/proc/sys/fs/inotify/{name}", encoding="ascii") as file:
            return 2 * int(file.read())
    except (OSError, ValueError):
        return 524288
