"""An answer as server-sent events, begun as late as possible so that an early failure still has its own status."""

from __future__ import annotations

import asyncio
from typing import Optional

from sandbox import result
from sandbox.connection import Connection

_PING = 15.0


class EventStream:
    """Writes events to a connection. While the model is silent, comments keep the stream alive."""

    def __init__(self, connection: Connection, headers: str) -> None:
        self._connection = connection
        self._headers = (
            f"Content-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n"
            f"X-Accel-Buffering: no\r\n{headers}"
        )
        self.begun = False
        self._timer: Optional[asyncio.TimerHandle] = None
        self._rest()

    async def send(self, data: str, event: str = "") -> None:
        """Send one event. data: one line of JSON text."""
        self._begin()
        name = f"event: {event}\n" if event else ""
        self._connection.write(f"{name}data: ".encode() + result.encode(data) + b"\n\n")
        self._rest()
        await self._connection.writable()

    def end(self) -> None:
        """End the stream cleanly."""
        self._begin()
        self._connection.end()

    def close(self) -> None:
        """Stop the comments; the owner calls it whatever happened."""
        if self._timer is not None:
            self._timer.cancel()

    def _begin(self) -> None:
        if not self.begun:
            self.begun = True
            self._connection.begin(200, self._headers)

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(_PING, self._ping)

    def _ping(self) -> None:
        self._begin()
        self._connection.write(b": ping\n\n")
        self._rest()
