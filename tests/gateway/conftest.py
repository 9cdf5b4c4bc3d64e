"""A real gateway on a loopback port with uvloop, as in production, and scripted neighbours."""

from __future__ import annotations

import asyncio
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop

from orchestrator.gateway import process
from orchestrator.gateway.body import Deadlines

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode: siblings are found only so

from gateway_world import Client, Control, Script, Worker, echo
from real_worker import RealWorker


def pytest_asyncio_loop_factories(config, item):
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def state() -> Iterator[str]:
    """A short path: the address of a unix socket has 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="gw") as folder:
        yield folder


@pytest.fixture
async def control(state: str) -> AsyncIterator[Control]:
    control = await Control(state).start()
    yield control
    await control.stop()


@pytest.fixture
def deadlines() -> Deadlines:
    """Overridden where a test is about a deadline."""
    return Deadlines()


def pytest_generate_tests(metafunc):
    """A module with LANES runs each of its tests that reach a gateway through each of them."""
    lanes = getattr(metafunc.module, "LANES", None)
    if lanes and "lane" in metafunc.fixturenames:
        metafunc.parametrize("lane", lanes, ids=lambda lane: lane.__name__)


@pytest.fixture
def lane() -> process.Lane:
    return process.fast


@pytest.fixture
async def port(state: str, deadlines: Deadlines, lane: process.Lane) -> AsyncIterator[int]:
    """A running gateway's port."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    stop = asyncio.Event()
    number = listener.getsockname()[1]
    task = asyncio.create_task(process.serve(listener, state, 0, stop, deadlines=deadlines, lane=lane))
    yield number
    stop.set()
    await asyncio.wait_for(task, 60)


@pytest.fixture
async def workers(state: str) -> AsyncIterator:
    """Starts workers: `await workers("g1-1.sock", script)`."""
    started: list[Worker] = []

    async def start(name: str = "g1-1.sock", script: Script = echo, **more) -> Worker:
        started.append(await Worker(state, name, script, **more).start())
        return started[-1]

    yield start
    for worker in started:
        await worker.stop()


@pytest.fixture
def short(deadlines: Deadlines) -> Deadlines:
    return replace(deadlines, head=0.2, body=0.2, write=0.5, sync=0.2)


@pytest.fixture(autouse=True)
async def leave() -> AsyncIterator[None]:
    """Clients hang up after their test."""
    yield
    while Client.opened:
        writer = Client.opened.pop().writer
        writer.close()
        writer.transport.abort()
    await asyncio.sleep(0)


@pytest.fixture
async def real(state: str) -> AsyncIterator:
    """Starts real workers: `await real("g1.sock", 2)`, and with a source of their own."""
    started = []

    async def start(name: str, factor: int, *source: str, **serving) -> RealWorker:
        started.append(RealWorker(state, name))
        return await started[-1].start(factor, *source, **serving)

    yield start
    for worker in started:
        await worker.stop()
