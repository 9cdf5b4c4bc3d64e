"""News of changed files by looking again and again: where the system has no watches left to give.

Not the watchfiles library's polling: that compares whole seconds, and two saves within one are the ordinary case here.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Collection, Iterator

from orchestrator.control.notify import Notice, OnNotice

INTERVAL = 0.3

# Per name in a folder: device-independent marks that move with every save.
_Listing = dict[str, tuple[int, int, int, int]]


class Polling:
    """Looks at every watched folder each INTERVAL seconds, in a thread."""

    def __init__(self, on_notice: OnNotice) -> None:
        self._on_notice = on_notice
        self._folders: dict[str, _Listing | None] = {}
        self._task = asyncio.get_running_loop().create_task(self._run(), name="polling")

    def arm(self, folder: str) -> None:
        # Listed here, before the caller lists it: what appears after this is news.
        self._folders.setdefault(folder, listed(folder))

    def keep(self, folders: set[str]) -> None:
        for folder in self._folders.keys() - folders:
            del self._folders[folder]

    def close(self) -> None:
        self._task.cancel()

    async def closed(self) -> None:
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            found = await asyncio.to_thread(_look, list(self._folders))
            for folder, now in found.items():
                if folder in self._folders:
                    before, self._folders[folder] = self._folders[folder], now
                    for notice in differences(folder, before, now):
                        self._on_notice(notice)


def listed(folder: str) -> _Listing | None:
    """What a folder holds now, or None where it is gone."""
    found: _Listing = {}
    try:
        for entry in os.scandir(folder):
            status = entry.stat(follow_symlinks=False)
            folder_marks = (0, 0, status.st_ino, stat.S_IFDIR)
            file_marks = (status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode)
            found[entry.name] = folder_marks if stat.S_ISDIR(status.st_mode) else file_marks
    except FileNotFoundError:
        return found if os.path.isdir(folder) else None  # a file went while we looked: the next look tells
    except OSError:
        return None
    return found


def differences(folder: str, before: _Listing | None, now: _Listing | None) -> Iterator[Notice]:
    """The news between two listings of a folder."""
    if before is not None and now is None:
        yield Notice(folder, gone=True, folder=True)
    old, new = before or {}, now or {}
    for name in sorted(old.keys() - new.keys()):
        yield Notice(os.path.join(folder, name), gone=True, folder=stat.S_ISDIR(old[name][3]))
    for name in sorted(name for name, marks in new.items() if old.get(name) != marks):
        yield Notice(os.path.join(folder, name), folder=stat.S_ISDIR(new[name][3]))


def _look(folders: Collection[str]) -> dict[str, _Listing | None]:
    return {folder: listed(folder) for folder in folders}
