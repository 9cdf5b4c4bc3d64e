"""One call of a model in the fast lane: from an admitted head to the last byte of its answer, without a task.

It knows its client only as who writes, waits and is told of the end. Steps, each in the event loop's step in which its
cause happened:

1. Collect the body: all of it, or for a path that names the model the first 64 KiB.
2. Claim and send at once, where a worker and a connection to it are at hand; else a task searches (forward.py).
3. Pass on what the client still sends; hold it back while the worker does not read.
4. An answer of up to 64 KiB with a length is awaited whole: its failure is an honest status. Others pass as they come,
   and the worker is held back while the client does not read (its connection stops at 64 KiB that nobody took).
5. What fails before the answer began is refused; after that the client's connection is aborted.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from typing import TYPE_CHECKING

from orchestrator.gateway import wire
from orchestrator.gateway.answers import Head
from orchestrator.gateway.body import CLAIM_AFTER, model_of, too_large
from orchestrator.gateway.envelope import Refusal, new_id
from orchestrator.gateway.forward import Search, died, timed_out
from orchestrator.gateway.journal import Entry
from orchestrator.gateway.metrics import CLIENT_LEFT
from orchestrator.gateway.paths import Endpoint, Kind
from orchestrator.gateway.relay import WHOLE
from orchestrator.gateway.routes import Claim
from orchestrator.gateway.ticket import Ticket
from orchestrator.gateway.upstream import Connection, Died, NeverStarted

if TYPE_CHECKING:
    from orchestrator.gateway.fastlane import Client
    from orchestrator.gateway.general import Gateway

_logger = logging.getLogger(__name__)


class Phase(enum.Enum):
    """What the exchange waits for: the client's body, the worker's answer, the rest of it, nothing."""

    BODY = enum.auto()
    HEAD = enum.auto()
    ANSWER = enum.auto()
    OVER = enum.auto()


class Exchange:
    """One call. It ends with `Client.answered` or `Client.abort`."""

    __slots__ = (
        *("_answer_by", "_blocked", "_body", "_chunked", "_claim", "_client", "_connection", "_data", "_endpoint"),
        *("_gateway", "_lines", "_model", "_phase", "_search", "_stalled", "_started", "_status", "_streams"),
        *("_task", "_ticket", "_whole", "id"),
    )

    def __init__(self, client: Client, ticket: Ticket, endpoint: Endpoint, gateway: Gateway) -> None:
        self._client = client
        self._ticket = ticket
        self._endpoint = endpoint
        self._gateway = gateway
        self._started = client.loop.time()
        self._model = ticket.model
        self._phase = Phase.BODY
        self._body: bytearray | None = None
        self._data = b""  # what was sent, as long as all of it is held
        self._whole = False  # the client has sent all
        self._blocked = False  # the worker does not read
        self._stalled = False  # the client does not read
        self._claim: Claim | None = None
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._search: Search | None = None
        self._lines = ticket.cors
        self._answer_by = 0.0
        self.id = ticket.request_id or new_id()

    # What the client does

    def begin(self, body: bytes | None) -> None:
        """Admit the request. body: all of it, None where it is still to come (then by `body`)."""
        ticket, gateway = self._ticket, self._gateway
        self._whole = body is not None
        try:
            self._lines += gateway.admission.count(self._endpoint, self._client.address, self._started, ticket.key)
            if ticket.head.length > gateway.admission.policy.max_body:
                raise too_large(gateway.admission.policy.max_body)
            if ticket.model:
                gateway.routes.route(ticket.model)
        except Refusal as refusal:
            self._refuse(refusal)
            return
        if body is not None:
            self._send(body)
        else:
            self._body = bytearray()
            self._watch()

    def body(self, data: bytes, last: bool) -> None:
        """More of the body. last: that was all."""
        if self._phase is Phase.OVER or self._body is None:
            return
        self._whole = last
        if self._phase is not Phase.BODY:
            self._pass_on(data)
            return
        self._body += data
        if last or (len(self._body) > CLAIM_AFTER and self._endpoint.kind is Kind.WORKER):
            collected, self._body = bytes(self._body), bytearray()
            self._send(collected)
        else:
            self._watch()

    def stalled(self) -> None:
        """The client does not read what was written."""
        self._stalled = True
        if self._phase is Phase.ANSWER:
            self._watch()

    def flowing(self) -> None:
        """The client reads again."""
        self._stalled = False
        if self._phase is Phase.ANSWER:
            self._watch()
            self.news()

    def left(self) -> None:
        """The client went: the call is cancelled by closing its connection."""
        if self._phase is not Phase.OVER:
            self._over(CLIENT_LEFT)

    def overdue(self) -> None:
        """The deadline that was watched has passed."""
        if self._phase is Phase.ANSWER:
            self._cut("a deadline passed")
        elif self._claim is not None and (self._whole or self._blocked):
            self._refuse(timed_out(self._claim))
        else:
            idle = self._gateway.deadlines.body
            self._refuse(Refusal("REQUEST_TIMEOUT", f"nothing of the body came for {idle:g} s", close=True))

    # What the worker does

    def news(self) -> None:
        connection, claim = self._connection, self._claim
        if connection is None or claim is None:
            return
        if self._phase is Phase.HEAD:
            head = connection.head
            if head is not None and (head.streams or head.length is None or head.length > WHOLE):
                self._begin_answer(head, claim)
            else:
                if head is not None and connection.complete:
                    self._answer(connection, claim, head)
                elif connection.failure is not None:
                    self._failed(connection, claim, connection.failure)
                elif head is not None and not self._answer_by:
                    self._answer_by = self._client.loop.time() + claim.active.route.timeout
                    self._watch()
                return
        if self._phase is Phase.ANSWER and not self._stalled:
            self._relay(connection)

    def writable(self, now: bool) -> None:
        self._blocked = not now
        self._client.hold(self._blocked)
        if self._phase is Phase.HEAD:
            self._watch()

    # Sending

    def _send(self, body: bytes) -> None:
        ticket, forwarder = self._ticket, self._gateway.forwarder
        try:
            if self._endpoint.kind is Kind.WORKER_BY_BODY:
                self._model = model_of(body)
                if ticket.key is not None:
                    ticket.key.require_model(self._model)
                self._gateway.routes.route(self._model)
            self._data = ticket.request(self.id, ticket.mark or self._client.mark, body)
            self._phase = Phase.HEAD
            if self._endpoint.counted:
                self._gateway.recorder.begin(self._model)
            placed = forwarder.at_once(self._model, self._data, self)
        except Refusal as refusal:
            self._refuse(refusal)
            return
        if placed is None:
            self._look()
        else:
            self._claim, self._connection = placed
            self._watch()

    def _look(self) -> None:
        """Nothing was at hand, or what was sent never started: wait, dial, try again."""
        self._client.unwatch()
        self._client.hold(not self._whole)
        self._task = self._client.loop.create_task(self._place())

    async def _place(self) -> None:
        forwarder = self._gateway.forwarder
        try:
            if self._search is None:
                self._search = forwarder.search(self._model)
            self._claim, self._connection = await forwarder.place(self._model, self._data, self, self._search)
        except Refusal as refusal:
            self._refuse(refusal)
        except Exception:
            _logger.exception("request %s failed", self.id)
            self._refuse(Refusal("INTERNAL_ERROR", "the gateway failed", "see its log"))
        else:
            self._task = None
            self._client.hold(self._blocked)
            self._watch()

    def _pass_on(self, data: bytes) -> None:
        """The body's rest, to a worker that has its beginning."""
        self._data = b""
        if self._connection is not None:
            self._blocked = not self._connection.write(data)
            self._client.hold(self._blocked)
            if self._phase is Phase.HEAD:
                self._watch()

    def _watch(self) -> None:
        """Who has the word has a deadline: the client for its body and for reading, else the model."""
        client, deadlines, claim = self._client, self._gateway.deadlines, self._claim
        seconds = deadlines.body
        if claim is not None and (self._whole or self._blocked or self._phase is Phase.ANSWER):
            seconds = claim.active.route.timeout
        if self._answer_by:
            seconds = self._answer_by - client.loop.time()
        if self._stalled:
            seconds = min(deadlines.write, seconds) if self._answer_by else deadlines.write
        client.watch(seconds)

    # Answering

    def _failed(self, connection: Connection, claim: Claim, failure: Exception) -> None:
        """The exchange ended before an answer could be begun."""
        never = isinstance(failure, NeverStarted)
        if never and self._whole and self._data:
            forwarder = self._gateway.forwarder
            self._search = self._search or forwarder.search(self._model)
            forwarder.unstarted(claim, self._search, str(failure))
            forwarder.release(claim, connection)
            self._claim = self._connection = None
            self._look()
            return
        why = failure.why if isinstance(failure, Died) else str(failure)
        self._refuse(died(claim, f"{why}, and the request is no longer held whole" if never else why))

    def _answer(self, connection: Connection, claim: Claim, head: Head) -> None:
        """One write for the whole of a small answer."""
        body = connection.take()
        framing = b"Content-Length: %d\r\n\r\n" % len(body)
        keep = self._keeps()
        self._client.write(self._opening(head, claim, keep) + framing + body)
        self._over(head.status, keep=keep)

    def _begin_answer(self, head: Head, claim: Claim) -> None:
        """The head of an answer that passes as it comes."""
        self._phase = Phase.ANSWER
        self._streams = head.streams
        self._chunked = head.length is None and head.status not in wire.BODYLESS
        framing = wire.streaming(head) if head.streams else b""
        if head.length is not None:
            framing += b"Content-Length: %d\r\n" % head.length
        elif self._chunked:
            framing += b"Transfer-Encoding: chunked\r\n"
        self._answer_by = 0.0 if head.streams else self._client.loop.time() + claim.active.route.timeout
        self._client.write(self._opening(head, claim, self._keeps()) + framing + b"\r\n")
        self._watch()

    def _relay(self, connection: Connection) -> None:
        """Pass on what has come."""
        client, data = self._client, connection.take()
        if data:
            if self._chunked:
                client.write(b"%x\r\n%b\r\n" % (len(data), data))
            else:
                client.write(data)
            if self._streams:
                self._watch()
        if connection.drained:
            if self._chunked:
                client.write(b"0\r\n\r\n")
            self._over(self._status, keep=self._keeps())
        elif connection.failure is not None and not self._stalled:
            self._cut(str(connection.failure))

    def _opening(self, head: Head, claim: Claim, keep: bool) -> bytes:
        """The answer's head but for its framing, and the figures that it brings."""
        self._status = head.status
        if self._endpoint.counted:
            recorder = self._gateway.recorder
            recorder.first_byte(self._model, self._client.loop.time() - self._started)
            recorder.queue_wait(self._model, head.queued)
            recorder.batched(self._model, head.batch)
        return wire.opening(head, claim.active.lines, self.id, self._lines, keep)

    def _keeps(self) -> bool:
        """Whether the client's connection can carry another request after this."""
        return self._whole and self._ticket.head.keep_alive and not self._client.ending

    # Ending

    def _refuse(self, refusal: Refusal) -> None:
        keep = self._keeps() and not refusal.close
        headers = self._lines
        self._client.write(wire.refusal(refusal, self.id, self._ticket.head.target, headers, keep))
        self._over(refusal.status, keep=keep)

    def _cut(self, why: str) -> None:
        """An answer that had begun cannot be finished: the client must not take it for whole."""
        _logger.debug("%s: answer cut: %s", self.id, why)
        self._over(502)

    def _over(self, code: int, *, keep: bool | None = None) -> None:
        """Let go of everything, count, and hand the connection back; it is aborted where `keep` is None."""
        gateway, counted = self._gateway, self._endpoint.counted
        begun = self._phase is not Phase.BODY
        self._phase = Phase.OVER
        claim, connection, task = self._claim, self._connection, self._task
        self._claim = self._connection = self._task = None
        if claim is not None and connection is not None:
            if not self._whole:
                connection.spoil()
            gateway.forwarder.release(claim, connection)
        if task is not None and task is not asyncio.current_task():
            task.cancel()
        if counted and begun:
            gateway.recorder.end(self._model)
        client, head, endpoint = self._client, self._ticket.head, self._endpoint
        generation = claim.active.route.generation if claim is not None else None
        seconds = client.loop.time() - self._started
        if counted:
            gateway.journal.count(self._model, endpoint.path, code, seconds)
        if gateway.journal.writes:
            key = self._ticket.key.name if self._ticket.key is not None else ""
            entry = Entry(
                self.id, head.method, head.target, client.address, self._model, endpoint.path, generation, key
            )
            gateway.journal.write(entry, code, seconds)
        client.hold(False)
        if keep is None:
            client.abort()
        else:
            client.answered(keep)
