"""The clients of the load: each kind sends in its own way, at its own pace, for as long as the load runs.

The load runs in a thread of its own, with one event loop for clients and for the events that acknowledge reloads, so
that what was acknowledged before a request was sent is known exactly.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.load import model
from tests.e2e.load.wire import Connection, Cut, Reply

STARTS_WITHIN = 60.0
# No two requests of a test run have one id.
_NUMBERS = itertools.count()
# A client that met a fault does not hammer at it.
AFTER_FAULT = 0.1


@dataclass(frozen=True, slots=True)
class Kind:
    """Clients of one kind. every: seconds from one request of a client to its next, if that is over by then.

    size: characters of text that go there and back; wait: seconds that the model takes.
    """

    name: str
    clients: int
    every: float
    size: int = 100
    wait: float = 0.0
    keep: bool = True
    expect: bool = False
    version: str = "1.1"
    stream: bool = False


# About 400 requests a second: two cores carry them and the reloads with room to breathe, yet there is no moment
# without requests on their way.
MIX = (
    Kind("keep-alive", 64, every=0.25),
    Kind("stream", 8, every=0.0, stream=True),
    Kind("large", 2, every=1.0, size=1_000_000),
    Kind("slow", 8, every=0.0, wait=0.3),
    Kind("fresh", 4, every=0.1, keep=False),
    Kind("http-1.0", 2, every=0.1, version="1.0", keep=False),
    Kind("expect", 2, every=0.1, expect=True),
    Kind("expect-large", 1, every=0.5, expect=True, size=200_000),
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One request. sent: just before its first byte; status 0: no whole answer; version: of the code that answered.

    fault: what is wrong with the answer, empty where nothing is.
    """

    id: str
    kind: str
    sent: float
    done: float
    status: int
    generation: int = 0
    version: int = 0
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A reload event that said ok, and when it had reached us."""

    at: float
    generation: int


@dataclass(slots=True)
class Load:
    """All clients on one model. Samples are complete once the `with` block of `running` is left.

    events: control's socket, where a sandbox's events are to be had; path: where the model is called.
    """

    port: int
    events: Path | None = None
    mix: Sequence[Kind] = MIX
    samples: list[Sample] = field(default_factory=list)
    acknowledged: list[Acknowledged] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    _under_way: threading.Event = field(default_factory=threading.Event)
    _loop: asyncio.AbstractEventLoop | None = None
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _error: BaseException | None = None

    @contextmanager
    def running(self) -> Iterator[Load]:
        thread = threading.Thread(target=self._thread, name="load")
        thread.start()
        try:
            assert self._under_way.wait(STARTS_WITHIN), "the load never started"
            yield self
        finally:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._stop.set)
            thread.join()
            if self._error is not None:
                raise self._error

    def _thread(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as error:  # noqa: BLE001 - raised again where the load is awaited
            self._error = error
        finally:
            self._under_way.set()

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        follower = None if self.events is None else asyncio.create_task(self._follow(self.events))
        async with asyncio.TaskGroup() as group:
            for kind in self.mix:
                for number in range(kind.clients):
                    group.create_task(self._client(kind, kind.every * number / kind.clients))
        if follower is not None:
            follower.cancel()
            await asyncio.gather(follower, return_exceptions=True)

    async def _follow(self, path: Path) -> None:
        reader, writer = await asyncio.open_unix_connection(str(path))
        try:
            writer.write(f"GET /api/events?follow=1&models={model.NAME} HTTP/1.0\r\nHost: control\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
            while line := await reader.readline():
                event = json.loads(line)
                if event["event"] == "reload" and event["data"].get("ok"):
                    self.acknowledged.append(Acknowledged(time.monotonic(), event["data"]["generation"]))
        finally:
            writer.close()

    async def _client(self, kind: Kind, first: float) -> None:
        connection: Connection | None = None
        due = time.monotonic() + first
        while not await self._stopped(due):
            name = f"{kind.name}-{next(_NUMBERS)}"
            if connection is not None and connection.ended:
                self.closed.append(f"{name}: its idle connection had been closed")
                connection.close()
                connection = None
            sample, connection = await self._request(kind, name, connection)
            self.samples.append(sample)
            self._under_way.set()
            due = max(time.monotonic() + (AFTER_FAULT if sample.fault else 0.0), due + kind.every)
            if connection is not None and not kind.keep:
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    async def _stopped(self, due: float) -> bool:
        """Wait until it is time for the next request; True where the load ends instead."""
        try:
            async with asyncio.timeout(max(0.0, due - time.monotonic())):
                await self._stop.wait()
        except TimeoutError:
            return self._stop.is_set()
        return True

    async def _request(self, kind: Kind, name: str, connection: Connection | None) -> tuple[Sample, Connection | None]:
        """One request and the connection for the next, if it is still open."""
        sent = time.monotonic()
        try:
            if connection is None:
                connection = await Connection.dial(self.port)
            sent = time.monotonic()
            reply = await _exchange(connection, kind, name)
        except (Cut, OSError) as error:
            if connection is not None:
                connection.close()
            return Sample(name, kind.name, sent, time.monotonic(), 0, fault=f"no whole answer, {error}"), None
        done = time.monotonic()
        if reply.closes:
            connection.close()
            connection = None
            if kind.keep:
                self.closed.append(f"{name}: its answer ended the connection")
        return _judged(kind, name, reply, sent, done), connection


async def _exchange(connection: Connection, kind: Kind, name: str) -> Reply:
    path = "/v1/chat/completions" if kind.stream else f"/models/{model.NAME}/predict"
    body = model.asked_stream(name) if kind.stream else model.asked(name, kind.size, kind.wait)
    lines = [f"POST {path} HTTP/{kind.version}", "Host: localhost", f"X-Request-ID: {name}"]
    lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += ["Expect: 100-continue"] if kind.expect else []
    head = ("\r\n".join(lines) + "\r\n\r\n").encode()
    if not kind.expect:
        await connection.send(head + body)
        return await connection.reply()
    await connection.send(head)
    reply = await connection.reply()
    if reply.status == 100:
        await connection.send(body)
        reply = await connection.reply()
    return reply


def _judged(kind: Kind, name: str, reply: Reply, sent: float, done: float) -> Sample:
    version, fault = 0, ""
    if reply.status != 200:
        fault = f"status {reply.status}: {reply.body[:300]!r}"
    else:
        try:
            if kind.stream:
                version = model.version_of_stream(reply.body, name)
            else:
                version = model.version_of(reply.body, name, kind.size)
        except (ValueError, LookupError) as error:
            fault = f"wrong body, {error}"
    return Sample(name, kind.name, sent, done, reply.status, reply.generation, version, fault)
