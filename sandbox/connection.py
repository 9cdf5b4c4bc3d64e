"""One connection of a worker: reads requests, runs one at a time, writes answers. It knows no route and no model."""

from __future__ import annotations

import asyncio
import sys
import traceback
from http import HTTPStatus
from typing import Any, Awaitable, Callable, Dict, Optional, Protocol

from sandbox.http import BadRequestError, Parser, Request

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
# Answers that have no body, and say nothing of its length (RFC 9110, sections 15.3.5 and 15.4.5).
BODILESS = frozenset((204, 304))
# What a client may send ahead while its request runs; beyond it the socket's own buffer has to do.
_AHEAD = 256 * 1024

App = Callable[[Request, "Connection"], Awaitable[None]]
Closed = Callable[["Connection"], None]


class Receiver(Protocol):
    """Who has the bytes of a connection that was upgraded."""

    def feed(self, data: bytes) -> None:
        """Take bytes from the client."""

    def cut(self) -> None:
        """End at once, with a word of why."""


class Connection(asyncio.Protocol):
    """Calls `app` for each request. The client's leaving cancels the call; we never close an idle connection first."""

    __slots__ = ("_app", "_closed", "_drained", "_parser", "_receiver", "_task", "_transport", "keep_alive")

    def __init__(self, app: App, closed: Closed) -> None:
        self._app = app
        self._closed = closed
        self._parser = Parser()
        self._transport: Any = None
        self._task: Optional[asyncio.Task[None]] = None
        self._drained: Optional[asyncio.Event] = None  # while the client reads more slowly than we write
        self._receiver: Optional[Receiver] = None
        self.keep_alive = True

    @property
    def busy(self) -> bool:
        """Whether a request runs, one has begun to arrive, or an answer is not yet written whole."""
        unwritten = self._transport is not None and self._transport.get_write_buffer_size() > 0
        return self._task is not None or self._parser.buffered > 0 or unwritten

    @property
    def gone(self) -> bool:
        """Whether the client has left."""
        return self._transport is None or bool(self._transport.is_closing())

    def abort(self) -> None:
        """Close at once, in the middle of whatever it does: the client sees a cut, never a clean end."""
        if self._transport is not None:
            self._transport.abort()

    def cut(self) -> None:
        """End whatever it does, the polite way where its protocol has one."""
        if self._receiver is not None:
            self._receiver.cut()
        else:
            self.abort()

    def upgrade(self, headers: str, receiver: Receiver) -> None:
        """Change to WebSocket: from here on bytes go to `receiver`, and `send` writes them as they are."""
        self._receiver = receiver
        self.keep_alive = False
        head = f"{_STATUS_LINES[101]}Upgrade: websocket\r\nConnection: Upgrade\r\n{headers}\r\n"
        self._transport.write(head.encode("latin-1"))
        ahead = self._parser.take_rest()
        if ahead:
            receiver.feed(ahead)

    def send(self, data: bytes) -> None:
        """After `upgrade`: write bytes. Whoever may write much awaits `writable` after it."""
        self._transport.write(data)

    def hold(self) -> None:
        """Read nothing more until `go_on`."""
        if not self.gone:
            self._transport.pause_reading()

    def go_on(self) -> None:
        """Read again."""
        if not self.gone:
            self._transport.resume_reading()

    def respond(self, status: int, headers: str, body: bytes) -> None:
        """Write a whole answer. headers: lines that end in CRLF, Content-Length left out."""
        length = "" if status in BODILESS else f"Content-Length: {len(body)}\r\n"
        head = f"{_status_line(status)}{headers}{length}{self._connection_field()}\r\n"
        self._transport.write(head.encode("latin-1") + (b"" if status in BODILESS else body))

    def begin(self, status: int, headers: str) -> None:
        """Write the head of an answer whose length is not known; `write` and `end` follow."""
        head = f"{_status_line(status)}{headers}Transfer-Encoding: chunked\r\n{self._connection_field()}\r\n"
        self._transport.write(head.encode("latin-1"))

    def write(self, data: bytes) -> None:
        """Write one piece of what `begin` began. Whoever may write much awaits `writable` after it."""
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    async def writable(self) -> None:
        """Wait while the client reads more slowly than we write; in any case let the loop turn.

        A model that yields without ever awaiting would starve everyone else, and never learn that its client left.
        """
        if self._drained is not None and not self.gone:
            await self._drained.wait()
        else:
            await asyncio.sleep(0)

    def end(self) -> None:
        """End what `begin` began."""
        self._transport.write(b"0\r\n\r\n")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._receiver is not None:
            self._receiver.feed(data)
            return
        self._parser.feed(data)
        if self._task is None:
            self._advance()
        elif self._parser.buffered > _AHEAD:
            self._transport.pause_reading()

    def connection_lost(self, exc: Optional[Exception]) -> None:
        del exc
        self.resume_writing()
        if self._task is not None:
            self._task.cancel()
        self._closed(self)

    def pause_writing(self) -> None:
        self._drained = asyncio.Event()

    def resume_writing(self) -> None:
        if self._drained is not None:
            self._drained.set()
            self._drained = None

    def _advance(self) -> None:
        """Start the next request, if one is complete."""
        try:
            request = self._parser.next_request()
        except BadRequestError as error:
            self._refuse(error)
            return
        if request is not None:
            self.keep_alive = request.keep_alive
            self._task = asyncio.get_running_loop().create_task(self._serve(request))
        elif self._parser.wants_continue:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def _serve(self, request: Request) -> None:
        try:
            await self._app(request, self)
        except Exception:  # noqa: BLE001 - a bug of ours, after its routes had their chance to answer: no clean end for the client
            traceback.print_exc(file=sys.stderr)
            self.abort()
        finally:
            self._task = None
        if not self.keep_alive:
            self._transport.close()
        elif not self._transport.is_closing():
            self._transport.resume_reading()
            if self._parser.buffered:
                self._advance()

    def _refuse(self, error: BadRequestError) -> None:
        self.keep_alive = False
        self.respond(400, "Content-Type: text/plain; charset=utf-8\r\n", f"{error}\n".encode())
        self._transport.close()

    def _connection_field(self) -> str:
        return "" if self.keep_alive else "Connection: close\r\n"


def fields(values: Dict[str, str]) -> str:
    """Header lines. Values are ours, or checked to be printable, before they come here."""
    return "".join(f"{name}: {value}\r\n" for name, value in values.items())


def _status_line(status: int) -> str:
    return _STATUS_LINES.get(status) or f"HTTP/1.1 {status} \r\n"
