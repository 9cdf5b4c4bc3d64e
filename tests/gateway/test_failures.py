"""What is sent again and what never is: the worker's death at each moment, sockets that are not what they must be."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest
from gateway_world import BOTH, Client, ask, route, says, until

LANES = BOTH

PREDICT = ("POST", "/models/hello/predict")


async def test_a_worker_that_dies_after_reading_is_worker_died_and_nothing_is_retried(port, control, workers):
    async def dies(peer):
        worker.requests.append(await peer.request())

    worker = await workers(connection=dies)
    await control.sync({"hello": route(worker, generation=7)})
    reply = await ask(port, *PREDICT, {})
    assert (reply.status, reply.json["error"]["code"]) == (502, "WORKER_DIED")
    assert reply.headers["x-sandbox-generation"] == "7"
    assert len(worker.requests) == 1
    reply = await ask(port, "POST", "/v1/embeddings", {"model": "hello"})
    assert (reply.status, reply.json["error"]["code"]) == (502, "worker_died")


async def test_a_worker_that_dies_after_reading_on_a_reused_connection_is_worker_died_too(port, control, workers):
    async def once(peer):
        worker.requests.append(await peer.request())
        peer.answer({})
        worker.requests.append(await peer.request())

    worker = await workers(connection=once)
    await control.sync({"hello": route(worker)})
    assert (await ask(port, *PREDICT, {})).status == 200
    assert (await ask(port, *PREDICT, {})).status == 502
    assert (len(worker.requests), len(worker.peers)) == (2, 1)


async def test_a_request_that_the_worker_never_read_is_sent_again_unnoticed(port, control, workers):
    async def closes_unread(peer):
        if len(worker.peers) == 1:
            sock = peer.writer.get_extra_info("socket")
            peer.writer.transport.pause_reading()
            await until(lambda: _pending(sock))
            return
        worker.requests.append(await peer.request())
        peer.answer({"said": "second"})
        await peer.left()

    worker = await workers(connection=closes_unread)
    await control.sync({"hello": route(worker)})
    reply = await ask(port, *PREDICT, {})
    assert reply.json == {"said": "second"}
    assert (len(worker.requests), len(worker.peers)) == (1, 2)


def _pending(sock) -> bool:
    """Whether bytes wait to be read."""
    import fcntl
    import struct
    import termios

    return struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.FIONREAD, b"\0\0\0\0"))[0] > 0


async def test_a_long_body_is_not_sent_again(port, control, workers):
    async def takes_some(peer):
        await peer.head()
        await peer.reader.readexactly(1000)
        peer.writer.transport.abort()

    worker = await workers(connection=takes_some)
    await control.sync({"hello": route(worker)})
    reply = await ask(port, *PREDICT, b"x" * 1_000_000)
    assert (reply.status, reply.json["error"]["code"]) == (502, "WORKER_DIED")
    assert len(worker.peers) == 1


async def test_a_connect_failure_is_retried_on_the_new_route_without_the_client_noticing(port, control, workers):
    gone = await workers("g1.sock")
    await gone.stop()
    await control.sync({"hello": route(gone)})
    call = asyncio.create_task(ask(port, *PREDICT, {}))
    await until(lambda: control.suspects)
    assert control.suspects == [("hello", "g1.sock")]
    assert not call.done()
    await control.route("hello", route(await workers("g1-2.sock", says("second"))))
    assert (await call).json == {"said": "second"}


async def test_a_dead_replica_beside_a_living_one_is_passed_over(port, control, workers):
    gone = await workers("a.sock")
    await gone.stop()
    await control.sync({"hello": route(gone, await workers("b.sock", says("b")))})
    for _ in range(4):
        assert (await ask(port, *PREDICT, {})).json == {"said": "b"}


async def test_a_worker_that_stays_unreachable_is_model_not_loaded_after_the_queue_timeout(port, control, workers):
    gone = await workers()
    await gone.stop()
    await control.sync({"hello": route(gone, queue_timeout=0.1)})
    reply = await ask(port, *PREDICT, {})
    assert (reply.status, reply.json["error"]["code"]) == (503, "MODEL_NOT_LOADED")
    assert "nobody listens" in reply.json["error"]["details"]["connect"]


async def test_a_full_backlog_means_busy_and_is_waited_for(port, control, workers, state):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.path.join(state, "full.sock"))
    listener.listen(0)
    waiting = []
    try:
        while True:
            waiting.append(socket.socket(socket.AF_UNIX))
            waiting[-1].setblocking(False)
            try:
                waiting[-1].connect(os.path.join(state, "full.sock"))
            except BlockingIOError:
                break
        full = {"id": "f", "directory": state, "socket": "full.sock", "uid": os.getuid()}
        await control.sync({"hello": route(queue_timeout=0.1) | {"upstreams": [full]}})
        reply = await ask(port, *PREDICT, {})
        assert (reply.status, reply.json["error"]["code"]) == (503, "QUEUE_TIMEOUT")
        await control.sync({"hello": route(queue_timeout=20) | {"upstreams": [full]}})
        call = asyncio.create_task(ask(port, *PREDICT, {}))
        await asyncio.sleep(0)
        assert control.suspects == []
        for sock in waiting:
            sock.close()
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(listener)
            if await loop.sock_recv(sock, 65536):
                break
            sock.close()
        await loop.sock_sendall(sock, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        assert (await call).status == 200
        sock.close()
    finally:
        for sock in [*waiting, listener]:
            sock.close()


@pytest.mark.parametrize("swap", ["symlink", "file", "fifo"])
async def test_a_socket_replaced_by_something_else_gets_nothing(port, control, workers, state, swap):
    """The model's folder is the model's to write: it may point its socket's name at the Docker engine's."""
    engine = await workers("engine.sock", says("engine"))
    os.mkdir(os.path.join(state, "s"))
    path = os.path.join(state, "s", "g1-1.sock")
    match swap:
        case "symlink":
            os.symlink(engine.path, path)
        case "file":
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        case "fifo":
            os.mkfifo(path)
    upstream = {"id": "x", "directory": os.path.join(state, "s"), "socket": "g1-1.sock", "uid": os.getuid()}
    await control.sync({"hello": route(queue_timeout=0.1) | {"upstreams": [upstream]}})
    reply = await ask(port, *PREDICT, {})
    assert reply.status == 503
    assert "not a socket" in reply.json["error"]["details"]["connect"]
    assert engine.peers == []


async def test_a_folder_replaced_by_a_symlink_gets_nothing(port, control, workers, state):
    worker = await workers()
    os.symlink(state, os.path.join(state, "link"))
    upstream = worker.upstream() | {"directory": os.path.join(state, "link")}
    await control.sync({"hello": route(queue_timeout=0.1) | {"upstreams": [upstream]}})
    assert (await ask(port, *PREDICT, {})).status == 503
    assert worker.peers == []


async def test_a_listener_of_another_user_gets_nothing(port, control, workers):
    worker = await workers()
    upstream = worker.upstream() | {"uid": os.getuid() + 1}
    await control.sync({"hello": route(queue_timeout=0.1) | {"upstreams": [upstream]}})
    reply = await ask(port, *PREDICT, {})
    assert reply.status == 503
    assert "runs as user" in reply.json["error"]["details"]["connect"]
    assert worker.requests == []


@pytest.mark.parametrize(
    "nonsense",
    [
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000,
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ],
)
async def test_a_worker_that_does_not_speak_http_is_worker_died(port, control, workers, nonsense):
    async def speaks(peer):
        await peer.request()
        peer.writer.write(nonsense)
        await peer.left()

    await control.sync({"hello": route(await workers(connection=speaks))})
    assert (await ask(port, *PREDICT, {})).status == 502


async def test_an_answer_that_nobody_asked_for_is_given_to_nobody(port, control, workers):
    async def speaks_twice(request, peer):
        peer.answer({"said": "yours"})
        peer.answer({"said": "another's"})

    worker = await workers(script=speaks_twice)
    await control.sync({"hello": route(worker)})
    for _ in range(3):
        assert (await ask(port, *PREDICT, {})).json == {"said": "yours"}
    assert len(worker.peers) == 3


async def test_the_models_timeout_ends_a_call_and_tells_the_worker(port, control, workers):
    left = asyncio.Event()

    async def endless(request, peer):
        await peer.left()
        left.set()

    await control.sync({"hello": route(await workers(script=endless), timeout=0.1)})
    reply = await ask(port, *PREDICT, {})
    assert (reply.status, reply.json["error"]["code"]) == (504, "UPSTREAM_TIMEOUT")
    async with asyncio.timeout(20):
        await left.wait()


async def test_an_answer_cut_short_is_a_502_where_nothing_was_passed_on(port, control, workers):
    async def cuts(request, peer):
        peer.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await peer.writer.drain()
        peer.writer.close()

    await control.sync({"hello": route(await workers(script=cuts))})
    assert (await ask(port, *PREDICT, {})).status == 502


async def test_a_worker_may_answer_before_it_has_read_all(port, control, workers):
    async def refuses(peer):
        await peer.head()
        peer.answer({"said": "too long"}, status=400)
        await peer.left()

    worker = await workers(connection=refuses)
    await control.sync({"hello": route(worker)})
    client = await Client.dial(port)
    client.send("POST", "/models/hello/predict", None, {"Content-Length": "1000000"})
    client.writer.write(b"x" * 200_000)
    reply = await client.reply()
    assert (reply.status, reply.json) == (400, {"said": "too long"})
    await until(lambda: worker.ended == 1)
