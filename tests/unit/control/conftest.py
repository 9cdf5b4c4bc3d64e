"""One model under control, on fakes: real files, real generations, no process."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.control.generations import Generations
from orchestrator.control.journal import Journal
from orchestrator.control.learned import Learned
from orchestrator.control.logs import Logs
from orchestrator.control.meters import Meters
from orchestrator.control.model import Model
from orchestrator.control.standing import Standing
from orchestrator.control.state import ModelState
from orchestrator.control.world import World
from orchestrator.plan.types import ModelDesired
from orchestrator.store import Store
from orchestrator.testing import FakeRuntime, FakeTraffic
from tests.unit.control.desk import Desk

GOOD = "def predict(x): return x\n"


class Bench:
    """A model directory, its wish, and a Model that makes it so."""

    def __init__(self, folder: Path, *, revivable: bool = True) -> None:
        self.folder = folder
        self.path = folder / "hello"
        self.path.mkdir(exist_ok=True)
        self.runtime = FakeRuntime(revivable=revivable)
        self.traffic = FakeTraffic()
        self.store = Store(str(folder / "store.db"))
        (folder / "logs").mkdir(exist_ok=True)
        self.world = self.make_world()
        self.wish = ModelDesired(
            name="hello", path=str(self.path), runtime="process", lock_hash="lock-1", replica_hash="1:a"
        )
        self.model = self.make_model()

    def make_world(self) -> World:
        return World(
            sandbox_id="0" * 12,
            state=str(self.folder),
            generations=str(self.folder / "generations"),
            guest="/nowhere",
            runtimes={"process": self.runtime},
            traffic=self.traffic,
            journal=Journal(self.store),
            logs=Logs(str(self.folder / "logs")),
            meters=Meters(),
            standing=Standing(self.store),
            learned=Learned(self.store),
        )

    def make_model(self) -> Model:
        generations = Generations(
            str(self.folder), self.store, allowed=[str(self.folder)], read_config=lambda _path, _shown: {}
        )
        return Model("hello", self.world, generations, lambda: None)

    def write(self, text: str, name: str = "main.py") -> None:
        """In one step, so that no look that is under way finds half a save."""
        aside = self.folder / "aside"
        aside.write_text(text)
        aside.replace(self.path / name)

    async def begin(self, text: str = GOOD) -> None:
        self.write(text)
        self.model.want(self.wish, ())
        self.model.start()
        await self.model.source.look(None)

    async def save(self, text: str, name: str = "main.py") -> None:
        self.write(text, name)
        await self.model.source.look([name])

    def want(self, **changes: object) -> None:
        self.wish = replace(self.wish, **changes)  # type: ignore[arg-type]
        self.model.want(self.wish, ())

    async def until_state(self, state: str) -> ModelState:
        await self.until(lambda found: found.status.state == state)
        return self.model.state

    async def until(self, settled: object) -> None:
        async with asyncio.timeout(10):
            await self.model.until(settled)  # type: ignore[arg-type]

    async def until_live(self, generation: int) -> None:
        await self.until(
            lambda state: (
                state.routed is not None and state.routed.generation == generation and bool(state.routed.upstreams)
            )
        )

    @property
    def route(self) -> object:
        return self.traffic.routes["hello"]

    def events(self, kind: str) -> list[str]:
        return [each["message"] for each in self.store.events() if each["event"] == kind]

    async def close(self) -> None:
        await self.model.close()
        for agent in self.runtime.agents.values():
            await agent.end()
        self.store.close()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    folder = Path(tempfile.mkdtemp(prefix="sbx"))  # short: unix sockets live below it
    made = Bench(folder)
    yield made
    await made.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(tmp_path)
    yield made
    await made.batches.aclose()
    await made.watcher.close()
