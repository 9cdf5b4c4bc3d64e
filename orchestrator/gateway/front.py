"""The listener's side of the fast lane: makes the connections, and ends them when the gateway stops."""

from __future__ import annotations

import asyncio

from orchestrator.gateway.fastlane import Client
from orchestrator.gateway.general import Gateway
from orchestrator.gateway.server import Server


class Front:
    """All connections of one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.loop = asyncio.get_running_loop()
        self.clients: set[Client] = set()
        self.server = Server(gateway.respond, head_deadline=gateway.deadlines.head)
        self._empty: asyncio.Event | None = None

    def connect(self) -> Client:
        """A new connection's protocol."""
        return Client(self)

    def left(self) -> None:
        """A connection has ended."""
        if self._empty is not None and not self.clients:
            self._empty.set()

    async def stop(self, within: float) -> None:
        """Close what is idle, let what is open be answered, cut the rest after `within` seconds."""
        self._empty = asyncio.Event()
        for client in list(self.clients):
            client.finish()
        try:
            async with asyncio.timeout(within):
                if self.clients:
                    await self._empty.wait()
        except TimeoutError:
            for client in list(self.clients):
                client.transport.abort()
        await self.server.shutdown(0)
