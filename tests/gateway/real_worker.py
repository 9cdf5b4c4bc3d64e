"""A generation of the guest in a process of its own, without an agent."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys

MODEL = """
import asyncio, os

class Demo:
    def predict(self, x: float) -> float:
        if x == 13:
            os._exit(3)
        return {factor} * x

    async def on_chat_messages(self, messages):
        yield "one "
        if messages[-1]["content"] == "wait":
            try:
                await asyncio.sleep(60)
            finally:
                os.close(os.open(os.environ["LEFT"], os.O_CREAT | os.O_WRONLY))
        yield "two"
"""
RUN = "import json, socket, sys; from sandbox.worker import run; run(json.loads(sys.argv[2]), socket.socket(fileno=int(sys.argv[1])))"


class RealWorker:
    """A generation in a process of its own; quacks like gateway_world.Worker where `route` looks."""

    def __init__(self, directory: str, name: str) -> None:
        self.directory, self.name = directory, name

    def upstream(self) -> dict:
        return {"id": self.name, "directory": self.directory, "socket": self.name, "uid": os.getuid()}

    async def start(self, factor: int, source: str = MODEL, **serving) -> RealWorker:
        tree = os.path.join(self.directory, f"tree-{self.name}")
        os.mkdir(tree)
        with open(os.path.join(tree, "main.py"), "w") as file:  # noqa: ASYNC230 (a small file of the test's own)
            file.write(source.replace("{factor}", str(factor)))
        assignment = {
            "model": "demo",
            "generation": factor,
            "attempt": 1,
            "content": "0" * 64,
            "tree": tree,
            "data": None,
            "source": tree,
            "entry": None,
            "config": {},
            "serving": serving,
            "warmup": False,
            "sockets": self.directory,
            "socket": self.name,
        }
        ours, theirs = socket.socketpair()
        environment = {**os.environ, "LEFT": os.path.join(self.directory, "left")}
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-B",
            "-c",
            RUN,
            str(theirs.fileno()),
            json.dumps(assignment),
            pass_fds=[theirs.fileno()],
            env=environment,
        )
        theirs.close()
        self.reader, self.writer = await asyncio.open_connection(sock=ours, limit=2**20)
        while (message := json.loads(await self.reader.readline()))["type"] != "listening":
            assert message["type"] == "phase", message
        self.info = message["info"]
        return self

    def say(self, **message) -> None:
        self.writer.write(json.dumps(message).encode() + b"\n")

    async def stop(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        self.writer.close()
