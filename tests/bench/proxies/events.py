"""An upstream that answers with an event stream of 1,000 events, each written by itself: `python -m … PATH PORT`."""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

EVENTS = 1000
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"word "},"finish_reason":null}]}\n\n'
CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)


class Stream(asyncio.Protocol):
    """Reads to the end of a request's body by its known length, then streams; the next request after that."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.data = b""
        self.left = 0
        self.paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, end, body = self.data.partition(b"\r\n\r\n")
        if end and (b"chunked" in head or len(body) >= _length(head)):
            self.data = b""
            self.left = EVENTS
            self.transport.write(HEAD)
            self.step()

    def step(self) -> None:
        if self.paused or self.transport.is_closing():
            return
        self.left -= 1
        self.transport.write(CHUNK if self.left else CHUNK + b"0\r\n\r\n")
        if self.left:
            self.loop.call_soon(self.step)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        if self.left:
            self.loop.call_soon(self.step)


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    return 0


async def serve(path: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    unix = await loop.create_unix_server(Stream, path)
    tcp = await loop.create_server(Stream, "127.0.0.1", port)
    await asyncio.gather(unix.serve_forever(), tcp.serve_forever())


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], int(sys.argv[2])))
