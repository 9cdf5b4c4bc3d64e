"""Strict HTTP: what could be read in two ways is refused with 400 and a close; slow heads and bodies end at 408."""

from __future__ import annotations

import asyncio
import shutil
import socket

import pytest
from gateway_world import BOTH, Client, ask, raw, route, until

LANES = BOTH

POST = b"POST /models/hello/predict HTTP/1.1\r\n"

BROKEN = {
    "no host": POST + b"Content-Length: 2\r\n\r\n{}",
    "two hosts": POST + b"Host: localhost\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}",
    "two lengths": POST + b"Host: localhost\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "one length twice": POST + b"Host: localhost\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "a list of lengths": POST + b"Host: localhost\r\nContent-Length: 2, 2\r\n\r\n{}",
    "length and coding": POST + b"Host: localhost\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding and length": POST + b"Host: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
    "unknown coding": POST + b"Host: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "coding twice": POST
    + b"Host: localhost\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked in 1.0": b"POST /models/hello/predict HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "negative length": POST + b"Host: localhost\r\nContent-Length: -2\r\n\r\n{}",
    "signed length": POST + b"Host: localhost\r\nContent-Length: +2\r\n\r\n{}",
    "hex length": POST + b"Host: localhost\r\nContent-Length: 0x2\r\n\r\n{}",
    "space before colon": POST + b"Host: localhost\r\nContent-Length : 2\r\n\r\n{}",
    "folded header": POST + b"Host: localhost\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\n{}",
    "nul in header": POST + b"Host: localhost\r\nX: a\0b\r\nContent-Length: 2\r\n\r\n{}",
    "bare lf": b"POST /models/hello/predict HTTP/1.1\nHost: localhost\nContent-Length: 2\n\n{}",
    "bad chunk size": POST + b"Host: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "chunk longer than said": POST + b"Host: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n",
    "oversize line": b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "oversize header": POST + b"Host: localhost\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
    "too many headers": POST + b"Host: localhost\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(2000)) + b"\r\n",
    "absolute target": b"GET http://localhost/health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "not http": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "http 2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "compressed body": POST + b"Host: localhost\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("name", BROKEN)
async def test_ambiguous_http_is_refused_and_the_connection_closed(port, control, workers, name):
    worker = await workers()
    await control.sync({"hello": route(worker)})
    client = await Client.dial(port)
    client.writer.write(BROKEN[name])
    reply = await client.reply()
    assert (reply.status, reply.json["error"]["code"]) == (400, "INVALID_REQUEST")
    assert await client.closed()
    assert worker.requests == []


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
