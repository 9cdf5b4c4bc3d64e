"""A mounted folder that was deleted and made again gets replicas that see it; one that is missing changes nothing."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator

import pytest

from orchestrator.plan.types import Mount
from tests.unit.control.conftest import GOOD, Bench
from tests.unit.control.test_history import Control


@pytest.fixture
async def control(bench: Bench) -> AsyncIterator[Control]:
    bench.write(GOOD)
    (bench.path / "data").mkdir()
    (bench.folder / "weights").mkdir()
    made = Control(bench)
    made.want(mounts=(Mount(str(bench.folder / "weights"), "/weights"),))
    await made.begin()
    await made.live(1)
    yield made
    await made.end()


async def until_replaced(control: Control, before: set[str]) -> None:
    async with asyncio.timeout(10):
        await control.model.until(lambda state: not before & set(state.replicas) and state.answers)


def causes(control: Control) -> list[str]:
    events = control.bench.store.events()
    return [
        each["data"]["cause"] for each in events if each["data"].get("tier") == "replace" and "cause" in each["data"]
    ]


@pytest.mark.parametrize(("folder", "shown"), [("hello/data", "data"), ("weights", "../weights")])
async def test_a_folder_that_was_made_again_is_mounted_by_new_replicas(
    control: Control, folder: str, shown: str
) -> None:
    before = set(control.model.state.replicas)
    aside = control.bench.folder / "new"
    aside.mkdir()  # so that it cannot be given the inode of the one that is removed
    shutil.rmtree(control.bench.folder / folder)
    aside.rename(control.bench.folder / folder)
    await until_replaced(control, before)
    assert causes(control) == [f"{shown} is another folder now"]
    answered = [bool(route and route.upstreams) for _, route in control.bench.traffic.history]
    assert all(answered[answered.index(True) :]), "the route was empty for a moment"


async def test_a_folder_that_is_missing_changes_nothing_until_it_is_back(control: Control) -> None:
    before = set(control.model.state.replicas)
    (control.bench.path / "data").rename(control.bench.folder / "aside")
    await control.reconciler.remount()
    assert not control.model.pending()
    (control.bench.folder / "aside").rename(control.bench.path / "data")
    await control.reconciler.remount()
    assert not control.model.pending()
    assert set(control.model.state.replicas) == before


async def test_a_save_meanwhile_is_not_loaded_where_the_dead_folder_is_seen(control: Control) -> None:
    [old] = control.bench.runtime.agents.values()
    control.bench.runtime.engine.gate.clear()
    (control.bench.folder / "new").mkdir()
    shutil.rmtree(control.bench.path / "data")
    (control.bench.folder / "new").rename(control.bench.path / "data")
    await control.reconciler.remount()
    await control.save(GOOD + "# other\n")
    await control.model.until(lambda _: not control.model.pending())
    control.bench.runtime.engine.gate.set()
    await control.live(2)
    assert {each["generation"] for each in old.received if each["type"] == "load"} == {1}


async def test_a_control_that_comes_back_replaces_nothing(control: Control) -> None:
    before = set(control.model.state.replicas)
    await control.again()
    await control.live(1)
    assert not control.model.pending()
    assert set(control.model.state.replicas) == before
