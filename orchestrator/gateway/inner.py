"""One request through the aiohttp lane, as an upstream in this process. It reads no byte of the request itself.

aiohttp's protocol gets the bytes from the fast lane, and writes its answer through a transport that stands for the
client's own; the client's connection never changes owner.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from orchestrator.gateway.server import Server

if TYPE_CHECKING:
    from orchestrator.gateway.fastlane import Client


class Inner:
    """A turn of the fast lane's client that aiohttp answers; a fresh handler for each. wrote: an answer has begun."""

    def __init__(self, client: Client, server: Server) -> None:
        self._client = client
        self._door = _Door(self, client)
        self._handler = server()
        self._handler.answered = self._answered
        self.wrote = False
        self._open = True
        self._handler.connection_made(self._door)

    def body(self, data: bytes, last: bool) -> None:  # noqa: ARG002 (aiohttp finds the end itself)
        if self._open:
            self._handler.data_received(data)

    def stalled(self) -> None:
        if self._open:
            self._handler.pause_writing()

    def flowing(self) -> None:
        if self._open:
            self._handler.resume_writing()

    def left(self) -> None:
        self._leave()

    def overdue(self) -> None:
        """Aiohttp keeps its own deadlines."""

    def finish(self) -> None:
        """No request after the one that runs, and none where none runs."""
        if self._open:
            self._handler.close()

    def drop(self) -> None:
        """Let go of the request without an answer."""
        self._leave()

    def _answered(self) -> None:
        if self._open and not self._client.tunnels:
            self._leave()
            self._client.answered(True)

    def _leave(self) -> None:
        if self._open:
            self._open = False
            self._client.hold(False)
            self._handler.connection_lost(None)

    def closing(self) -> None:
        """Aiohttp closes the connection."""
        if self._open:
            self._client.loop.call_soon(self._closed)

    def _closed(self) -> None:
        if self._open:
            self._leave()
            self._client.answered(False)


class _Door(asyncio.Transport):
    """The client's transport as aiohttp sees it."""

    def __init__(self, inner: Inner, client: Client) -> None:
        super().__init__()
        self._inner = inner
        self._client = client
        self._closing = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._client.transport.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self._inner.wrote = True
        self._client.write(bytes(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        self.write(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return self._closing or self._client.transport.is_closing()

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._inner.closing()

    def abort(self) -> None:
        self._client.transport.abort()

    def pause_reading(self) -> None:
        self._client.hold(True)

    def resume_reading(self) -> None:
        self._client.hold(False)

    def is_reading(self) -> bool:
        return not self._client.held

    def get_write_buffer_size(self) -> int:
        return self._client.transport.get_write_buffer_size()
