"""Fakes of the ports, held to the same contract suites as the real ones. No process is started, no image built.

`FakeRuntime` answers for replicas whose agents are small servers on real unix sockets in this event loop: what a tree's
main.py says (see `FakeAgent`) decides how its generation fares. `FakeTraffic` records what the gateways would be told.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from orchestrator.errors import BuildError, RuntimeFailure, SandboxError
from orchestrator.plan.types import ModelDesired, RuntimeKind
from orchestrator.ports import (
    Environment,
    Process,
    Progress,
    ReplicaExit,
    ReplicaPlace,
    ReplicaRecord,
    Report,
    Route,
    Usage,
)


class FakeTraffic:
    """Gateways that confirm at once. routes: what each model has now; history: every route, oldest first."""

    def __init__(self) -> None:
        self.routes: dict[str, Route] = {}
        self.history: list[tuple[str, Route | None]] = []

    async def route(self, model: str, route: Route | None) -> None:
        if route is None:
            self.routes.pop(model, None)
        else:
            self.routes[model] = route
        self.history.append((model, route))

    async def metrics(self) -> Sequence[Sequence[Mapping[str, Any]]]:
        return []


class FakeAgent:
    """An agent without processes. The first line of a tree's main.py steers it:

    `# syntax` and `# import` fail with that error, `# load` fails in its load(), `# hang` never becomes ready, all else
    is ready at once. how: the way that it has workers, "fork" or "spawn". takes: bytes that each generation takes.
    ends_by: how a retired worker ends. imports: what each says that it imported.
    """

    def __init__(self, place: ReplicaPlace, on_exit: Callable[[], None]) -> None:
        self.place = place
        self._on_exit = on_exit
        self.how = "fork"
        self.takes = 0
        self.imports: list[str] = []
        self.ends_by = "exit 0"
        self.workers: dict[int, dict[str, Any]] = {}
        self.active: int | None = None
        self.received: list[dict[str, Any]] = []
        self._writer: asyncio.StreamWriter | None = None  # of the newest connection
        self._serving: dict[asyncio.StreamWriter, asyncio.Event] = {}
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        path = os.path.join(self.place.sockets, "agent.sock")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self._server = await asyncio.start_unix_server(self._serve, path)

    async def end(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer, ended in list(self._serving.items()):
            writer.transport.abort()
            await ended.wait()

    async def _end_as_told(self) -> None:
        self._on_exit()
        await self.end()

    def tell(self, message: Mapping[str, Any]) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    def kill_worker(self, cause: str = "signal 9") -> None:
        """The active worker dies."""
        for attempt, worker in list(self.workers.items()):
            if worker["generation"] == self.active and worker["state"] == "ready":
                self._gone(attempt, cause)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        ended = self._serving[writer] = asyncio.Event()
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                message = json.loads(line)
                self.received.append(message)
                self._answer(message)
        writer.transport.abort()
        ended.set()
        del self._serving[writer]

    def _answer(self, message: Mapping[str, Any]) -> None:
        match message["type"]:
            case "hello":
                listed = [{**worker, "attempt": attempt} for attempt, worker in self.workers.items()]
                self.tell({"type": "state", "version": 1, "pid": 1, "workers": listed, "active": self.active})
            case "load":
                self._load(message)
            case "proceed":
                self._go_on(message["generation"], message["attempt"])
            case "usage":
                self.tell({"type": "usage", "workers": [], "memory": self.takes * len(self.workers)})
            case "activate":
                self.active = message["generation"]
                self.tell({"type": "activated", "generation": self.active})
            case "configure":
                self.tell({"type": "configured"})
            case "kill" | "retire":
                self._gone(message["attempt"], "killed" if message["type"] == "kill" else self.ends_by)
            case "stop":
                self.workers.clear()
                self._ending = asyncio.create_task(self._end_as_told())

    def _load(self, message: Mapping[str, Any]) -> None:
        number, attempt = message["generation"], message["attempt"]
        socket = f"g{number}-{attempt}.sock"
        with open(os.path.join(self.place.generations, message["tree"], "main.py"), encoding="utf-8") as file:
            first = file.readline().strip()
        self.workers[attempt] = {"generation": number, "state": "loading", "socket": socket, "pid": 1000 + attempt}
        self.workers[attempt]["first"] = first
        if first in {"# syntax", "# import"}:
            self.fail(number, attempt, "import", "SyntaxError" if first == "# syntax" else "ImportError")
        elif message.get("pause"):
            self.workers[attempt]["state"] = "paused"
            self.tell({"type": "paused", "generation": number, "attempt": attempt})
        else:
            self._go_on(number, attempt)

    def _go_on(self, number: int, attempt: int) -> None:
        worker = self.workers[attempt]
        worker["state"] = "loading"
        if worker["first"] == "# load":
            self.fail(number, attempt, "load", "ValueError")
        elif worker["first"] != "# hang":
            worker["state"] = "ready"
            ready = {"type": "ready", "generation": number, "attempt": attempt, "peak": {"load": self.takes}}
            ready |= {"socket": worker["socket"], "pid": worker["pid"]}
            self.tell({**ready, "phases": {self.how: 0.001}, "imports": self.imports, "info": {}})

    def fail(self, number: int, attempt: int, phase: str, kind: str) -> None:
        """A worker that loads fails."""
        del self.workers[attempt]
        error = {"type": kind, "message": "as asked", "file": "main.py", "line": 1, "traceback": ""}
        self.tell({"type": "failed", "generation": number, "attempt": attempt, "phase": phase, "error": error})

    def _gone(self, attempt: int, cause: str) -> None:
        worker = self.workers.pop(attempt, None)
        if worker is not None:
            number = worker["generation"]
            self.tell({"type": "exited", "generation": number, "attempt": attempt, "cause": cause, "cut": 0})


class FakeEngine:
    """What outlives a runtime object: environments, replicas and their deaths, as an engine or a machine keeps them.

    gate: replicas are started only while it is set. unbuildable: lock hashes whose environment fails to build, besides
    requirements of packages named `no-such-…`.
    """

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.unbuildable: set[str] = set()
        self.builds: list[str] = []
        self.agents: dict[str, FakeAgent] = {}
        self.records: dict[str, ReplicaRecord] = {}
        self.listeners: set[asyncio.Queue[ReplicaExit]] = set()

    def kill_agent(self, incarnation: str) -> None:
        """An agent dies; whether its workers live on is the runtime's kind's business."""
        self._ending = asyncio.ensure_future(self.agents[incarnation].end())
        self.exited(incarnation, "signal 9")

    def exited(self, incarnation: str, cause: str) -> None:
        """Take note that an agent has ended, and tell whoever listens."""
        if incarnation in self.records:
            self.records[incarnation] = replace(self.records[incarnation], alive=False)
            for queue in self.listeners:
                queue.put_nowait(ReplicaExit(incarnation, cause))


class FakeRuntime:
    """A runtime of `FakeAgent`s. Two objects on one engine see the same replicas."""

    def __init__(
        self, kind: RuntimeKind = "process", *, revivable: bool = True, engine: FakeEngine | None = None
    ) -> None:
        self.kind: RuntimeKind = kind
        self.revivable = revivable
        self.engine = engine or FakeEngine()

    @property
    def agents(self) -> dict[str, FakeAgent]:
        return self.engine.agents

    async def check(self) -> None:
        return

    async def interpreter(self, python: str) -> str:
        if python not in {"", "3.11"}:
            raise SandboxError("no-python", f"Python {python} is not here", hint="there is: 3.11")
        return f"fake-{python or '3.11'}"

    async def find(self, model: ModelDesired) -> Environment | None:
        there = model.lock_hash in self.engine.builds
        return Environment(model.lock_hash, f"fake:{model.lock_hash}", "3.11.7") if there else None

    async def prepare(self, model: ModelDesired, report: Report) -> Environment:
        text = model.requirements.text
        if model.lock_hash in self.engine.unbuildable or text.startswith("no-such-"):
            raise BuildError(f"no matching distribution: {text}", log=(f"ERROR: no matching distribution: {text}",))
        if model.lock_hash not in self.engine.builds:
            report(Progress("building"))
            self.engine.builds.append(model.lock_hash)
        return Environment(model.lock_hash, f"fake:{model.lock_hash}", "3.11.7")

    def data_target(self, model: ModelDesired) -> str | None:
        data = os.path.join(model.path, "data")
        return data if os.path.isdir(data) else None

    async def start(self, model: ModelDesired, place: ReplicaPlace, environment: Environment) -> ReplicaRecord:
        if environment.lock_hash != model.lock_hash:
            raise RuntimeFailure("start", "the environment is not the model's")
        known = self.engine.records.get(place.incarnation)
        if known is not None and known.alive:
            return known
        await self.engine.gate.wait()
        ended = partial(self.engine.exited, place.incarnation, "exit 0")
        agent = self.agents.setdefault(place.incarnation, FakeAgent(place, ended))
        if not self.revivable:
            agent.workers.clear()
        await agent.start()
        record = ReplicaRecord(
            model=model.name,
            index=place.index,
            incarnation=place.incarnation,
            runtime=self.kind,
            replica_hash=model.replica_hash,
            lock_hash=model.lock_hash,
            folder=place.folder,
            sockets=place.sockets,
            uid=os.getuid(),
            alive=True,
            python=environment.python,
            pid=os.getpid(),
        )
        self.engine.records[place.incarnation] = record
        return record

    async def stop(self, replica: ReplicaRecord, grace: float) -> None:
        del grace
        agent = self.agents.pop(replica.incarnation, None)
        if agent is not None:
            self.engine.exited(replica.incarnation, "signal 15")
            await agent.end()
        self.engine.records.pop(replica.incarnation, None)
        await asyncio.to_thread(shutil.rmtree, replica.folder, ignore_errors=True)

    async def list(self) -> Sequence[ReplicaRecord]:
        return list(self.engine.records.values())

    async def exits(self) -> AsyncGenerator[ReplicaExit, None]:
        queue: asyncio.Queue[ReplicaExit] = asyncio.Queue()
        self.engine.listeners.add(queue)
        for record in self.engine.records.values():
            if not record.alive:  # died before anybody listened
                queue.put_nowait(ReplicaExit(record.incarnation, "signal 9"))
        try:
            while True:
                yield await queue.get()
        finally:
            self.engine.listeners.discard(queue)

    async def usage(self, replica: ReplicaRecord) -> Usage | None:
        return Usage(1.0, 2_000_000, 1) if replica.incarnation in self.engine.records else None

    async def processes(self, replica: ReplicaRecord) -> Sequence[Process]:
        there = replica.incarnation in self.engine.records
        return [Process(os.getpid(), os.getppid(), str(replica.uid), 1.0, 2_000_000, "fake agent")] if there else []

    async def remove_images(self) -> None:
        return

    async def close(self) -> None:
        return
