"""Clients that leave in the middle of things, and clients that hardly read. Nothing they get is looked at."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

from tests.e2e.load import model

_NUMBERS = itertools.count()
# What a slow client reads, and how often.
_SIP, _EVERY = 64, 0.05

Way = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def _request(path: str, body: bytes, length: int | None = None) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body) if length is None else length}\r\n\r\n"
    )
    return head.encode() + body


def _stream() -> bytes:
    return _request("/v1/chat/completions", model.asked_stream(f"unruly-{next(_NUMBERS)}"))


async def _in_the_head(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"POST /models/records/predict HTTP/1.1\r\nHost: loc")
    await writer.drain()


async def _in_the_body(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(_request(f"/models/{model.NAME}/predict", b"{" + b" " * 100_000, 1_000_000))
    await writer.drain()


async def _in_the_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(_stream())
    await reader.readuntil(b"data: ")


async def _in_the_wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(_request(f"/models/{model.NAME}/predict", model.asked(f"unruly-{next(_NUMBERS)}", 10, 5.0)))
    with suppress(TimeoutError):
        async with asyncio.timeout(0.2):
            await reader.read(1)


async def _by_sips(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    body = model.asked(f"unruly-{next(_NUMBERS)}", 1_000_000, 0.0)
    writer.write(_request(f"/models/{model.NAME}/predict", body))
    for _ in range(60):
        await reader.read(_SIP)
        await asyncio.sleep(_EVERY)


WAYS: tuple[Way, ...] = (_in_the_head, _in_the_body, _in_the_stream, _in_the_wait, _by_sips)


@contextmanager
def running(port: int, each: int = 2) -> Iterator[None]:
    """`each` clients of every way, one visit after the other, until the block is left."""
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(_all(port, each, stop),), name="unruly")
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


async def _all(port: int, each: int, stop: asyncio.Event) -> None:
    async with asyncio.TaskGroup() as group:
        for way in WAYS * each:
            group.create_task(_visits(port, way, stop))


async def _visits(port: int, way: Way, stop: asyncio.Event) -> None:
    while not stop.is_set():
        with suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            try:
                await way(reader, writer)
            finally:
                writer.transport.abort()
        with suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                await stop.wait()
