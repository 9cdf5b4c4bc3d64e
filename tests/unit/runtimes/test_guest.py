"""The real guest behind real walls: a worker serves on while its agent dies, and the next agent takes it over."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
from dataclasses import replace
from pathlib import Path

import sandbox as guest_package
from orchestrator import folders

MAIN = "import os\ndef predict(x: float) -> dict:\n    return {'twice': 2 * x, 'pid': os.getpid()}\n"
LOAD = {
    "type": "load", "generation": 1, "attempt": 1, "content": "a" * 64, "tree": "tree-1", "config": {}, "entry": None,
    "serving": {"concurrency": 4, "queue_size": 10, "queue_timeout": 5.0, "max_input": None, "max_batch": 10, "debug": False},
    "load_timeout": 60.0, "warmup": False, "check": ["main.py"], "mode": "fork",
}  # fmt: skip


class Control:
    """One connection to an agent, as control has it."""

    def __init__(self, replica):
        folder = os.open(replica.sockets, os.O_RDONLY)
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.settimeout(60)
        self.connection.connect(f"/proc/self/fd/{folder}/agent.sock")
        os.close(folder)
        self.stream = self.connection.makefile("rw")

    def send(self, message):
        self.stream.write(json.dumps(message) + "\n")
        self.stream.flush()

    def until(self, kind):
        while True:
            message = json.loads(self.stream.readline())
            assert message["type"] != "failed", message
            if message["type"] == kind:
                return message

    def close(self):
        self.stream.close()
        self.connection.close()


def hello(replica):
    control = Control(replica)
    control.send({"type": "hello", "version": 1})
    return control, control.until("state")


def predict(replica, name):
    folder = os.open(replica.sockets, os.O_RDONLY)
    body = b'{"x": 5.5}'
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(f"/proc/self/fd/{folder}/{name}")
        os.close(folder)
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        return connection.recv(1 << 16).decode()


def write(folder, name, text):
    Path(folder, name).write_text(text)


def real_guest(sandbox):
    folder = sandbox.cache / "guests" / "real"
    shutil.copytree(
        Path(guest_package.__file__).parent, folder / "sandbox", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.move(folder / "sandbox" / "__main__.py", folder / "__main__.py")
    return str(folder)


async def test_workers_serve_on_without_their_agent_and_a_new_one_adopts_them(sandbox):
    runtime = sandbox.runtime()
    place = replace(sandbox.place(), guest=real_guest(sandbox))
    write(place.generations, "tree-1/main.py", MAIN)
    model = sandbox.model()
    replica = await sandbox.started(runtime, model, place)
    control, state = await asyncio.to_thread(hello, replica)
    assert state["workers"] == []
    control.send(LOAD)
    ready = await asyncio.to_thread(control.until, "ready")
    control.send({"type": "activate", "generation": 1, "attempt": 1})
    await asyncio.to_thread(control.until, "activated")
    answer = await asyncio.to_thread(predict, replica, ready["socket"])
    assert '"twice": 11.0' in answer or '"twice":11.0' in answer
    control.close()

    os.kill(replica.pid, signal.SIGKILL)
    deaths = runtime.exits()
    assert (await anext(deaths)).cause == "signal 9"
    await deaths.aclose()
    assert "11.0" in await asyncio.to_thread(predict, replica, ready["socket"])

    revived = await runtime.start(model, place, await runtime.prepare(model, lambda _: None))
    control, state = await asyncio.to_thread(hello, revived)
    assert [worker["pid"] for worker in state["workers"]] == [ready["pid"]]
    assert "11.0" in await asyncio.to_thread(predict, revived, ready["socket"])
    control.close()

    await runtime.stop(revived, 5)
    assert folders.start_time(ready["pid"]) is None
    assert not (sandbox.state / "r" / place.incarnation).exists()
