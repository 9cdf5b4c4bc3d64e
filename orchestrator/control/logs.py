"""What models print: followed from their replicas' log files into `.sandbox/logs`, and on to whoever listens.

A replica's log.jsonl lies where its model can write, so it is opened as sockets are (no links, a regular file of that
user) and each line is checked. The copy is bounded; where it stands is remembered, so a restart of control loses and
repeats nothing. Where lines are lost all the same, a line says so in their place.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from orchestrator import folders, sockets
from orchestrator.control.agents import parsed

ROTATION = ("log.jsonl.2", "log.jsonl.1", "log.jsonl")
LONGEST_FILE = 10 * 1024 * 1024
MOST_AT_ONCE = 16 * 1024 * 1024
LONGEST_BACKLOG = 10_000
LOOK_AGAIN = 1.0  # seconds; only for what was printed while no agent could tell of it

Line = dict[str, Any]


class Lines(asyncio.Queue[Line]):
    """What a listener has not read yet. dropped: lines that it was too slow for, not told to it so far."""

    def __init__(self) -> None:
        super().__init__(LONGEST_BACKLOG)
        self.dropped = 0

    def add(self, line: Line) -> None:
        """Append a line; the oldest goes where there are too many."""
        if self.full():
            self.get_nowait()
            self.dropped += 1
        self.put_nowait(line)

    def remark(self, line: Line) -> Line | None:
        """What has to be told before `line`, which was read just now."""
        count, self.dropped = self.dropped, 0
        return {**line, **_remark(line, f"{count} lines dropped: they were not read in time")} if count else None


@dataclass(eq=False, slots=True)
class _Tail:
    model: str
    folder: str
    uid: int
    inode: int = 0
    offset: int = 0


class Logs:
    """Copies lines of every followed replica to `FOLDER/<model>.jsonl` and to listeners."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._tails: dict[str, _Tail] = {}
        self._poked = asyncio.Event()
        self._listeners: set[Lines] = set()
        self._unstored: dict[str, int] = {}
        self._positions = os.path.join(folder, "positions.json")
        self._known = folders.read_json(self._positions) or {}

    def follow(self, model: str, incarnation: str, folder: str, uid: int) -> None:
        """Copy this replica's lines from where the last copy stopped."""
        if incarnation not in self._tails:
            inode, offset = self._known.get(incarnation, (0, 0))
            self._tails[incarnation] = _Tail(model, folder, uid, int(inode), int(offset))
        self._poked.set()

    def poke(self, incarnation: str) -> None:
        """Note that its agent says there are new lines."""
        if incarnation in self._tails:
            self._poked.set()

    async def forget(self, model: str, incarnation: str) -> None:
        """Copy what is left of a replica that is being removed."""
        del model
        tail = self._tails.pop(incarnation, None)
        if tail is not None:
            await self._copy(incarnation, tail)
        self._known.pop(incarnation, None)

    async def run(self) -> None:
        """Copy until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN):
                    await self._poked.wait()
            self._poked.clear()
            copied = [await self._copy(incarnation, tail) for incarnation, tail in list(self._tails.items())]
            if any(copied):
                self.remember()

    def remember(self) -> None:
        """Keep where each copy stands."""
        self._known = {key: (tail.inode, tail.offset) for key, tail in self._tails.items()}
        with contextlib.suppress(OSError):  # a full disk costs repeated lines at most
            folders.write_json(self._positions, self._known)

    @contextlib.contextmanager
    def listen(self) -> Iterator[Lines]:
        """Give a queue of the lines from now on; a reader that lags loses the oldest."""
        queue = Lines()
        self._listeners.add(queue)
        try:
            yield queue
        finally:
            self._listeners.discard(queue)

    def past(self, models: tuple[str, ...], tail: int | None, since: str | None) -> list[Line]:
        """Stored lines of these models, oldest first; `tail` of each model at most."""
        lines: list[Line] = []
        for model in models:
            kept: deque[Line] = deque(maxlen=tail)
            for path in (self._path(model) + ".1", self._path(model)):
                with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as file:
                    entries = (entry for entry in map(_parse, file) if entry is not None)
                    kept.extend(entry for entry in entries if since is None or entry["t"] >= since)
            lines += kept
        return sorted(lines, key=lambda line: str(line["t"]))

    def _path(self, model: str) -> str:
        return os.path.join(self._folder, f"{model}.jsonl")

    async def _copy(self, incarnation: str, tail: _Tail) -> bool:
        try:
            lines = await asyncio.to_thread(self._read, tail)
        except OSError:
            return False  # the replica is just being removed
        for line in lines:
            self._publish({**line, "model": tail.model, "replica": incarnation})
        return bool(lines)

    def _read(self, tail: _Tail) -> list[Line]:
        """Read on: the file last read from its offset, then every newer one from its start."""
        files = [descriptor for name in ROTATION if (descriptor := _open(tail, name)) is not None]
        try:
            inodes = [os.fstat(each).st_ino for each in files]
            known = tail.inode in inodes
            first, rotated_away = (inodes.index(tail.inode), False) if known else (0, bool(tail.inode))
            lines: list[Line] = []
            for descriptor, inode in zip(files[first:], inodes[first:], strict=True):
                if inode != tail.inode:
                    tail.inode, tail.offset = inode, 0
                lines += _read_on(descriptor, tail)
        finally:
            for descriptor in files:
                os.close(descriptor)
        if lines and rotated_away:
            lines.insert(0, _remark(lines[0], "lines dropped: they were printed faster than they could be copied"))
        if lines:
            self._store(tail.model, lines)
        return lines

    def _store(self, model: str, lines: list[Line]) -> None:
        """Append to the copy; a full disk drops them there, and those who listen hear them all the same."""
        missing = self._unstored.get(model, 0)
        note = [_remark(lines[0], f"{missing} lines dropped: the disk was full")] if missing else []
        try:
            self._append(model, [*note, *lines])
        except OSError:
            self._unstored[model] = missing + len(lines)
        else:
            self._unstored.pop(model, None)

    def _append(self, model: str, lines: list[Line]) -> None:
        path = self._path(model)
        with contextlib.suppress(FileNotFoundError):
            if os.path.getsize(path) > LONGEST_FILE:
                os.replace(path, f"{path}.1")
        text = "".join(json.dumps({**line, "model": model}, ensure_ascii=False) + "\n" for line in lines).encode()
        with open(path, "ab", buffering=0) as file:
            end = file.tell()
            if (file.write(text) or 0) < len(text):
                file.truncate(end)  # half a line would take the next one with it
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    def _publish(self, line: Line) -> None:
        for queue in self._listeners:
            queue.add(line)


def _open(tail: _Tail, name: str) -> int | None:
    try:
        return sockets.open_regular(tail.folder, name, uid=tail.uid)
    except (OSError, sockets.SocketRefused):
        return None  # not there yet, or not what it must be


def _read_on(descriptor: int, tail: _Tail) -> list[Line]:
    text = os.pread(descriptor, MOST_AT_ONCE, tail.offset)
    complete, newline, _ = text.rpartition(b"\n")
    # A line that long is none of the agent's: it is passed over, and its end is no line either.
    tail.offset += len(complete) + len(newline) if newline or len(text) < MOST_AT_ONCE else len(text)
    return [line for line in map(_parse, complete.splitlines()) if line is not None]


def _remark(line: Line, text: str) -> Line:
    """A line of ours, told where `line` is."""
    return {"t": line["t"], "g": 0, "s": "err", "m": f"({text})"}


def _parse(text: str | bytes) -> Line | None:
    try:
        line = parsed(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or not isinstance(line.get("t"), str) or not isinstance(line.get("m"), str):
        return None
    return line
