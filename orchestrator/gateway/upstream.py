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
from collections.abc import Callable, Iterable
from typing import Protocol, cast

import httptools

from orchestrator.gateway.answers import Head, usual

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


def request_head(method: str, path: str, headers: Iterable[Header], host: str = "worker") -> bytes:
    """The bytes of a request's head. Values come from parsed requests: they hold no line breaks."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")


class Reader(Protocol):
    """Who asked. Both are called in the event loop's step in which it happened, and must not raise."""

    def news(self) -> None:
        """More of the answer has come, its end has, or the exchange failed: look at the connection."""

    def writable(self, now: bool) -> None:
        """Whether the worker takes more of the request's body."""


class Connection(asyncio.Protocol):
    """One connection to one worker. Used by one exchange at a time: send, (write…), then `news` and `take` to the end.

    head: the answer's, once it has come. complete: the whole answer has come (it may not be taken yet).
    failure: Died or NeverStarted, where the exchange ended otherwise.
    upgraded: the worker changed to another protocol, as it was asked: what comes and goes are that protocol's bytes.
    """

    __slots__ = (
        *("_busy", "_chunks", "_head_bytes", "_left", "_lines", "_lost", "_parser", "_paused", "_reader", "_size"),
        *("_sock", "_transport", "_upgrades", "_usable", "_writable", "complete", "failure", "head", "upgraded"),
    )

    def __init__(self, sock: socket.socket, lost: Callable[[Connection], None]) -> None:
        self._sock = sock
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._reader: Reader | None = None
        self._busy = False
        self._usable = True
        self._writable = True
        self._upgrades = False
        self.upgraded = False
        self._paused = False
        self._chunks: list[bytes] = []
        self._size = 0
        self._begin()

    def _begin(self) -> None:
        self._lines: list[bytes] = []
        self._head_bytes = 0
        self._left = -1  # bytes of the body that still come, where its length alone frames it
        self.head: Head | None = None
        self.complete = False
        self.failure: Exception | None = None

    @property
    def reusable(self) -> bool:
        """Idle, in order and open."""
        transport = self._transport
        return self._usable and not self._busy and transport is not None and not transport.is_closing()

    def send(self, data: bytes, reader: Reader, *, upgrades: bool = False) -> None:
        """Begin an exchange with its head and what is at hand of its body. Raises NeverStarted.

        upgrades: the head asks for another protocol; a connection that got it carries nothing else.
        """
        self._upgrades = upgrades
        transport = self._transport
        if not self._usable or self._busy or transport is None or transport.is_closing():
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
        self._reader = reader
        if taken < len(data):
            transport.write(data[taken:])

    def write(self, data: bytes) -> bool:
        """More of the request's body; False where the worker does not read: wait for `writable`."""
        if self._transport is not None:
            self._transport.write(data)
        return self._writable

    def take(self) -> bytes:
        """What has come of the answer's body and was not taken yet."""
        chunks = self._chunks
        if not chunks:
            return b""
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._size = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    @property
    def drained(self) -> bool:
        """The whole answer has come and was taken."""
        return self.complete and not self._chunks

    def finish(self) -> bool:
        """End the exchange; True where the connection can carry another."""
        self._reader = None
        transport = self._transport
        in_order = self._usable and self.complete and not self._chunks and self._writable and not self._paused
        if in_order and transport is not None and not transport.get_write_buffer_size():
            self._busy = False
            return not transport.is_closing()
        self.abort()
        return False

    def spoil(self) -> None:
        """Carry no other exchange: this one's request was not sent whole."""
        self._usable = False

    def abort(self) -> None:
        """Close at once: to the worker it means that the client left. Nobody is told."""
        self._usable = False
        self._reader = None
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if not self._busy or self.complete:
            self.abort()  # nobody asked for this, and nobody shall get it
            return
        if self._left >= 0:
            self._body(data)
        elif self._head_bytes or (found := usual(data)) is None:
            if not self._parse(data):
                return
        else:
            self.head, end = found
            self._head_bytes = end
            self._left = self.head.length or 0
            self._body(data[end:])
        if self._reader is not None:
            self._reader.news()

    def _body(self, data: bytes) -> None:
        """Bytes of a body whose length is known."""
        left = self._left
        if len(data) > left:  # more than was announced: nobody asked for it
            self._usable = False
            data = data[:left]
        self._left = left - len(data)
        if data:
            self._keep(data)
        if not self._left:
            self.complete = True

    def _parse(self, data: bytes) -> bool:
        """Bytes of an answer that is not of the usual form."""
        if self.head is None:
            self._head_bytes += len(data)
        try:
            if self.upgraded:
                self.on_body(data)
            else:
                self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as switch:
            self._switch(data[int(switch.args[0]) :])
            return False
        except httptools.HttpParserError as error:
            self._fail(Died(f"the worker's answer is not HTTP: {error}"))
            return False
        if self.head is None and self._head_bytes > MAX_HEAD:
            self._fail(Died("the worker's answer has no end of its head"))
            return False
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._usable = False
        self._transport = None
        if self.failure is None and not self.complete:
            untouched = self.head is None and self._head_bytes == 0
            if isinstance(exc, ConnectionResetError) and untouched and sys.platform == "linux":
                self.failure = NeverStarted("the worker closed before it read the request")
            else:
                self.failure = Died(
                    "the worker died before it answered" if untouched else "the worker's answer was cut"
                )
        self._lost(self)
        if self._reader is not None:
            self._reader.writable(True)
        if self._reader is not None:
            self._reader.news()

    def pause_writing(self) -> None:
        self._writable = False
        if self._reader is not None:
            self._reader.writable(False)

    def resume_writing(self) -> None:
        self._writable = True
        if self._reader is not None:
            self._reader.writable(True)

    # httptools

    def on_message_begin(self) -> None:
        if self.complete:  # a second answer in the same bytes: nobody asked for it
            self._usable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.complete:
            self._lines.append(b"%b: %b\r\n" % (name, value))

    def on_headers_complete(self) -> None:
        if self.complete:
            return
        status = self._parser.get_status_code()
        if status < 200 and not (status == 101 and self._upgrades):  # an interim answer says nothing
            self._lines.clear()
        else:
            self.head = Head(status, self._lines)

    def on_body(self, body: bytes) -> None:
        if not self.complete:
            self._keep(body)

    def _keep(self, body: bytes) -> None:
        self._chunks.append(body)
        self._size += len(body)
        if self._size > HIGH_WATER and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self.head is not None and self.head.status != 101:
            self.complete = True
            self._usable = self._usable and self._parser.should_keep_alive()

    def _switch(self, data: bytes) -> None:
        """The worker's answer was 101; data: what it sent after it."""
        if not self._upgrades or self.head is None:
            self._fail(Died("the worker changed the protocol unasked"))
            return
        self.upgraded = True
        self._usable = False
        if data:
            self.on_body(data)
        if self._reader is not None:
            self._reader.news()

    def _fail(self, failure: Exception) -> None:
        reader = self._reader
        self.failure = failure
        self.abort()
        if reader is not None:
            reader.news()
