"""A worker's answer for who awaits it: the pages and the aiohttp lane. It knows one connection and no client."""

from __future__ import annotations

import asyncio

from orchestrator.gateway.answers import Head
from orchestrator.gateway.upstream import Connection


class Awaited:
    """The reader of one exchange: (`write`…), `head`, then `read` until b"". One waiter at a time."""

    connection: Connection  # set once it is known

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._room = asyncio.Event()
        self._room.set()

    async def write(self, data: bytes) -> None:
        """More of the request's body; waits while the worker does not read. Raises Died, NeverStarted."""
        if self.connection.failure is not None:
            raise self.connection.failure
        if not self.connection.write(data):
            await self._room.wait()

    async def head(self) -> Head:
        """The answer's status and headers. Raises Died, NeverStarted."""
        while self.connection.head is None:
            await self._more()
        return self.connection.head

    async def read(self) -> bytes:
        """What has come of the answer's body, b"" at its end. Raises Died where it was cut."""
        while not (data := self.connection.take()):
            if self.connection.complete:
                return b""
            await self._more()
        return data

    async def _more(self) -> None:
        if self.connection.failure is not None:
            raise self.connection.failure
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def news(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def writable(self, now: bool) -> None:
        if now:
            self._room.set()
        else:
            self._room.clear()
