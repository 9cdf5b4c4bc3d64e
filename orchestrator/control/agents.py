"""The connection to one replica's agent: dial, greet, read, dial again. It knows messages, not what they mean."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from orchestrator import sockets
from orchestrator.control.stderr import note

VERSION = 1
LONGEST_MESSAGE = 1024 * 1024
FIRST_WAIT = 0.005
LONGEST_WAIT = 0.25

Message = dict[str, Any]


def parsed(line: bytes | str) -> Any:
    """A line of JSON that a model may have written. Lone surrogates, which no UTF-8 has, become question marks.

    Raises ValueError, RecursionError.
    """
    value = json.loads(line)
    if (b"\\ud" if isinstance(line, bytes) else "\\ud") in line.lower():  # type: ignore[operator]
        value = json.loads(json.dumps(value, ensure_ascii=False).encode(errors="replace"))
    return value


class AgentLink:
    """Keeps one connection to `FOLDER/agent.sock`, whose peer must run as `uid`.

    on_message is called with each message; the first after each connection is the agent's `state`. on_lost is called
    when a connection that had answered ends. Nothing is sent while there is none: `send` says so by returning False.
    """

    def __init__(
        self, folder: str, uid: int | None, on_message: Callable[[Message], None], on_lost: Callable[[], None]
    ) -> None:
        self._folder = folder
        self._uid = uid
        self._on_message = on_message
        self._on_lost = on_lost
        self._writer: asyncio.StreamWriter | None = None
        self._closing = False

    @property
    def connected(self) -> bool:
        """Whether the agent answered on the present connection."""
        return self._writer is not None

    def send(self, message: Message) -> bool:
        """Queue one message; False where there is no connection."""
        if self._writer is None or self._writer.is_closing():
            return False
        self._writer.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")
        return True

    async def run(self) -> None:
        """Stay connected until cancelled."""
        wait = FIRST_WAIT
        while True:
            try:
                await self._connection()
                wait = FIRST_WAIT
            except (OSError, sockets.SocketRefused):
                pass  # not there yet, or gone; a refused socket is asked again, for its agent may replace it
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
                # Whoever wrote that may be the model. What is not known now, the next connection's `state` tells.
                note(f"{self._folder}: its agent wrote what cannot be read: {error!r}")
            await asyncio.sleep(wait)
            wait = min(wait * 1.5, LONGEST_WAIT)

    async def _connection(self) -> None:
        connection = sockets.connect(self._folder, "agent.sock", uid=self._uid)
        try:
            reader, writer = await asyncio.open_unix_connection(sock=connection, limit=LONGEST_MESSAGE)
        except BaseException:
            connection.close()
            raise
        try:
            writer.write(json.dumps({"type": "hello", "version": VERSION}).encode() + b"\n")
            while line := await reader.readline():
                message = parsed(line)
                if self._writer is None and message.get("type") == "state":
                    self._writer = writer
                self._on_message(message)
        finally:
            writer.transport.abort()  # nothing that is still unsent could be acted on any more
            if self._writer is writer:
                self._writer = None
                self._on_lost()
