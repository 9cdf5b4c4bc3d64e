"""The gateway's neighbours, played by scripts over real sockets: workers, control, clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import ClassVar

from aiohttp import web

from orchestrator.gateway import process
from orchestrator.gateway.general import Gateway
from orchestrator.gateway.server import Server

DEADLINE = 20.0


@contextlib.asynccontextmanager
async def general(gateway: Gateway, listener: socket.socket) -> AsyncIterator[None]:
    """aiohttp's lane alone on the listener, without the fast lane before it."""
    runner = web.ServerRunner(Server(gateway.respond, head_deadline=gateway.deadlines.head), shutdown_timeout=30)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    yield
    await runner.cleanup()


# For a module whose tests both lanes must pass alike: `LANES = BOTH`.
BOTH = (process.fast, general)


@dataclass
class Request:
    """What a worker read."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Peer:
    """A worker's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def head(self) -> Request:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = lines[0].split(" ")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
        return Request(method, path, headers, b"")

    async def request(self) -> Request:
        request = await self.head()
        if request.headers.get("transfer-encoding") == "chunked":
            while size := int(await self.reader.readline(), 16):
                request.body += await self.reader.readexactly(size)
                await self.reader.readexactly(2)
            await self.reader.readexactly(2)
        else:
            request.body = await self.reader.readexactly(int(request.headers.get("content-length", 0)))
        return request

    def answer(self, body: bytes | dict = b"{}", status: int = 200, headers: str = "") -> None:
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        self.writer.write(
            f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n{headers}\r\n".encode()
            + data
        )

    def stream_head(self) -> None:
        self.writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")

    def chunk(self, data: bytes) -> None:
        self.writer.write(b"%x\r\n%b\r\n" % (len(data), data))

    async def left(self) -> None:
        """Return once the gateway has closed the connection."""
        with contextlib.suppress(OSError):
            while await self.reader.read(65536):
                pass


Script = Callable[[Request, Peer], Awaitable[None]]


async def echo(request: Request, peer: Peer) -> None:
    peer.answer({"path": request.path, "got": request.body.decode("latin-1")})


def says(word: str) -> Script:
    async def script(request: Request, peer: Peer) -> None:
        peer.answer({"said": word})

    return script


class Worker:
    """A worker on a unix socket. connection: replaces the loop of requests for scripts that need the bare connection."""

    def __init__(
        self,
        directory: str,
        name: str,
        script: Script = echo,
        connection: Callable[[Peer], Awaitable[None]] | None = None,
    ) -> None:
        self.directory, self.name = directory, name
        self.script, self.connection = script, connection
        self.requests: list[Request] = []
        self.peers: list[Peer] = []
        self.ended = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def path(self) -> str:
        return os.path.join(self.directory, self.name)

    async def start(self) -> Worker:
        self._server = await asyncio.start_unix_server(self._accept, self.path)
        return self

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self.peers.append(peer)
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            if self.connection is not None:
                await self.connection(peer)
                return
            while True:
                request = await peer.request()
                self.requests.append(request)
                await self.script(request, peer)
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            pass
        finally:
            self.ended += 1
            self._tasks.discard(task)
            writer.close()

    async def stop(self) -> None:
        """Die: listener and connections go."""
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for peer in self.peers:
            peer.writer.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)

    def upstream(self) -> dict:
        return {"id": self.name, "directory": self.directory, "socket": self.name, "uid": os.getuid()}


def route(*workers: Worker, generation: int | None = 1, state: str = "running", **more) -> dict:
    """A Route as control writes it."""
    return {
        "state": state,
        "generation": generation,
        "content": f"{generation or 0:064x}",
        "upstreams": [worker.upstream() for worker in workers],
        "reason": None,
        "error": None,
        "timeout": 20.0,
        "queue_timeout": 20.0,
        "info": {"version": "1.0"},
        **more,
    }


