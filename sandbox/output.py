"""What models print: from pipes into the rotating log.jsonl, a line each. It never blocks on who reads it later."""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from typing import Callable, List, Optional

LOG = "log.jsonl"
ROTATE = 10 * 1024 * 1024
KEPT = 2  # log.jsonl.1 and .2
LINE = 64 * 1024


class LogFile:
    """log.jsonl in an open folder. Agent and orphaned workers may write it at once: appended, rotated under a lock."""

    def __init__(self, directory: int, rotate: int = ROTATE) -> None:
        self._directory = directory
        self._rotate = rotate
        self._fd: Optional[int] = None
        self._torn = False

    def write(self, generation: int, stream: str, lines: List[str]) -> None:
        """Append lines of one stream ("out" or "err"). A full disk loses them: the model must not stop for it."""
        moment = _now()
        records = [{"t": moment, "g": generation, "s": stream, "m": line} for line in lines]
        data = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode("utf-8", "replace")
        if self._torn:
            data = b"\n" + data  # half a line is there already: it must not take this one with it
        try:
            self._torn = os.write(self._opened(), data) < len(data)
        except OSError:
            self.close()

    def close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def _opened(self) -> int:
        """The descriptor of the file that bears the name now and is not full."""
        if self._fd is not None and not self._is_current(self._fd):
            self.close()
        if self._fd is None:
            self._fd = self._open()
        if os.fstat(self._fd).st_size >= self._rotate:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            # Another writer may have rotated while this one waited for the lock.
            if self._is_current(self._fd):
                self._shift()
            self.close()
            self._fd = self._open()
        return self._fd

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(LOG, flags, 0o644, dir_fd=self._directory)

    def _is_current(self, fd: int) -> bool:
        try:
            named = os.stat(LOG, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(named, os.fstat(fd))

    def _shift(self) -> None:
        names = [LOG] + [f"{LOG}.{number}" for number in range(1, KEPT + 1)]
        for older, newer in zip(reversed(names), reversed(names[:-1])):
            try:
                os.rename(newer, older, src_dir_fd=self._directory, dst_dir_fd=self._directory)
            except FileNotFoundError:
                continue


class Splitter:
    """Turns the bytes of one stream into lines; a line beyond LINE bytes comes in pieces."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> List[str]:
        *lines, rest = (self._rest + data).split(b"\n")
        while len(rest) > LINE:
            lines.append(rest[:LINE])
            rest = rest[LINE:]
        self._rest = rest
        return [piece.decode("utf-8", "replace") for line in lines for piece in _pieces(line)]

    def finish(self) -> List[str]:
        """What is left without its newline."""
        return self.feed(b"\n") if self._rest else []


class Capture:
    """The agent's end of one stream of one process. `written` is called after lines went to the log."""

    def __init__(
        self, fd: int, generation: int, stream: str, log: LogFile, written: Callable[[List[str]], None]
    ) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.generation = generation
        self._stream = stream
        self._log = log
        self._written = written
        self._splitter = Splitter()

    def read(self) -> bool:
        """Take what is there, at most 64 KB, so that one loud model leaves room for others. False when none was."""
        try:
            data = os.read(self.fd, 65536)
        except BlockingIOError:
            return False
        self._put(self._splitter.feed(data))
        return bool(data)

    def finish(self) -> None:
        """Take the rest, within reason, and close. For a process that has ended."""
        for _ in range(64):
            if not self.read():
                break
        self._put(self._splitter.finish())
        os.close(self.fd)

    def _put(self, lines: List[str]) -> None:
        if lines:
            self._log.write(self.generation, self._stream, lines)
            self._written(lines)


class Echo:
    """Copies lines to this process's own standard output (`docker logs`), and drops them while nobody reads it."""

    def __init__(self, fd: int = 1) -> None:
        self._fd = fd
        os.set_blocking(fd, False)
        self._unsent = b""

    def write(self, lines: List[str]) -> None:
        if len(self._unsent) < LINE:
            self._unsent += "".join(line + "\n" for line in lines).encode("utf-8", "replace")
        try:
            # What a short write left goes first next time, so that a line is never cut in two.
            self._unsent = self._unsent[os.write(self._fd, self._unsent) :]
        except OSError:
            return


class Orphan:
    """A worker's own drain of its output while there is no agent: `print` must neither break nor block.

    out, err: the read ends of its output pipes, which each worker holds for this (assignment["output"]).
    """

    def __init__(self, sockets: str, generation: int, out: int, err: int) -> None:
        self._log = LogFile(os.open(sockets, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        self._generation = generation
        self._lock = threading.Lock()
        self._ends = ((out, "out"), (err, "err"))

    def start(self) -> None:
        """From now until the process ends: a new agent reads the log file, not these pipes."""
        for fd, stream in self._ends:
            threading.Thread(target=self._drain, args=(fd, stream), name=f"orphan-{stream}", daemon=True).start()

    def _drain(self, fd: int, stream: str) -> None:
        splitter = Splitter()
        os.set_blocking(fd, True)
        while True:
            data = os.read(fd, 65536)
            lines = splitter.feed(data) if data else splitter.finish()
            if lines:
                with self._lock:
                    self._log.write(self._generation, stream, lines)
            if not data:
                return


def _pieces(line: bytes) -> List[bytes]:
    return [line[start : start + LINE] for start in range(0, len(line), LINE)] or [b""]


def _now() -> str:
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
