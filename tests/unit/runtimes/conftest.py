"""A sandbox for each test of the process runtime: folders, a runtime, replicas whose agent runs what it is sent."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.folders import remove_tree
from orchestrator.plan.types import Limits, ModelDesired, Requirements
from orchestrator.ports import ReplicaPlace, ReplicaRecord
from orchestrator.runtimes.process import ProcessRuntime
from sandbox import isolation

# "1": every wall must stand. Or names: "files,network".
REQUIRED = os.environ.get("SANDBOX_REQUIRE_ISOLATION", "")
DEADLINE = 30


def python(source: str, replica: ReplicaRecord) -> Any:
    """Run `source` in the replica's agent; what it leaves in `result`."""
    folder = os.open(replica.sockets, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(DEADLINE)
            connection.connect(f"/proc/self/fd/{folder}/agent.sock")
            with connection.makefile("rw") as stream:
                stream.write(json.dumps(source) + "\n")
                stream.flush()
                answer = json.loads(stream.readline())
    finally:
        os.close(folder)
    assert "error" not in answer, answer["error"]
    return answer["result"]


@dataclass(slots=True)
class Sandbox:
    """Folders and a runtime on them. sandbox_id: unlike any other test's."""

    folder: Path
    sandbox_id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    runtimes: list[ProcessRuntime] = field(default_factory=list)

    @property
    def project(self) -> Path:
        return self.folder / "project"

    @property
    def state(self) -> Path:
        return self.folder / "state" / "model-sandbox" / self.sandbox_id

    @property
    def cache(self) -> Path:
        return self.folder / "cache" / "model-sandbox"

    @property
    def guest(self) -> Path:
        return self.cache / "guests" / "stub"

    def make(self) -> Sandbox:
        for path in (self.project / "hello" / "data", self.state / "r", self.guest / "sandbox"):
            path.mkdir(parents=True)
        self.state.parent.chmod(0o755)  # so that it is the wall that hides it
        (self.project / "hello" / "main.py").write_text("def predict(): ...\n")
        (self.project / "hello" / "data" / "words.txt").write_text("words")
        shutil.copyfile(Path(__file__).with_name("stub_guest.py"), self.guest / "__main__.py")
        (self.guest / "sandbox" / "__init__.py").write_text("")
        shutil.copyfile(isolation.__file__, self.guest / "sandbox" / "isolation.py")
        return self

    def runtime(self) -> ProcessRuntime:
        made = ProcessRuntime(self.sandbox_id, str(self.project), str(self.state), str(self.cache))
        self.runtimes.append(made)
        return made

    def model(self, name: str = "hello", *, requirements: str = "", **changes: Any) -> ModelDesired:
        lock_hash = uuid.uuid5(uuid.NAMESPACE_OID, requirements).hex * 2
        model = ModelDesired(
            name=name,
            path=str(self.project / name),
            runtime="process",
            lock_hash=lock_hash,
            replica_hash="1:" + "b" * 64,
            requirements=Requirements(requirements),
            limits=Limits(pids=64),
        )
        return replace(model, **changes)

    def place(self, *, data: bool = True) -> ReplicaPlace:
        incarnation = uuid.uuid4().hex[:8]
        folder = self.state / "r" / incarnation
        (folder / "s").mkdir(parents=True)
        folder.chmod(0o700)
        (folder / "s").chmod(0o777)
        generations = self.project / ".sandbox" / "generations" / "hello"
        (generations / "tree-1").mkdir(parents=True, exist_ok=True)
        (generations / "tree-1" / "main.py").write_text("def predict(): ...\n")
        return ReplicaPlace(
            incarnation=incarnation,
            index=0,
            folder=str(folder),
            sockets=str(folder / "s"),
            generations=str(generations),
            data=str(self.project / "hello" / "data") if data else None,
            guest=str(self.guest),
        )

    async def started(
        self, runtime: ProcessRuntime, model: ModelDesired | None = None, place: ReplicaPlace | None = None
    ) -> ReplicaRecord:
        model = model or self.model()
        environment = await runtime.prepare(model, lambda _: None)
        return await runtime.start(model, place or self.place(), environment)


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Path]:
    """A folder that everyone may read and no wall covers by itself, where root can make one; /tmp is always private."""
    if os.geteuid() != 0:
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(prefix="model-sandbox-test-", dir="/var/lib"))
    folder.chmod(0o755)
    yield folder
    remove_tree(str(folder))


@pytest.fixture
async def sandbox(ground: Path) -> AsyncIterator[Sandbox]:
    made = Sandbox(ground).make()
    yield made
    last = made.runtime()
    for replica in await last.list():
        await last.stop(replica, 0)
    for runtime in made.runtimes:
        await runtime.close()


async def ask(replica: ReplicaRecord, source: str) -> Any:
    """`python` without blocking the test's loop."""
    return await asyncio.to_thread(python, source, replica)


def stopped_or_said(stopped: bool, replica: ReplicaRecord, wall: str) -> None:
    """The attempt was stopped; where this machine cannot stop it, the replica says so (never where it is required)."""
    if stopped:
        return
    required = REQUIRED == "1" or wall in REQUIRED.split(",")
    assert not required, f"{wall}: not stopped, and SANDBOX_REQUIRE_ISOLATION={REQUIRED}"
    said = [sentence for sentence in replica.not_enforced if sentence.startswith(f"{wall}:")]
    assert said, f"{wall}: not stopped, and not said: {replica.not_enforced}"
