"""The runtimes that the contract suite runs against. A new one is one entry of CANDIDATES."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator.plan.types import ModelDesired, Requirements, RuntimeKind
from orchestrator.ports import ReplicaPlace, ReplicaRecord, Runtime
from orchestrator.runtimes.docker import DockerRuntime
from orchestrator.runtimes.process import ProcessRuntime
from orchestrator.testing import FakeEngine, FakeRuntime
from sandbox import isolation

# An agent as far as a runtime can tell: a socket that appears, an end on SIGTERM.
STUB_AGENT = """
import json, os, signal, socket, sys

config = json.loads(sys.argv[1])
if config["isolation"] is not None:
    from sandbox import isolation
    isolation.enter(config["isolation"])
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
folder = os.open(config["sockets"], os.O_RDONLY)
listener = socket.socket(socket.AF_UNIX)
listener.bind(f"/proc/self/fd/{folder}/new.sock")
os.chmod(f"/proc/self/fd/{folder}/new.sock", 0o666)
listener.listen()
os.rename("new.sock", "agent.sock", src_dir_fd=folder, dst_dir_fd=folder)
print("agent is up", flush=True)
while True:
    connection, _ = listener.accept()
    connection.sendall(json.dumps({"pid": os.getpid(), "config": config, "environment": dict(os.environ),
                                   "uid": os.getuid()}).encode() + b"\\n")
    connection.close()
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Folders of one test's sandbox."""

    sandbox: str
    project: Path
    state: Path
    cache: Path
    guest: Path


@dataclass(frozen=True, slots=True)
class Candidate:
    """A runtime under contract. make: another object of it on the same place. kill: end a replica's agent at once."""

    kind: RuntimeKind
    make: Callable[[Place], Runtime]
    kill: Callable[[ReplicaRecord], None]
    marks: tuple[pytest.MarkDecorator, ...] = ()
    runs_programs: bool = True


def _docker(place: Place) -> Runtime:
    return DockerRuntime(place.sandbox, str(place.project), str(place.state), str(place.cache))


def _process(place: Place) -> Runtime:
    return ProcessRuntime(place.sandbox, str(place.project), str(place.state), str(place.cache))


def _kill(replica: ReplicaRecord) -> None:
    assert replica.pid is not None
    os.kill(replica.pid, signal.SIGKILL)


# What a fake keeps between two runtime objects, by sandbox.
ENGINES: dict[Path, FakeEngine] = {}


def _fake(place: Place) -> Runtime:
    return FakeRuntime(engine=ENGINES.setdefault(place.state, FakeEngine()))


def _kill_fake(replica: ReplicaRecord) -> None:
    next(engine for engine in ENGINES.values() if replica.incarnation in engine.agents).kill_agent(replica.incarnation)


CANDIDATES = {
    "fake": Candidate("process", _fake, _kill_fake, runs_programs=False),
    "docker": Candidate("docker", _docker, _kill, (pytest.mark.docker,)),
    "process": Candidate("process", _process, _kill),
}


@dataclass(slots=True)
class Stage:
    """One test's sandbox: makes runtimes, models and places, and takes everything away at the end."""

    place: Place
    candidate: Candidate
    runtimes: list[Runtime] = field(default_factory=list)
    counter: int = 0

    def runtime(self) -> Runtime:
        self.runtimes.append(self.candidate.make(self.place))
        return self.runtimes[-1]

    def model(self, name: str = "hello", *, requirements: str = "") -> ModelDesired:
        # A lock hash of the test's own: nothing that another run left can answer for this one.
        return ModelDesired(
            name=name,
            path=str(self.place.project / name),
            runtime=self.candidate.kind,
            lock_hash=uuid.uuid4().hex * 2,
            replica_hash="1:" + "b" * 64,
            requirements=Requirements(requirements),
        )

    def incarnation(self, *, guest: Path | None = None) -> ReplicaPlace:
        self.counter += 1
        name = f"{uuid.uuid4().hex[:7]}{self.counter:x}"[:8]
        folder = self.place.state / "r" / name
        generations = self.place.project / "generations"
        folder.mkdir(parents=True, mode=0o700)
        generations.mkdir(exist_ok=True)
        (folder / "s").mkdir()
        (folder / "s").chmod(0o777)
        return ReplicaPlace(
            incarnation=name,
            index=0,
            folder=str(folder),
            sockets=str(folder / "s"),
            generations=str(generations),
            data=None,
            guest=str(guest or self.place.guest),
        )

    @staticmethod
    def guest(folder: Path, program: str = STUB_AGENT) -> Path:
        folder.mkdir()
        (folder / "__main__.py").write_text(program)
        (folder / "sandbox").mkdir()
        (folder / "sandbox" / "__init__.py").write_text("")
        shutil.copyfile(isolation.__file__, folder / "sandbox" / "isolation.py")
        folder.chmod(0o755)
        return folder

    async def started(self, runtime: Runtime, model: ModelDesired | None = None) -> ReplicaRecord:
        model = model or self.model()
        environment = await runtime.prepare(model, lambda _: None)
        return await runtime.start(model, self.incarnation(), environment)


@contextlib.asynccontextmanager
async def staged(candidate: Candidate, tmp_path: Path) -> AsyncIterator[Stage]:
    folders = {name: tmp_path / name for name in ("project", "state", "cache")}
    for folder in folders.values():
        folder.mkdir()
    place = Place(sandbox=uuid.uuid4().hex[:12], guest=Stage.guest(tmp_path / "stub"), **folders)
    stage = Stage(place, candidate)
    yield stage
    last = stage.runtime()
    for replica in await last.list():
        await last.stop(replica, 0)
    await last.remove_images()
    for runtime in stage.runtimes:
        await runtime.close()


@pytest.fixture(
    params=[pytest.param(candidate, id=name, marks=candidate.marks) for name, candidate in CANDIDATES.items()]
)
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(request.param, tmp_path) as stage:
        yield stage


@pytest.fixture(
    params=[
        pytest.param(candidate, id=name, marks=candidate.marks)
        for name, candidate in CANDIDATES.items()
        if candidate.runs_programs
    ]
)
async def running_stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    """Only runtimes whose agents are programs: what a program prints or is given cannot be asked of a fake."""
    async with staged(request.param, tmp_path) as stage:
        yield stage


@pytest.fixture
async def docker_stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(CANDIDATES["docker"], tmp_path) as stage:
        yield stage
