"""The process as the keeper starts it: inherits the listener, ends in order, leaves nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys

import pytest
from gateway_world import Client, ask, route, until


@pytest.fixture
async def start(state):
    """Starts gateway processes on one listener: `await start(SANDBOX_LOG="debug")`."""
    listener = socket.create_server(("127.0.0.1", 0))
    os.set_inheritable(listener.fileno(), True)
    started = []

    async def begin(**more):
        environment = {
            **os.environ,
            "SANDBOX_LISTENER_FD": str(listener.fileno()),
            "SANDBOX_STATE": state,
            "SANDBOX_GATEWAY_WORKER": "3",
            **more,
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "orchestrator.gateway.process"),
            env=environment,
            pass_fds=[listener.fileno()],
            stderr=asyncio.subprocess.PIPE,
        )
        started.append(process)
        return process, listener.getsockname()[1]

    yield begin
    listener.close()
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def test_sigterm_finishes_what_is_in_flight_and_refuses_new_connections(start, control, workers, state):
    release = asyncio.Event()

    async def slow(request, peer):
        await release.wait()
        peer.answer({"said": "done"})

    worker = await workers(script=slow)
    process, port = await start()
    await control.sync({"hello": route(worker)})
    assert control.hello == {"type": "hello", "version": 1, "pid": process.pid, "worker": 3}
    idle = await Client.dial(port)
    idle.send("GET", "/health")
    await idle.reply()
    call = asyncio.create_task(ask(port, "POST", "/models/hello/predict", {}))
    await until(lambda: worker.requests)
    process.send_signal(signal.SIGTERM)
    assert await idle.closed()
    assert not call.done()
    release.set()
    assert (await call).json == {"said": "done"}
    async with asyncio.timeout(20):
        assert await process.wait() == 0
    assert await process.stderr.read() == b""
    await until(lambda: worker.ended == len(worker.peers))


async def test_ctrl_c_in_the_terminal_is_not_for_the_gateway(start, control, workers):
    process, port = await start()
    await control.sync({"hello": route(await workers())})
    process.send_signal(signal.SIGINT)
    assert (await ask(port, "POST", "/models/hello/predict", {})).status == 200


async def test_two_gateways_share_the_listener_and_one_serves_on_when_the_other_is_killed(
    start, control, workers, state
):
    worker = await workers()
    first, port = await start()
    await control.sync({"hello": route(worker)})
    second, _ = await start()
    await until(lambda: control.hello["pid"] == second.pid)
    await control.sync({"hello": route(worker)})
    first.kill()
    await first.wait()
    for _ in range(5):
        assert (await ask(port, "POST", "/models/hello/predict", {})).status == 200


async def test_a_gateway_that_stops_writes_what_its_access_log_still_holds(start, control, workers):
    process, port = await start()
    await control.sync({"hello": route(await workers(), generation=4)}, access_log=True)
    await ask(port, "POST", "/models/hello/predict", {}, {"X-Request-ID": "mine"})
    process.terminate()
    (line,) = (await process.communicate())[1].decode().splitlines()
    assert json.loads(line)["id"] == "mine"


async def test_idle_connections_cost_little(start, control, workers):
    """A thousand, each of which was answered once: what a connection keeps is small, also what it keeps of the last head."""
    process, port = await start()
    await control.sync({"hello": route(await workers())})
    await ask(port, "POST", "/models/hello/predict", {})
    before = _memory(process.pid)
    clients = [await Client.dial(port) for _ in range(1000)]
    for client in clients:
        client.send("POST", "/models/hello/predict", b"{}", {"X-Long": "a" * 1500})
        assert (await client.reply()).status == 200
    assert _memory(process.pid) - before < 20_000_000


def _memory(pid: int) -> int:
    """Bytes of its own."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return sum(
            int(line.split()[1]) * 1024 for line in file if line.startswith(("Private_Dirty:", "Private_Clean:"))
        )
