"""News of changed files through the watchfiles library: what systems other than Linux have."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading

from watchfiles import Change
from watchfiles._rust_notify import RustNotify

from orchestrator.control.notify import Notice, OnNotice

# How long it gathers news once some came, and how often it looks: its floor of latency against its idle work.
GATHER_MS, STEP_MS = 20, 5


class Portable:
    """The watchfiles library on a thread. A new set of folders means a new watch, made before the old one ends."""

    def __init__(self, on_notice: OnNotice) -> None:
        self._on_notice = on_notice
        self._loop = asyncio.get_running_loop()
        self._folders: set[str] = set()
        self._current: tuple[threading.Thread, threading.Event] | None = None
        self._begin: asyncio.Handle | None = None

    def arm(self, folder: str) -> None:
        if folder not in self._folders and os.path.isdir(folder):
            self._folders.add(folder)
            self._restart_soon()

    def keep(self, folders: set[str]) -> None:
        if self._folders - folders:
            self._folders &= folders
            self._restart_soon()

    def close(self) -> None:
        if self._begin is not None:
            self._begin.cancel()
        self._end()

    async def closed(self) -> None:
        return  # `close` waited for its thread

    def _restart_soon(self) -> None:
        if self._begin is not None:
            self._begin.cancel()
        self._begin = self._loop.call_soon(self._restart)

    def _restart(self) -> None:
        self._folders = {folder for folder in self._folders if os.path.isdir(folder)}
        try:
            notify = RustNotify(sorted(self._folders), False, False, 0, False, True)
        except OSError:
            self._restart_soon()  # a folder vanished this moment
            return
        self._end()
        stop = threading.Event()
        thread = threading.Thread(target=self._listen, args=(notify, stop), name="watch", daemon=True)
        self._current = (thread, stop)
        thread.start()
        self._on_notice(Notice(None))  # what happened before the new watch stood

    def _end(self) -> None:
        if self._current is not None:
            thread, stop = self._current
            stop.set()
            thread.join(timeout=5.0)
            self._current = None

    def _listen(self, notify: RustNotify, stop: threading.Event) -> None:
        with notify:
            while not stop.is_set():
                found = notify.watch(GATHER_MS, STEP_MS, 1000, stop)
                if isinstance(found, set):
                    with contextlib.suppress(RuntimeError):  # the loop ended meanwhile
                        self._loop.call_soon_threadsafe(self._tell, found)

    def _tell(self, found: set[tuple[int, str]]) -> None:
        for change, path in sorted(found, key=lambda each: each[1]):
            gone = change == Change.deleted and not os.path.lexists(path)
            if gone:
                self._folders.discard(path)
            self._on_notice(Notice(path, gone=gone, folder=os.path.isdir(path)))