class Control:
    """Control's end of traffic.sock."""

    def __init__(self, state: str) -> None:
        self.state = state
        self.received: asyncio.Queue[dict] = asyncio.Queue()
        self.suspects: list[tuple[str, str]] = []
        self.unasked: asyncio.Queue[dict] = asyncio.Queue()
        self._connected = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None
        self._seq = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> Control:
        self._server = await asyncio.start_unix_server(
            self._accept, os.path.join(self.state, "traffic.sock"), limit=2**20
        )
        return self

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.current_task())
        try:
            while line := await reader.readline():
                self._receive(json.loads(line), writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    def _receive(self, message: dict, writer: asyncio.StreamWriter) -> None:
        match message["type"]:
            case "hello":
                self.hello = message
                self._writer = writer
                self._connected.set()
            case "suspect":
                self.suspects.append((message["model"], message["socket"]))
            case "metrics" if message["seq"] is None:
                self.unasked.put_nowait(message)
            case _:
                self.received.put_nowait(message)

    async def stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def tell(self, kind: str, **fields) -> dict:
        """Send and return the confirmation."""
        async with asyncio.timeout(DEADLINE):
            await self._connected.wait()
            self._seq += 1
            self._writer.write(json.dumps({"type": kind, "seq": self._seq, **fields}).encode() + b"\n")
            while True:
                message = await self.received.get()
                if message["seq"] == self._seq:
                    return message

    async def sync(self, models: dict, **policy) -> None:
        await self.tell("sync", models=models, policy=policy)

    async def route(self, model: str, to: dict | None) -> None:
        await self.tell("route", model=model, route=to)

    async def vanish(self) -> None:
        await self.stop()
        os.unlink(os.path.join(self.state, "traffic.sock"))


@dataclass
class Reply:
    """What a client read. whole: False where the connection ended before the answer did."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    whole: bool = True
    chunks: list[bytes] = field(default_factory=list)

    @property
    def json(self) -> dict:
        return json.loads(self.body)


class Client:
    """One raw connection to the gateway."""

    opened: ClassVar[list[Client]] = []  # conftest.py closes what a test left open

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.opened.append(self)

    @classmethod
    async def dial(cls, port: int) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    def send(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> None:
        fields = {"Host": "localhost", **(headers or {})}
        if body is not None and "Transfer-Encoding" not in fields:
            fields.setdefault("Content-Length", str(len(body)))
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.writer.write(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + (body or b""))

    async def head(self) -> Reply:
        async with asyncio.timeout(DEADLINE):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
        return Reply(int(lines[0].split(" ")[1]), headers)

    async def chunk(self) -> bytes:
        async with asyncio.timeout(DEADLINE):
            size = int(await self.reader.readline(), 16)
            return (await self.reader.readexactly(size + 2))[:-2]

    async def reply(self, method: str = "GET") -> Reply:
        reply = await self.head()
        try:
            async with asyncio.timeout(DEADLINE):
                if reply.headers.get("transfer-encoding") == "chunked":
                    while chunk := await self.chunk():
                        reply.chunks.append(chunk)
                    reply.body = b"".join(reply.chunks)
                elif method != "HEAD" and "content-length" in reply.headers:
                    reply.body = await self.reader.readexactly(int(reply.headers["content-length"]))
                elif method != "HEAD":
                    reply.body = await self.reader.read()
        except (asyncio.IncompleteReadError, OSError, ValueError):
            reply.whole = False
        return reply

    async def closed(self) -> bool:
        """Whether the gateway closes the connection."""
        async with asyncio.timeout(DEADLINE):
            try:
                return await self.reader.read() == b""
            except ConnectionError:
                return True

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SOL_SOCKET, SO_LINGER
        self.writer.close()


async def ask(
    port: int, method: str, path: str, body: bytes | dict | None = None, headers: dict[str, str] | None = None
) -> Reply:
    """One request on a connection of its own."""
    client = await Client.dial(port)
    try:
        client.send(method, path, json.dumps(body).encode() if isinstance(body, dict) else body, headers)
        return await client.reply(method)
    finally:
        client.close()


async def raw(port: int, data: bytes) -> Reply:
    """Bytes as they are; the first answer."""
    client = await Client.dial(port)
    try:
        client.writer.write(data)
        return await client.reply()
    finally:
        client.close()


async def until(condition: Callable[[], object]) -> None:
    """Wait, in steps of the event loop, until something has come true."""
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 (what is watched are the fakes' plain lists)
            await asyncio.sleep(0.002)
