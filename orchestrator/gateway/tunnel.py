"""A WebSocket between a client and a worker: one handshake, then bytes both ways until either side ends it.

It reads no frame: both ends do. The claim lasts as long as the connection, so a reload lets it go on with the
generation it began with until the drain deadline, where the worker closes it with 1012.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from orchestrator.gateway import wire
from orchestrator.gateway.admission import Admitted
from orchestrator.gateway.envelope import Refusal, request_id
from orchestrator.gateway.forward import died, timed_out
from orchestrator.gateway.heads import Head as RequestHead
from orchestrator.gateway.journal import Entry
from orchestrator.gateway.metrics import CLIENT_LEFT
from orchestrator.gateway.policy import mark_of_key
from orchestrator.gateway.routes import Claim
from orchestrator.gateway.upstream import Connection, request_head

if TYPE_CHECKING:
    from orchestrator.gateway.fastlane import Client
    from orchestrator.gateway.general import Gateway

# What a client may send before the worker has answered the handshake.
EARLY = 64 * 1024
_PASSED = ("sec-websocket-key", "sec-websocket-version")


class Tunnel:
    """A turn of the fast lane's client that ends with its connection."""

    def __init__(self, client: Client, head: RequestHead, gateway: Gateway, admitted: Admitted) -> None:
        self._client = client
        self._gateway = gateway
        self._endpoint = admitted.endpoint
        self._model = admitted.model
        self._key = admitted.key
        self._head = head
        self._started = client.loop.time()
        self._claim: Claim | None = None
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._early = bytearray()
        self._stalled = False
        self._open = True
        self._code = CLIENT_LEFT
        self.id = request_id(head.fields.get("x-request-id"))

    def begin(self) -> None:
        """Admit it, and look for a worker."""
        gateway = self._gateway
        try:
            gateway.admission.count(self._endpoint, self._client.address, self._started, self._key)
            gateway.routes.route(self._model)
        except Refusal as refusal:
            self._refuse(refusal)
            return
        gateway.recorder.begin(self._model)
        self._task = self._client.loop.create_task(self._handshake())

    # What the client does

    def body(self, data: bytes, last: bool) -> None:  # noqa: ARG002 (a WebSocket has no last byte)
        """Bytes for the worker."""
        if self._connection is not None and self._connection.upgraded:
            if not self._connection.write(data):
                self._client.hold(True)
            return
        self._early += data
        if len(self._early) > EARLY:
            self._client.hold(True)

    def stalled(self) -> None:
        """The client does not read: the worker is held back by its connection, which stops at 64 KiB."""
        self._stalled = True

    def flowing(self) -> None:
        """It reads again."""
        self._stalled = False
        self.news()

    def left(self) -> None:
        """It has gone."""
        self._close()

    def overdue(self) -> None:
        """The handshake took too long."""
        if self._claim is not None:
            self._refuse(timed_out(self._claim))

    # What the worker does

    def writable(self, now: bool) -> None:
        """Whether the worker takes more."""
        if self._open:
            self._client.hold(not now)

    def news(self) -> None:
        """Something came from the worker, or its end has."""
        connection, claim = self._connection, self._claim
        if not self._open or connection is None or claim is None:
            return
        if not connection.upgraded:
            if connection.head is not None or connection.failure is not None:
                self._refuse(_why_not(connection, claim))
            return
        if self._code != 101 and connection.head is not None:
            self._begin_relay(connection, claim)
        if self._stalled:
            return
        data = connection.take()
        if data:
            self._client.write(data)
        if connection.failure is not None:
            self._close()
            self._client.answered(False)

    async def _handshake(self) -> None:
        fields = self._head.fields
        passed = [(name.title(), fields[name]) for name in _PASSED if name in fields]
        mark = self._client.mark if self._key is None else mark_of_key(self._key)
        ours = [("X-Request-ID", self.id), ("X-Sandbox-Client", mark.decode())]
        asked = [("Upgrade", "websocket"), ("Connection", "Upgrade"), *passed, *ours]
        data = request_head("GET", self._endpoint.upstream, asked)
        forwarder = self._gateway.forwarder
        try:
            search = forwarder.search(self._model)
            claim, connection = await forwarder.place(self._model, data, self, search, upgrades=True)
        except Refusal as refusal:
            self._refuse(refusal)
            return
        self._claim, self._connection = claim, connection
        self._client.watch(claim.active.route.timeout)
        self.news()

    def _begin_relay(self, connection: Connection, claim: Claim) -> None:
        """The worker agreed."""
        self._code = 101
        self._client.unwatch()
        if connection.head is not None:
            self._client.write(wire.upgraded(connection.head, claim.active.lines, self.id))
        early, self._early = bytes(self._early), bytearray()
        self._client.hold(bool(early) and not connection.write(early))

    # Ending

    def _refuse(self, refusal: Refusal) -> None:
        self._code = refusal.status
        self._close()
        self._client.write(wire.refusal(refusal, self.id, self._head.target, b"", False))
        self._client.tunnels = False
        self._client.answered(False)

    def _close(self) -> None:
        """Let go of everything, and count."""
        if not self._open:
            return
        self._open = False
        gateway, claim = self._gateway, self._claim
        if self._task is not None:
            gateway.recorder.end(self._model)
            if self._task is not asyncio.current_task():
                self._task.cancel()
        if claim is not None and self._connection is not None:
            self._connection.abort()
            gateway.forwarder.release(claim, self._connection)
        generation = claim.active.route.generation if claim is not None else None
        address, path = self._client.address, self._endpoint.path
        key = self._key.name if self._key is not None else ""
        entry = Entry(self.id, "GET", self._head.target, address, self._model, path, generation, key)
        gateway.journal.over(entry, self._code, self._client.loop.time() - self._started)


def _why_not(connection: Connection, claim: Claim) -> Refusal:
    """A handshake that the worker did not agree to."""
    if connection.head is None:
        return died(claim, str(connection.failure))
    return Refusal(
        "INVALID_REQUEST", "this is no WebSocket handshake", "RFC 6455: version 13 and a key of sixteen bytes"
    )
