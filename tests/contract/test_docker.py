"""What only the docker runtime promises: how a container is confined, and what survives the engine's moods."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import docker
import pytest

from orchestrator.image.engine import connect, find_socket, probe
from orchestrator.plan.types import Limits, Mount
from orchestrator.runtimes.deaths import deaths

pytestmark = pytest.mark.docker
DEADLINE = 30

GLUTTON = """
import json, os, signal, socket, sys
config = json.loads(sys.argv[1])
listener = socket.socket(socket.AF_UNIX)
listener.bind(config["sockets"] + "/new.sock")
listener.listen()
os.rename(config["sockets"] + "/new.sock", config["sockets"] + "/agent.sock")
listener.accept()
hoard = []
while True:
    hoard.append(bytearray(8 << 20))
"""

READER = """
import json, os, signal, socket, sys
config = json.loads(sys.argv[1])
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
def writable(folder):
    try:
        open(folder + "/written", "w").close()
    except OSError:
        return False
    return True
seen = {name: writable(name) for name in
        ("/", "/tmp", "/opt/env", "/run/sandbox/generations", "/run/sandbox/guest", "/run/sandbox/data", "/volume")}
seen["uid"] = os.getuid()
listener = socket.socket(socket.AF_UNIX)
with open(config["sockets"] + "/seen.json", "w") as file:
    json.dump(seen, file)
listener.bind(config["sockets"] + "/new.sock")
listener.listen()
os.rename(config["sockets"] + "/new.sock", config["sockets"] + "/agent.sock")
while True:
    listener.accept()
