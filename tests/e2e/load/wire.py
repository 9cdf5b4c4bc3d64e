"""One client connection, byte for byte: what is sent when, and what comes back. It knows HTTP, no models."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

# A whole answer: longer than any queue or timeout of the product would let a request wait.
DEADLINE = 60.0
_LONGEST_LINE = 4 * 1024 * 1024


class Cut(Exception):  # noqa: N818 (a fact about the answer)
    """The answer ended, or the connection was reset, before all of it had come."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer. closes: the server said that it closes this connection."""

    status: int
    headers: dict[str, str]
    body: bytes
    closes: bool

    @property
    def generation(self) -> int:
        return int(self.headers.get("x-sandbox-generation", 0))


@dataclass(slots=True)
class Connection:
    """A connection to the gateway."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def dial(cls, port: int) -> Connection:
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=_LONGEST_LINE))

    async def send(self, data: bytes) -> None:
        """Raises Cut."""
        try:
            self.writer.write(data)
            async with asyncio.timeout(DEADLINE):
                await self.writer.drain()
        except (OSError, TimeoutError) as error:
            raise Cut(f"while sending: {error!r}") from error

    async def reply(self) -> Reply:
        """The next answer; an interim one (100) has neither body nor headers of interest. Raises Cut."""
        try:
            async with asyncio.timeout(DEADLINE):
                return await self._reply()
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            raise Cut(f"while answering: {error!r}") from error

    async def _reply(self) -> Reply:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        version, status = lines[0].split()[:2]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
        if status.startswith("1"):
            return Reply(int(status), headers, b"", closes=False)
        said = headers.get("connection", "").lower()
        closes = said == "close" or (version == "HTTP/1.0" and said != "keep-alive")
        if headers.get("transfer-encoding") == "chunked":
            body = await self._chunks()
        elif "content-length" in headers:
            body = await self.reader.readexactly(int(headers["content-length"]))
        else:
            body = await self.reader.read()
        return Reply(int(status), headers, body, closes)

    async def _chunks(self) -> bytes:
        pieces = []
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            pieces.append((await self.reader.readexactly(size + 2))[:-2])
        await self.reader.readexactly(2)
        return b"".join(pieces)

    @property
    def ended(self) -> bool:
        """Whether the server has closed it."""
        return self.reader.at_eof() or self.reader.exception() is not None

    def close(self) -> None:
        self.writer.close()
