"""One JSON-Lines connection of the agent: what came in, what still has to go out. It knows no meaning of a message."""

from __future__ import annotations

import socket
from typing import Callable, Optional

from sandbox import wire
from sandbox.loop import Loop

# Beyond this the other end has stopped reading; holding more would only move its trouble here.
BACKLOG = 8 * wire.LIMIT

Receive = Callable[[wire.Message], None]
Closed = Callable[[str], None]


class Peer:
    """Owns `sock`. `receive` gets each message, `closed` once the reason why no more will come (not after `close`).

    Both are set before the loop turns, and again when the connection gets another owner.
    """

    def __init__(self, loop: Loop, sock: socket.socket) -> None:
        self.receive: Receive = _nobody
        self.closed: Closed = _nobody
        self._loop = loop
        self._sock: Optional[socket.socket] = sock
        self._lines = wire.Lines()
        self._unsent = bytearray()
        sock.setblocking(False)
        loop.reading(sock.fileno(), self._read)

    @property
    def open(self) -> bool:
        return self._sock is not None

    def send(self, message: wire.Message) -> None:
        """Send, or keep until the other end reads. A closed connection swallows it: its owner has been told."""
        self.send_line(wire.encode(message))

    def send_line(self, line: bytes) -> None:
        if self._sock is None:
            return
        self._unsent += line
        self._flush()
        if len(self._unsent) > BACKLOG:
            self._end(f"{len(self._unsent)} bytes were not read")

    def send_descriptor(self, fd: int) -> bool:
        """Send one byte that carries `fd`; False where the other end is gone. Only before anything else was sent."""
        try:
            return self._sock is not None and socket.send_fds(self._sock, [b"!"], [fd]) == 1
        except OSError:
            return False

    def drain(self) -> None:
        """Read whatever has already arrived, now."""
        while self._sock is not None and self._read():
            pass

    def close(self) -> None:
        """Close without calling `closed`. Idempotent."""
        sock, self._sock = self._sock, None
        if sock is not None:
            self._loop.forget(sock.fileno())
            sock.close()

    def _read(self) -> bool:
        if self._sock is None:
            return False
        try:
            data = self._sock.recv(65536)
        except BlockingIOError:
            return False
        except OSError as error:
            self._end(str(error))
            return False
        if not data:
            self._end("closed")
            return False
        try:
            messages = self._lines.feed(data)
        except wire.WireError as error:
            self._end(str(error))
            return False
        for message in messages:
            if self._sock is None:
                break
            self.receive(message)
        return True

    def _flush(self) -> None:
        if self._sock is None:
            return
        try:
            while self._unsent:
                del self._unsent[: self._sock.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            # The other end is gone; what it said before is still to be read, and its end shows there.
            self._unsent.clear()
        self._loop.writing(self._sock.fileno(), self._flush if self._unsent else None)

    def _end(self, reason: str) -> None:
        if self._sock is not None:
            self.close()
            self.closed(reason)


def _nobody(_news: object) -> None:
    """Until an owner says what to do."""
