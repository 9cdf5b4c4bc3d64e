"""The sandbox as a whole on fakes: one thing that goes wrong ends none of the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest

from orchestrator.control.state import ModelState
from orchestrator.errors import SandboxError
from orchestrator.plan.types import Desired
from orchestrator.ports import ReplicaExit, ReplicaRecord
from tests.unit.control.conftest import GOOD, Bench
from tests.unit.control.test_history import OTHER, Control


class Troubled(Control):
    """A control whose files cannot always be read. faults: what the next reads raise; gone: they have no model."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.faults: list[Exception] = []
        self.gone = False

    def read(self, profiles: Sequence[str], models: Sequence[str]) -> Desired:
        if self.faults:
            raise self.faults.pop()
        found = super().read(profiles, models)
        return replace(found, models={}) if self.gone else found

    async def until_told(self, text: str) -> None:
        async with asyncio.timeout(10):
            with self.bench.world.journal.listen() as events:
                while not any(text in line for line in self.bench.events("failed")):
                    await events.get()


@pytest.fixture
async def control(bench: Bench) -> AsyncIterator[Troubled]:
    bench.write(GOOD)
    made = Troubled(bench)
    await made.begin()
    await made.live(1)
    yield made
    await made.end()


async def test_saves_are_acted_on_after_one_that_could_not_be(control: Troubled) -> None:
    control.faults.append(OSError(5, "Input/output error"))
    control.bench.write("x: 1\n", "config.yaml")
    await control.until_told("a save was not acted on: OSError(5, 'Input/output error')")
    control.bench.write(OTHER)
    await control.live(2)


async def test_deaths_are_heard_after_the_hearing_broke(control: Troubled, monkeypatch: pytest.MonkeyPatch) -> None:
    await control.end()
    exits, broken = control.bench.runtime.exits, [KeyError("incarnation")]

    async def breaking() -> AsyncIterator[ReplicaExit]:
        if broken:
            raise broken.pop()
        async for each in exits():
            yield each

    monkeypatch.setattr(control.bench.runtime, "exits", breaking)
    monkeypatch.setattr("orchestrator.control.reconciler.LISTEN_AGAIN", 0.0)
    await control.begin()
    await control.until_told("deaths of replicas were not heard: KeyError('incarnation')")
    [incarnation] = control.bench.runtime.agents
    control.bench.runtime.engine.kill_agent(incarnation)

    def back(state: ModelState) -> bool:
        return bool(control.bench.events("exit")) and state.replicas[incarnation].state == "up"

    async with asyncio.timeout(10):
        await control.model.until(back)


async def test_a_model_found_beside_a_wrong_file_is_built_for_once_the_file_is_right(control: Troubled) -> None:
    await control.end()
    control.faults.append(SandboxError("yaml-syntax", "no"))
    await control.begin()
    assert control.model.state.routed is not None
    await control.reconciler.reread()
    control.want(replicas=2)
    await control.reconciler.reread()

    async with asyncio.timeout(10):
        await control.model.until(lambda state: state.routed is not None and len(state.routed.upstreams) == 2)


async def test_a_removed_model_leaves_no_trees(control: Troubled) -> None:
    pool = control.bench.folder / "generations" / "hello"
    assert list(pool.iterdir())
    control.gone = True
    await control.reconciler.reread()
    await control.reconciler.remove_orphans()
    assert not pool.exists()
    assert control.bench.store.generations("hello")


async def test_what_an_engine_that_was_away_has_of_an_earlier_control_is_ended_once_it_is_back(
    control: Troubled, monkeypatch: pytest.MonkeyPatch
) -> None:
    await control.end()
    runtime = control.bench.runtime
    listed, away = runtime.list, [1, 2]
    [before] = runtime.agents

    async def late() -> Sequence[ReplicaRecord]:
        if away:
            away.pop()
            raise SandboxError("no-engine", "it is being restarted")
        return await listed()

    monkeypatch.setattr(runtime, "list", late)
    monkeypatch.setattr("orchestrator.control.latecomers.LOOK_AGAIN", 0.0)
    await control.begin()
    async with asyncio.timeout(10):
        with control.bench.world.journal.listen() as events:
            while before in runtime.agents:
                await events.get()
    await control.model.until(lambda state: state.routed is not None and bool(state.routed.upstreams))
    assert set(runtime.agents) == set(control.model.state.replicas)