"""


@pytest.fixture
def engine():
    with contextlib.closing(connect(find_socket())) as client:
        yield client


def networks(engine: docker.DockerClient, sandbox: str) -> list[str]:
    found = engine.networks.list(filters={"label": f"model-sandbox.sandbox={sandbox}"})
    return sorted(network.name for network in found)


def test_the_probe_finds_this_machine_s_engine():
    assert probe() is None


async def test_a_container_has_as_little_as_it_needs(docker_stage, engine):
    model = replace(docker_stage.model(), limits=Limits(memory=256 << 20, cpus=0.5, pids=64))
    replica = await docker_stage.started(docker_stage.runtime(), model)
    found = engine.api.inspect_container(replica.container)
    host, config = found["HostConfig"], found["Config"]
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["NetworkMode"] == "none"
    assert host["RestartPolicy"]["Name"] in {"no", ""}
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"], host["PidsLimit"]) == (
        256 << 20,
        256 << 20,
        500_000_000,
        64,
    )
    assert not host["PortBindings"]
    assert not host["Privileged"]
    assert not host.get("Init")
    assert config["Healthcheck"] == {"Test": ["NONE"]}
    assert config["User"].split(":")[0] == str(replica.uid) != "0"
    assert config["Labels"]["model-sandbox.replica-hash"] == model.replica_hash


async def test_a_replica_writes_only_where_it_may(docker_stage, tmp_path):
    volume, data = tmp_path / "volume", tmp_path / "data"
    for folder in (volume, data):
        folder.mkdir()
        folder.chmod(0o777)
    seen = {}
    for writable in (False, True):
        model = replace(
            docker_stage.model(),
            mounts=(Mount(str(volume), "/volume", read_only=not writable),),
            data_writable=writable,
        )
        place = docker_stage.incarnation(guest=docker_stage.guest(tmp_path / f"guest-{writable}", READER))
        place = replace(place, data=str(data))
        runtime = docker_stage.runtime()
        replica = await runtime.start(model, place, await runtime.prepare(model, lambda _: None))
        seen[writable] = json.loads(await asyncio.to_thread(Path(replica.sockets, "seen.json").read_text))
        assert replica.paths["data"] == "/run/sandbox/data"
        assert seen[writable].pop("uid") == replica.uid
    never = {"/": False, "/opt/env": False, "/run/sandbox/generations": False, "/run/sandbox/guest": False}
    assert seen[False] == never | {"/tmp": True, "/run/sandbox/data": False, "/volume": False}
    assert seen[True] == never | {"/tmp": True, "/run/sandbox/data": True, "/volume": True}


async def test_a_network_is_made_for_the_first_replica_and_goes_with_the_last(docker_stage, engine):
    runtime = docker_stage.runtime()
    model = replace(docker_stage.model(), network="internal")
    environment = await runtime.prepare(model, lambda _: None)
    first, second = await asyncio.gather(
        runtime.start(model, docker_stage.incarnation(), environment),
        runtime.start(model, docker_stage.incarnation(), environment),
    )
    sandbox = docker_stage.place.sandbox
    assert networks(engine, sandbox) == [f"sandbox-{sandbox}-internal"]
    await runtime.stop(first, 1)
    assert len(networks(engine, sandbox)) == 1
    await runtime.stop(second, 1)
    assert networks(engine, sandbox) == []


async def test_a_replica_that_exceeds_its_memory_is_told_so(docker_stage, tmp_path):
    runtime = docker_stage.runtime()
    model = replace(docker_stage.model(), limits=Limits(memory=64 << 20))
    place = docker_stage.incarnation(guest=docker_stage.guest(tmp_path / "glutton", GLUTTON))
    replica = await runtime.start(model, place, await runtime.prepare(model, lambda _: None))
    exits = runtime.exits()
    waiting = asyncio.ensure_future(anext(exits))
    folder = os.open(replica.sockets, os.O_RDONLY)
    _, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{folder}/agent.sock")
    async with asyncio.timeout(DEADLINE):
        death = await waiting
    assert (death.incarnation, death.cause, death.oom) == (replica.incarnation, "out of memory", True)
    writer.close()
    os.close(folder)
    await exits.aclose()


async def test_images_of_another_sandbox_outlive_remove_images(docker_stage, engine):
    runtime = docker_stage.runtime()
    model = docker_stage.model()
    environment = await runtime.prepare(model, lambda _: None)
    engine.api.tag(environment.location, "model-sandbox/ffffffffffff", model.lock_hash[:32])
    await runtime.remove_images()
    assert engine.images.get(environment.location).tags == sorted(
        [
            f"model-sandbox/env:{model.lock_hash[:32]}",
            f"model-sandbox/ffffffffffff:{model.lock_hash[:32]}",
        ]
    )
    engine.images.remove(f"model-sandbox/ffffffffffff:{model.lock_hash[:32]}")
    await runtime.prepare(model, lambda _: None)
    await runtime.remove_images()
    assert engine.images.list(filters={"label": f"model-sandbox.lock-hash={model.lock_hash}"}) == []


class Relay:
    """A way to the engine's socket that can be cut and mended. Threads, because the runtime's own calls block."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listener: socket.socket | None = None
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def mend(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._spawn(self._accept, self._listener)

    def cut(self) -> None:
        self.path.unlink(missing_ok=True)
        for end in [self._listener, *self._ends]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(DEADLINE)
        for end in [self._listener, *self._ends]:
            end.close()
        self._ends.clear()
        self._threads.clear()

    def _spawn(self, run, *arguments) -> None:
        self._threads.append(threading.Thread(target=run, args=arguments))
        self._threads[-1].start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.socket(socket.AF_UNIX)
                self._ends += [near, far]
                far.connect(find_socket())
                self._spawn(_pump, near, far)
                self._spawn(_pump, far, near)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    relay = Relay(tmp_path / "engine.sock")
    relay.mend()
    yield relay
    relay.cut()


async def test_a_death_while_the_event_stream_is_broken_is_told_once_it_is_back(docker_stage, relay, engine):
    runtime = docker_stage.runtime()
    first, second = await docker_stage.started(runtime), await docker_stage.started(runtime)
    environ = {"DOCKER_HOST": f"unix://{relay.path}"}
    exits = deaths(lambda: connect(find_socket(environ)), docker_stage.place.sandbox)
    async with asyncio.timeout(DEADLINE):
        docker_stage.candidate.kill(first)
        assert (await anext(exits)).incarnation == first.incarnation
        await asyncio.to_thread(relay.cut)
        docker_stage.candidate.kill(second)
        await asyncio.to_thread(engine.api.wait, second.container)
        relay.mend()
        death = await anext(exits)
    assert (death.incarnation, death.cause) == (second.incarnation, "signal 9")
    await exits.aclose()
