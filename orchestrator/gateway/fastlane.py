"""A client's connection: frames requests, gives each to its lane, keeps their order, deadlines and backpressure.

It owns the transport from the first byte to the last; it knows no model and no worker. What is usual becomes an
Exchange (exchange.py), whatever is not goes through aiohttp (inner.py); only a WebSocket keeps the connection for good.

1. A head is framed by its empty line, within MAX_HEAD and a deadline, read strictly (heads.py) and judged (ticket.py).
2. One request at a time: what comes ahead waits in a buffer, and beyond AHEAD in the socket's.
3. A body is cut by its Content-Length, or followed by its chunks (chunks.py).
4. The next request begins when the last byte of the answer was written and the client is not behind in reading.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol, cast

from orchestrator.gateway import cors, heads, wire
from orchestrator.gateway.chunks import Framing
from orchestrator.gateway.deadline import Deadline
from orchestrator.gateway.envelope import Refusal, new_id
from orchestrator.gateway.exchange import Exchange
from orchestrator.gateway.inner import Inner
from orchestrator.gateway.journal import Entry
from orchestrator.gateway.paths import Kind
from orchestrator.gateway.policy import mark_of
from orchestrator.gateway.server import LINGER
from orchestrator.gateway.ticket import MAX_KEPT, Ticket, asked, issue
from orchestrator.gateway.tunnel import Tunnel

if TYPE_CHECKING:
    from orchestrator.gateway.front import Front

# Bytes of later requests that are kept while one is answered.
AHEAD = 64 * 1024
# Written bytes that may wait for a client before it counts as slow.
WRITE_AHEAD = 256 * 1024
_PROBES = ("/health", "/ready")


class Turn(Protocol):
    """Who answers the request that is open."""

    def body(self, data: bytes, last: bool) -> None:
        """More of its body; last: all of it has come."""

    def stalled(self) -> None:
        """The client does not read."""

    def flowing(self) -> None:
        """It reads again."""

    def left(self) -> None:
        """It has gone."""

    def overdue(self) -> None:
        """What was watched took too long."""


class Client(asyncio.Protocol):
    """One connection. address: of the client. tunnels: a WebSocket has it. ending: it takes no further request."""

    __slots__ = (
        *("_advancing", "_buffer", "_deadline", "_framing", "_front", "_gateway", "_in_head", "_left", "_slow"),
        *("_ticket", "_turn", "_unsent", "address", "ending", "held", "loop", "mark", "transport", "tunnels"),
        *("unwatch", "watch"),
    )

    transport: asyncio.Transport

    def __init__(self, front: Front) -> None:
        self.loop = front.loop
        self._front = front
        self._gateway = front.gateway
        self.address: str | None = None
        self.mark = b""
        self.held = False
        self.ending = False
        self.tunnels = False
        self._slow = False
        self._buffer = b""
        self._advancing = False
        self._in_head = False
        self._turn: Turn | None = None
        self._left = 0  # bytes that the open body still lacks
        self._framing: Framing | None = None  # of an open chunked body
        self._ticket: Ticket | None = None
        self._deadline = Deadline(self.loop, self._overdue)
        # The one deadline of what is awaited now; its turn sets it too.
        self.watch = self._deadline.watch
        self.unwatch = self._deadline.unwatch
        self._unsent = 0  # bytes that waited for the client when the connection's end began

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if isinstance(peer, tuple) else None
        self.mark = mark_of(self.address)
        self.transport.set_write_buffer_limits(WRITE_AHEAD)
        self._front.clients.add(self)
        self.watch(self._gateway.deadlines.idle)

    def data_received(self, data: bytes) -> None:
        if self._turn is None:
            if self._buffer or not self._again(data):
                self._advance(self._buffer + data if self._buffer else data)
        elif self.tunnels:
            self._turn.body(data, False)
        elif self._left or self._framing is not None:
            self._more_body(data)
        else:
            self._buffer += data
            if len(self._buffer) > AHEAD:
                self.hold(True)

    def eof_received(self) -> None:
        return None

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._front.clients.discard(self)
        self.ending = True
        self._deadline.close()
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.left()
        self._front.left()

    def pause_writing(self) -> None:
        self._slow = True
        if self._turn is not None:
            self._turn.stalled()
        elif not self.ending:
            self.watch(self._gateway.deadlines.write)

    def resume_writing(self) -> None:
        self._slow = False
        if self._turn is not None:
            self._turn.flowing()
        elif not self.ending:
            self.hold(False)
            self.watch(self._gateway.deadlines.idle)
            self._advance(self._buffer)

    # What a turn does

    def write(self, data: bytes) -> None:
        """To the client, while it is there."""
        self.transport.write(data)

    def hold(self, now: bool) -> None:
        """Stop or resume reading."""
        if now is not self.held and not self.transport.is_closing():
            self.held = now
            if now:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def answered(self, keep: bool) -> None:
        """The open request's last byte was written. keep: another may follow."""
        self._turn = None
        more = bool(self._left or self._buffer) or self._framing is not None
        if keep and not self.ending and not (self._left or self._framing is not None):
            self.watch(self._gateway.deadlines.write if self._slow else self._gateway.deadlines.idle)
            if self._buffer and not self._advancing:
                self._advance(self._buffer)
        elif more:
            self.end()
        else:
            self.ending = True
            self.watch(self._gateway.deadlines.write)
            self.transport.close()

    def abort(self) -> None:
        """Cut the connection: what was written is not whole."""
        self._turn = None
        self.ending = True
        self.transport.abort()

    def end(self) -> None:
        """Take no more requests. What the client still sends is dropped for a while, so that it can read its answer."""
        self.ending = True
        self._buffer = b""
        if not self.transport.is_closing():
            self.hold(False)
            self._unsent = self.transport.get_write_buffer_size()
            self.watch(self._gateway.deadlines.write if self._unsent else LINGER)
            self.transport.write_eof()

    def finish(self) -> None:
        """The gateway stops: close when the open request was answered, now where there is none."""
        if self._turn is None:
            self.ending = True
            self.transport.close()
        elif isinstance(self._turn, Inner):
            self.ending = True
            self._turn.finish()
        else:
            self.ending = True

    # Framing

    def _advance(self, data: bytes) -> None:
        """Begin as many requests as can be answered at once."""
        self._advancing = True
        while data and self._turn is None and not self.ending and not self._slow:
            if data.startswith(b"\r\n"):  # an empty line before a request is passed over (RFC 9112, section 2.2)
                data = data[2:]
            end = data.find(b"\r\n\r\n") + 4
            if end < 4 or end > heads.MAX_HEAD:
                if not self._head_goes_on(data):
                    return
                break
            self._in_head = False
            data = self._open(data, end)
        self._advancing = False
        self._buffer = b"" if self.ending else data
        if len(self._buffer) > AHEAD:
            self.hold(True)

    def _again(self, data: bytes) -> bool:
        """Whether this is one whole request with the head of the last one, and was begun: it is read no second time."""
        ticket, gateway = self._ticket, self._gateway
        if ticket is None or ticket.size != len(data) or not data.startswith(ticket.raw):
            return False
        if ticket.endpoint is None or ticket.policy is not gateway.admission.policy:
            return False
        if self._slow or self.ending or not gateway.routes.synced.is_set():
            return False
        self._turn = exchange = Exchange(self, ticket, ticket.endpoint, gateway)
        exchange.begin(data[len(ticket.raw) :])
        return True

    def _head_goes_on(self, data: bytes) -> bool:
        """The end of this head has not come."""
        try:
            heads.begun(data)
        except Refusal as refusal:
            self._advancing = False
            self._refuse(refusal, "")
            return False
        if not self._in_head and data:
            self._in_head = True
            self.watch(self._gateway.deadlines.head)
        return True

    def _open(self, data: bytes, end: int) -> bytes:
        """Begin the request whose head ends there; what follows it is returned."""
        raw, gateway = data[:end], self._gateway
        ticket = self._ticket
        if ticket is None or raw != ticket.raw or ticket.policy is not gateway.admission.policy:
            try:
                head = heads.read_head(raw)
            except Refusal as refusal:
                self._refuse(refusal, "")
                return b""
            ticket = self._issue(raw, head, len(data) - end)
            if ticket is None:
                return data[end + head.length :]
        head = ticket.head
        if ticket.endpoint is None or not gateway.routes.synced.is_set():
            return self._general(head, data, end)
        self._turn = exchange = Exchange(self, ticket, ticket.endpoint, gateway)
        stop = end + head.length
        if len(data) >= stop:
            exchange.begin(data[end:stop])
            return data[stop:] if len(data) > stop else b""
        self._left = stop - len(data)
        exchange.begin(None)
        if end < len(data) and self._turn is exchange:
            exchange.body(data[end:], False)
        return b""

    def _issue(self, raw: bytes, head: heads.Head, here: int) -> Ticket | None:
        """Judge a head; where it is refused, None, and the answer was written. here: bytes that follow the head."""
        try:
            ticket = issue(raw, head, self._gateway.admission)
        except Refusal as refusal:
            refusal.close = refusal.close or head.length > here or not head.keep_alive
            self._refuse(refusal, head.target, head)
            return None
        self._ticket = ticket if len(raw) <= MAX_KEPT else None
        return ticket

    def _general(self, head: heads.Head, data: bytes, end: int) -> bytes:
        """The request goes through aiohttp, byte for byte."""
        if head.upgrades and self._tunnel(head, data[end:]):
            return b""
        self._turn = inner = Inner(self, self._front.server)
        self.unwatch()
        if head.chunked:
            self._framing = Framing()
            inner.body(data[:end], False)
            return self._more_chunks(inner, data[end:])
        stop = end + head.length
        self._left = max(0, stop - len(data))
        inner.body(data[:stop], not self._left)
        return data[stop:]

    def _tunnel(self, head: heads.Head, early: bytes) -> bool:
        """Whether this was a handshake for a WebSocket of ours, begun or refused; other upgrades are passed over."""
        gateway = self._gateway
        try:
            admitted = gateway.admission.judge(asked(head))
        except Refusal as refusal:
            refusal.close = True
            self._refuse(refusal, head.target, head)
            return True
        if admitted.endpoint.kind is not Kind.WEBSOCKET or not gateway.routes.synced.is_set():
            return False
        self.tunnels = True
        self.unwatch()
        self._turn = tunnel = Tunnel(self, head, gateway, admitted)
        if early:
            tunnel.body(early, False)
        tunnel.begin()
        return True

    def _more_body(self, data: bytes) -> None:
        turn = self._turn
        if turn is None:
            return
        if self._framing is not None:
            self._buffer = self._more_chunks(turn, data)
            return
        piece = data[: self._left]
        self._left -= len(piece)
        self._buffer = data[len(piece) :]
        turn.body(piece, not self._left)

    def _more_chunks(self, turn: Turn, data: bytes) -> bytes:
        """Pass on what is the open body's; what follows it is returned."""
        framing = self._framing
        if framing is None:
            return data
        try:
            taken = framing.feed(data)
        except Refusal as refusal:
            self._broken(turn, refusal)
            return b""
        if framing.done:
            self._framing = None
        turn.body(data[:taken], framing.done)
        return data[taken:]

    def _broken(self, turn: Turn, refusal: Refusal) -> None:
        """The open body makes no sense: nobody is told of it but the client."""
        self._turn = None
        turn.left()
        if isinstance(turn, Inner) and turn.wrote:
            self.abort()
        else:
            self._refuse(refusal, "")

    # Ending

    def _refuse(self, refusal: Refusal, target: str, head: heads.Head | None = None) -> None:
        """What never became a turn."""
        request_id = new_id()
        keep = head is not None and not refusal.close and not self.ending
        origins = self._gateway.admission.policy.origins
        extra = cors.lines(origins, head.fields.get("origin")) if head is not None else b""
        self.write(wire.refusal(refusal, request_id, target, extra, keep))
        path = target.partition("?")[0]
        method = head.method if head is not None else ""
        entry = Entry(request_id, method, target, self.address)
        self._gateway.journal.over(entry, refusal.status, 0.0, counted=path not in _PROBES)
        if not keep:
            self.end()

    def _overdue(self) -> None:
        if self._turn is not None:
            self._turn.overdue()
        elif self._in_head and not self.ending:
            deadline = self._gateway.deadlines.head
            self._refuse(Refusal("REQUEST_TIMEOUT", f"the request's head took over {deadline:g} s", close=True), "")
        elif self.ending and self.transport.get_write_buffer_size() < self._unsent:
            # The client still reads what was written before the end.
            self._unsent = self.transport.get_write_buffer_size()
            self.watch(self._gateway.deadlines.write if self._unsent else LINGER)
        else:
            self.transport.abort()
