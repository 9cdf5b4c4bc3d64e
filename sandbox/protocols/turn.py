"""One request on its way through a protocol: its id, its slot, what became of it. It knows no wire format."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
from typing import Any

from sandbox.batching import Batcher
from sandbox.connection import Connection
from sandbox.http import Request
from sandbox.refusal import Refusal
from sandbox.service import Service
from sandbox.slots import Lease

_PRINTABLE = re.compile(r"[!-~](?:[ -~]{0,126}[!-~])?")
_prefix = os.urandom(8).hex()
_count = itertools.count(1)


class Turn:
    """One request and its connection."""

    __slots__ = ("batch", "connection", "id", "request", "waited")

    def __init__(self, request: Request, connection: Connection) -> None:
        self.request = request
        self.connection = connection
        given = request.headers.get("x-request-id")
        self.id = given if given is not None and _PRINTABLE.fullmatch(given) else f"{_prefix}{next(_count):08x}"
        self.waited = 0.0
        self.batch = ""

    @property
    def client(self) -> str:
        """Whom the gateway takes this request to be from; all the same where it does not say."""
        return self.request.headers.get("x-sandbox-client", "")

    @property
    def accepts_events(self) -> bool:
        return "text/event-stream" in self.request.headers.get("accept", "")

    @property
    def queue_header(self) -> str:
        return f"X-Sandbox-Queue-Seconds: {self.waited:.6f}\r\n{self.batch}"

    @property
    def headers(self) -> str:
        """The lines that every answer of a call bears."""
        return f"X-Request-ID: {self.id}\r\n{self.queue_header}"

    async def admit(self, service: Service) -> Lease:
        """Wait for a slot. Raises Refusal QUEUE_FULL or QUEUE_TIMEOUT."""
        if not service.slots.try_acquire():
            self.waited = await service.slots.acquire(self.client)
        return service.begin()

    async def share(self, batcher: Batcher, inputs: Any) -> Any:
        """What came of this request's inputs in a batch. Raises as `Batcher.call`."""
        share = await batcher.call(inputs, self.client)
        self.waited = share.waited
        self.batch = f"X-Sandbox-Batch: {share.place}/{share.size}\r\n"
        return share.value

    def refusal(self, service: Service, error: BaseException) -> Refusal:
        """What to answer where a call ended in `error`. Raises it again where nobody is left to be answered."""
        if isinstance(error, Refusal):
            return error
        if self.connection.gone and isinstance(error, asyncio.CancelledError):
            raise error
        return service.failed(error, self.id)
