"""Pipelining, and deadlines: slow heads and bodies end at 408. What is refused of HTTP itself is in test_corpus.py."""

from __future__ import annotations

import asyncio
import shutil
import socket

import pytest
from gateway_world import BOTH, Client, ask, raw, route, until

LANES = BOTH


async def test_pipelined_requests_are_answered_in_order(port, control, workers):
    await control.sync({"hello": route(await workers())})
    client = await Client.dial(port)
    for number in range(20):
        client.send("POST", "/models/hello/predict", b"%d" % number)
    assert [(await client.reply()).json["got"] for _ in range(20)] == [str(number) for number in range(20)]


class TestDeadlines:
    @pytest.fixture
    def deadlines(self, short):
        return short

    async def test_a_slow_head_is_408(self, port, control):
        await control.sync({})
        client = await Client.dial(port)
        client.writer.write(b"GET /health HT")
        reply = await client.reply()
        assert (reply.status, reply.json["error"]["code"]) == (408, "REQUEST_TIMEOUT")
        assert await client.closed()

    async def test_a_slow_head_is_408_also_where_it_came_with_the_connection(self, port, control):
        await control.sync({})
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(b"GET /health HT")  # before the gateway's loop can have accepted
            sock.setblocking(False)
            reader, writer = await asyncio.open_connection(sock=sock)
            assert (await Client(reader, writer).reply()).status == 408

    async def test_a_slow_head_behind_a_request_does_not_cut_its_answer(self, port, control, workers):
        release = asyncio.Event()

        async def slow(request, peer):
            await release.wait()
            peer.answer({"said": "whole"})

        worker = await workers(script=slow)
        await control.sync({"hello": route(worker)})
        client = await Client.dial(port)
        client.send("POST", "/models/hello/predict", b"{}")
        await until(lambda: worker.requests)
        client.writer.write(b"GET /health HT")
        await asyncio.sleep(0.5)
        release.set()
        assert (await client.reply()).json == {"said": "whole"}
        assert (await client.reply()).status == 408

    async def test_a_slow_second_head_is_408_too(self, port, control):
        await control.sync({})
        client = await Client.dial(port)
        client.send("GET", "/health")
        assert (await client.reply()).status == 200
        client.writer.write(b"GET /health HT")
        assert (await client.reply()).status == 408

    async def test_an_idle_connection_is_not_a_slow_head(self, port, control):
        await control.sync({})
        client = await Client.dial(port)
        client.send("GET", "/health")
        assert (await client.reply()).status == 200
        await asyncio.sleep(0.5)
        client.send("GET", "/health")
        assert (await client.reply()).status == 200

    async def test_a_slow_body_is_408(self, port, control, workers):
        worker = await workers()
        await control.sync({"hello": route(worker)})
        client = await Client.dial(port)
        client.send("POST", "/models/hello/predict", None, {"Content-Length": "10"})
        client.writer.write(b"{")
        reply = await client.reply()
        assert (reply.status, reply.json["error"]["code"]) == (408, "REQUEST_TIMEOUT")
        assert await client.closed()
        assert worker.requests == []

    async def test_a_slow_chunked_body_is_408_and_the_connection_is_closed(self, port, control, workers):
        worker = await workers()
        await control.sync({"hello": route(worker)})
        client = await Client.dial(port)
        client.send("POST", "/models/hello/predict", b"5\r\n{", {"Transfer-Encoding": "chunked"})
        reply = await client.reply()
        assert (reply.status, reply.json["error"]["code"]) == (408, "REQUEST_TIMEOUT")
        assert await client.closed()
        assert worker.requests == []

    async def test_a_body_that_stalls_past_64_kib_is_408_and_ends_the_call(self, port, control, workers):
        worker = await workers()
        await control.sync({"hello": route(worker)})
        client = await Client.dial(port)
        client.send("POST", "/models/hello/predict", None, {"Content-Length": "1000000"})
        client.writer.write(b"x" * 200_000)
        assert (await client.reply()).status == 408
        await until(lambda: worker.ended == 1)

    async def test_without_a_sync_requests_are_refused_in_the_end(self, port):
        reply = await ask(port, "POST", "/models/hello/predict", {})
        assert (reply.status, reply.json["error"]["code"]) == (503, "MODEL_NOT_LOADED")
        assert (await ask(port, "GET", "/health")).status == 200

    async def test_a_client_that_does_not_read_is_let_go(self, port, control, workers):
        async def floods(request, peer):
            peer.stream_head()
            while True:
                peer.chunk(b"x" * 65536)
                await peer.writer.drain()

        worker = await workers(script=floods)
        await control.sync({"hello": route(worker)})
        client = await Client.dial(port)
        client.send("POST", "/v1/completions", b'{"model": "hello"}')
        await client.head()
        client.writer.transport.pause_reading()
        await until(lambda: worker.ended == 1)


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl")
@pytest.mark.parametrize("version", ["--http1.0", "--http1.1"])
async def test_curl_is_answered_in_its_own_version(port, control, workers, version):
    await control.sync({"hello": route(await workers())})
    curl = await asyncio.create_subprocess_exec(
        "curl",
        "-sS",
        "-i",
        "--max-time",
        "20",
        version,
        "-d",
        '{"x": 5.5}',
        f"http://localhost:{port}/models/hello/predict",
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await curl.communicate()
    assert curl.returncode == 0
    assert b"200 OK" in out.splitlines()[0]
    assert b"5.5" in out
    assert (b"chunked" in out) is False


async def test_a_host_is_not_asked_of_http_1_0(port, control):
    await control.sync({})
    assert (await raw(port, b"GET /v1/models HTTP/1.0\r\n\r\n")).status == 200


async def test_pipelined_requests_of_every_kind_keep_their_order(port, control, workers):
    """Usual requests and those of the other lane, refused ones among them, all written before the first answer."""
    await control.sync({"hello": route(await workers())})
    client = await Client.dial(port)
    for number in range(10):
        client.send("POST", "/models/hello/predict", b"%d" % number)
        client.send("GET", "/health")
        client.send("POST", "/models/hello/predict", b"1\r\nc\r\n0\r\n\r\n", {"Transfer-Encoding": "chunked"})
        client.send("POST", "/nowhere", b"{}")
        client.send("HEAD", "/v1/models")
    for number in range(10):
        assert (await client.reply()).json["got"] == str(number)
        assert (await client.reply()).json["data"]["status"] == "ok"
        assert (await client.reply()).json["got"] == "c"
        assert (await client.reply()).status == 404
        assert (await client.reply("HEAD")).status == 200


async def test_a_client_that_pipelines_and_does_not_read_is_held_back(port, control, workers):
    worker = await workers(script=large)
    await control.sync({"hello": route(worker)})
    client = await Client.dial(port)
    client.writer.transport.pause_reading()
    for _ in range(600):
        client.send("POST", "/models/hello/predict", b"{}")
    await until(lambda: worker.requests)
    count = -1
    while count != len(worker.requests):
        count = len(worker.requests)
        await asyncio.sleep(0.3)
    assert count < 500  # 600 answers of 100 kB do not fit in the kernel's buffers and ours
    client.writer.transport.resume_reading()
    for _ in range(600):
        assert len((await client.reply()).body) == 100_000


async def large(request, peer):
    peer.answer(b"x" * 100_000)
