"""One GET /health on a worker's socket, without blocking. It reads the status and nothing else."""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import Callable

from sandbox import sockets
from sandbox.loop import Loop

_REQUEST = b"GET /health HTTP/1.1\r\nHost: sandbox\r\nConnection: close\r\n\r\n"
_SECONDS = 5.0


class Probe:
    """Calls `done` once with "" when the worker answered 200, else with what was wrong."""

    def __init__(self, loop: Loop, directory: int, name: str, done: Callable[[str], None]) -> None:
        self._loop = loop
        self._done = done
        self._answer = b""
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.setblocking(False)
        self._deadline = loop.later(_SECONDS, lambda: self._finish(f"no answer in {_SECONDS:g} s"))
        wrong = self._sock.connect_ex(sockets.path(directory, name))
        if wrong:
            # A later turn, so that the caller never hears of its own call before it returned.
            loop.later(0, lambda: self._finish(errno.errorcode.get(wrong, str(wrong))))
            return
        with contextlib.suppress(OSError):  # the reason shows when reading
            self._sock.send(_REQUEST)
        loop.reading(self._sock.fileno(), self._read)

    def cancel(self) -> None:
        if self._sock.fileno() >= 0:
            self._deadline.cancel()
            self._loop.forget(self._sock.fileno())
            self._sock.close()

    def _read(self) -> None:
        try:
            data = self._sock.recv(4096)
        except OSError as error:
            self._finish(str(error))
            return
        self._answer += data
        status, end, _ = self._answer.partition(b"\r\n")
        if not data or end or len(self._answer) > 4096:
            words = status.split()
            self._finish("" if words[1:2] == [b"200"] else f"answered {status[:100].decode('latin-1')!r}")

    def _finish(self, wrong: str) -> None:
        if self._sock.fileno() >= 0:
            self.cancel()
            self._done(wrong)
