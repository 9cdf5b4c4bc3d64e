"""A worker's connection to its agent: lines out, messages in. It knows no meaning of a message."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Callable, Optional

from sandbox import wire


class Link(asyncio.Protocol):
    """`receive` gets each message, `lost` is called once the other end is gone (not after `close`)."""

    def __init__(self, receive: Callable[[wire.Message], None], lost: Callable[[], None]) -> None:
        self._receive = receive
        self._lost = lost
        self._lines = wire.Lines()
        self._transport: Any = None
        self._ended = asyncio.Event()
        self._closing = False

    def send(self, message: wire.Message) -> None:
        """Send, or drop where nobody is there: what counts is said again by `adopt`."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(wire.encode(message))

    def on_loss(self, lost: Callable[[], None]) -> None:
        """Call this instead, from now on; at once where the other end is already gone."""
        self._lost = lost
        if self._ended.is_set():
            lost()

    async def close(self, patience: float) -> None:
        """Close once everything is written, or after `patience` seconds."""
        self._closing = True
        if self._transport is not None:
            self._transport.close()
            try:
                await asyncio.wait_for(self._ended.wait(), patience)
            except asyncio.TimeoutError:
                self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            messages = self._lines.feed(data)
        except wire.WireError:
            self._transport.abort()
            return
        for message in messages:
            self._receive(message)

    def connection_lost(self, exc: Optional[Exception]) -> None:
        del exc
        self._ended.set()
        if not self._closing:
            self._lost()


def say(channel: socket.socket, message: wire.Message) -> None:
    """Send while no loop runs yet. An agent that died meanwhile is noticed once one does."""
    try:
        channel.sendall(wire.encode(message))
    except OSError:
        return
