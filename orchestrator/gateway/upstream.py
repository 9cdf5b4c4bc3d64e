"""HTTP/1.1 to a worker over its unix socket: one connection, one exchange at a time. It knows no model and no retry.

What decides whether a request may be sent again is told apart here, exactly:

- the first write is our own `send`: where it fails with nothing taken, the request never started (NeverStarted);
- ECONNRESET before any response byte: on a unix socket the peer closed with bytes of ours unread, so it never had the
  whole request (NeverStarted);
- an end of stream after sending, before a whole answer: the peer had read all and died (Died).
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

import httptools

# Answer bytes kept per exchange before the worker is held back; it is let on once they were read.
HIGH_WATER = 64 * 1024
MAX_HEAD = 64 * 1024

Header = tuple[str, str]


class NeverStarted(Exception):  # noqa: N818 (a fact about the exchange)
    """The worker provably never had the whole request."""


class Died(Exception):  # noqa: N818 (a fact about the exchange)
    """The connection ended, or made no sense, after the worker may have had the request. why: for people."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True, slots=True)
class Head:
    """Status and headers of an answer, names in lower case. length: None where the body is chunked."""

    status: int
    headers: tuple[Header, ...]

    def get(self, name: str) -> str | None:
        """The first header of this name (lower case)."""
        return next((value for key, value in self.headers if key == name), None)


def request_head(method: str, path: str, headers: Iterable[Header]) -> bytes:
    """The bytes of a request's head. Values come from parsed requests: they hold no line breaks."""
    lines = [f"{method} {path} HTTP/1.1", "Host: worker", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")


class Connection(asyncio.Protocol):
    """One connection to one worker. Used by one exchange at a time: send, (write…), head, read… until b""."""

    def __init__(self, sock: socket.socket, lost: Callable[[Connection], None]) -> None:
        self._sock = sock
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._busy = False
        self._usable = True
        self._writable = asyncio.Event()
        self._writable.set()
        self._begin()

    def _begin(self) -> None:
        self._headers: list[Header] = []
        self._head: Head | None = None
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._head_bytes = 0
        self._complete = False
        self._paused = False
        self._failure: Exception | None = None
        self._reader: asyncio.Future[None] | None = None

    @property
    def reusable(self) -> bool:
        """Idle, in order and open."""
        transport = self._transport
        return self._usable and not self._busy and transport is not None and not transport.is_closing()

    def send(self, data: bytes) -> None:
        """Begin an exchange with its head and what is at hand of its body. Raises NeverStarted."""
        if not self.reusable or self._transport is None:
            raise NeverStarted("the connection was closed")
        self._begin()
        self._busy = True
        try:
            taken = self._sock.send(data)
        except BlockingIOError:
            taken = 0
        except ConnectionError as error:
            self.abort()
            raise NeverStarted("the worker was gone") from error
        if taken < len(data):
            self._transport.write(data[taken:])

    async def write(self, data: bytes) -> None:
        """More of the request's body; waits while the worker does not read. Raises Died, NeverStarted."""
        if self._failure is not None:
            raise self._failure
        if self._transport is None:
            raise Died("the connection was closed")
        self._transport.write(data)
        await self._writable.wait()

    async def head(self) -> Head:
        """The answer's status and headers. Raises Died, NeverStarted."""
        while self._head is None:
            if self._failure is not None:
                raise self._failure
            await self._news()
        return self._head

    async def read(self) -> bytes:
        """What has come of the answer's body, b"" at its end. Raises Died where it was cut."""
        while not self._chunks:
            if self._complete:
                return b""
            if self._failure is not None:
                raise self._failure
            await self._news()
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._size = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    @property
    def complete(self) -> bool:
        """The whole answer has come (it may not be read yet)."""
        return self._complete

    def finish(self) -> bool:
        """End the exchange; True where the connection can carry another."""
        in_order = self._complete and not self._chunks and self._writable.is_set() and not self._paused
        if in_order and self._usable and self._transport is not None and not self._transport.get_write_buffer_size():
            self._busy = False
            return self.reusable
        self.abort()
        return False

    def spoil(self) -> None:
        """Carry no other exchange: this one's request was not sent whole."""
        self._usable = False

    def abort(self) -> None:
        """Close at once: to the worker it means that the client left."""
        self._usable = False
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if not self._busy or self._complete:
            self.abort()  # nobody asked for this, and nobody shall get it
            return
        if self._head is None:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(Died(f"the worker's answer is not HTTP: {error}"))
            return
        if self._head is None and self._head_bytes > MAX_HEAD:
            self._fail(Died("the worker's answer has no end of its head"))
        self._wake()

    def eof_received(self) -> None:
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self._usable = False
        self._transport = None
        self._writable.set()
        if self._failure is None and not self._complete:
            untouched = self._head is None and self._head_bytes == 0
            if isinstance(exc, ConnectionResetError) and untouched and sys.platform == "linux":
                self._failure = NeverStarted("the worker closed before it read the request")
            else:
                self._failure = Died(
                    "the worker died before it answered" if untouched else "the worker's answer was cut"
                )
        self._wake()
        self._lost(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # httptools

    def on_message_begin(self) -> None:
        if self._complete:  # a second answer in the same bytes: nobody asked for it
            self._usable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._complete:
            return
        self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        if self._complete:
            return
        status = self._parser.get_status_code()
        if status < 200:  # an interim answer says nothing
            self._headers.clear()
        else:
            self._head = Head(status, tuple(self._headers))

    def on_body(self, body: bytes) -> None:
        if self._complete:
            return
        self._chunks.append(body)
        self._size += len(body)
        if self._size > HIGH_WATER and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._head is not None:
            self._complete = True
            self._usable = self._usable and self._parser.should_keep_alive()

    async def _news(self) -> None:
        """Wait for data or the connection's end. One reader at a time."""
        self._reader = self._loop.create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _fail(self, failure: Exception) -> None:
        self._failure = failure
        self.abort()
        self._wake()
