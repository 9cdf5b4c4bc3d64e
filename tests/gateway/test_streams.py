"""Streams: nothing is kept back, a cut is a cut, a client that leaves ends the call, a slow one slows the worker."""

from __future__ import annotations

import asyncio

import pytest
from gateway_world import BOTH, Client, route, until

LANES = BOTH

CHAT = ("POST", "/v1/chat/completions", b'{"model": "hello", "stream": true}')


async def _client(port: int) -> Client:
    client = await Client.dial(port)
    client.send(*CHAT)
    return client


async def test_each_event_passes_at_once(port, control, workers):
    go = asyncio.Queue()

    async def streams(request, peer):
        peer.stream_head()
        while data := await go.get():
            peer.chunk(data)
        peer.chunk(b"")

    await control.sync({"hello": route(await workers(script=streams))})
    client = await _client(port)
    head = await client.head()  # the head comes before any event
    assert head.headers["content-type"] == "text/event-stream"
    assert head.headers["cache-control"] == "no-cache"
    assert head.headers["x-accel-buffering"] == "no"
    assert head.headers["x-sandbox-generation"] == "1"
    for data in (b"data: one\n\n", b"data: two\n\n"):
        go.put_nowait(data)
        assert await client.chunk() == data
    go.put_nowait(b"")
    assert await client.chunk() == b""


@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_a_stream_that_the_worker_aborts_ends_in_an_abort(port, control, workers, version):
    go = asyncio.Event()

    async def cuts(request, peer):
        peer.stream_head()
        peer.chunk(b"data: one\n\n")
        await go.wait()
        peer.writer.close()

    await control.sync({"hello": route(await workers(script=cuts))})
    client = await Client.dial(port)
    client.writer.write(
        b"POST /v1/chat/completions HTTP/%b\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b"
        % (version.encode(), len(CHAT[2]), CHAT[2])
    )
    await client.head()
    seen = await client.reader.readuntil(b"data: one\n\n")
    assert seen
    go.set()
    if version == "1.0":
        with pytest.raises(ConnectionResetError):
            await client.reader.read()
    else:
        assert b"0\r\n\r\n" not in await client.reader.read()


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_cancels_the_call(port, control, workers, stream):
    left = asyncio.Event()

    async def waits(request, peer):
        if stream:
            peer.stream_head()
            peer.chunk(b"data: one\n\n")
        await peer.left()
        left.set()

    worker = await workers(script=waits)
    await control.sync({"hello": route(worker)})
    client = await _client(port)
    if stream:
        await client.head()
    else:
        await until(lambda: worker.requests)
    client.close()
    async with asyncio.timeout(20):
        await left.wait()


async def test_a_slow_reader_holds_the_worker_back_not_memory(port, control, workers):
    written = 0
    stalled = asyncio.Event()

    async def floods(request, peer):
        nonlocal written
        peer.stream_head()
        for _ in range(2000):
            peer.chunk(b"x" * 65536)
            written += 65536
            try:
                async with asyncio.timeout(0.5):
                    await peer.writer.drain()
            except TimeoutError:
                stalled.set()
                await peer.writer.drain()
        peer.chunk(b"")

    await control.sync({"hello": route(await workers(script=floods))})
    client = await _client(port)
    await client.head()
    async with asyncio.timeout(20):
        await stalled.wait()
    assert written < 30_000_000  # the kernel's buffers and ours, of 131 MB
    total = 0
    while chunk := await client.chunk():
        total += len(chunk)
    assert total == 2000 * 65536


async def test_a_large_answer_with_a_length_passes_whole(port, control, workers):
    body = bytes(range(256)) * 8000

    async def large(request, peer):
        peer.answer(body)

    await control.sync({"hello": route(await workers(script=large))})
    client = await _client(port)
    reply = await client.reply()
    assert reply.body == body
    assert reply.headers["content-length"] == str(len(body))


async def test_a_silent_stream_ends_at_the_models_timeout_a_lively_one_does_not(port, control, workers):
    async def lively_then_silent(request, peer):
        peer.stream_head()
        for _ in range(6):
            peer.chunk(b": ping\n\n")
            await asyncio.sleep(0.1)
        await peer.left()

    await control.sync({"hello": route(await workers(script=lively_then_silent), timeout=0.3)})
    client = await _client(port)
    reply = await client.reply()
    assert (reply.status, reply.whole) == (200, False)
    assert len(reply.chunks) == 6


async def test_what_was_written_before_a_close_reaches_a_slow_reader_whole(port, control, workers):
    """`Connection: close` ends the connection only after its last byte, however late the client reads it."""
    body = bytes(range(256)) * 8000

    async def large(request, peer):
        peer.answer(body)

    await control.sync({"hello": route(await workers(script=large))})
    client = await Client.dial(port)
    client.writer.transport.pause_reading()
    client.send(*CHAT, {"Connection": "close"})
    await asyncio.sleep(0.5)
    client.writer.transport.resume_reading()
    reply = await client.reply()
    assert (reply.body, reply.headers["connection"]) == (body, "close")
    assert await client.closed()
