"""Models that people stop, start, restart and kill, on a whole control of fakes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from orchestrator.control.preview import preview
from orchestrator.control.reports import exit_code
from orchestrator.control.verbs import Verbs
from orchestrator.errors import SandboxError
from orchestrator.plan.overlay import Overlay
from orchestrator.plan.types import Serving
from orchestrator.ports import Route
from tests.unit.control.conftest import GOOD, Bench
from tests.unit.control.test_history import OTHER, Control


@pytest.fixture
async def control(bench: Bench) -> AsyncIterator[Control]:
    bench.write(GOOD)
    made = Control(bench)
    await made.begin()
    await made.live(1)
    yield made
    await made.end()


@pytest.fixture
def verbs(control: Control) -> Verbs:
    return Verbs(control.reconciler)


def answers(route: Route | None) -> bool:
    return route is not None and bool(route.upstreams)


async def test_a_stopped_model_is_gone_and_says_so(control: Control, verbs: Verbs) -> None:
    assert await verbs.stop([], None) == []
    await control.model.until(lambda state: state.status.state == "stopped")
    assert control.bench.runtime.agents == {}
    route = control.bench.traffic.routes["hello"]
    assert (route.state, route.upstreams) == ("stopped", ())
    assert "stopped by hand" in control.bench.events("stop")


async def test_a_stopped_model_stays_so_over_a_restart_of_control_an_edit_and_another_specification(
    control: Control, verbs: Verbs
) -> None:
    await verbs.stop(["hello"], 0.0)
    await control.again()
    await control.save(OTHER)
    control.want(replica_hash="1:b", replicas=2)
    await control.reconciler.reread()
    await control.model.until(lambda _: not control.model.pending())
    assert control.model.state.status.state == "stopped"
    assert control.bench.runtime.agents == {}

    assert await Verbs(control.reconciler).start(["hello"]) == []

    assert await control.live() == 2
    await control.again()
    assert await control.live() == 2
    assert len(control.bench.runtime.agents) == 2


async def test_a_down_forgets_what_was_stopped(control: Control, verbs: Verbs) -> None:
    await verbs.stop(["hello"], None)
    await control.down_and_up()
    assert await control.live() == 1


async def test_up_brings_back_what_was_stopped(control: Control, verbs: Verbs) -> None:
    await verbs.kill(["hello"])
    await verbs.bring_back([])
    assert await control.live() == 1


async def test_a_restart_makes_new_replicas_and_never_stops_answering(control: Control, verbs: Verbs) -> None:
    control.want(replicas=2)
    await control.reconciler.reread()
    await control.model.until(lambda state: state.routed is not None and len(state.routed.upstreams) == 2)
    before, told = set(control.bench.runtime.agents), len(control.bench.traffic.history)

    assert await verbs.restart(["hello"]) == []

    await control.model.until(lambda state: len(state.replicas) == 2)
    after = set(control.bench.runtime.agents)
    assert len(after) == 2
    assert not after & before
    assert all(answers(route) for _, route in control.bench.traffic.history[told:])
    # Who comes after knows that they are what is wanted.
    await control.again()
    await control.live(1)
    assert set(control.bench.runtime.agents) == after


async def test_a_restart_that_fails_is_told_and_the_old_replicas_answer(control: Control, verbs: Verbs) -> None:
    await control.save("# import\n")
    await control.model.until(lambda state: bool(state.rejected))
    before = set(control.bench.runtime.agents)
    control.want(lock_hash="lock-x", replica_hash="1:x")
    control.bench.runtime.engine.unbuildable.add("lock-x")
    await control.reconciler.reread()
    assert await verbs.restart(["hello"]) == ["hello"]
    assert before <= set(control.bench.runtime.agents)
    assert answers(control.bench.traffic.routes["hello"])


async def test_a_restart_starts_what_was_stopped(control: Control, verbs: Verbs) -> None:
    await verbs.stop(["hello"], None)
    assert await verbs.restart([]) == []
    assert await control.live() == 1


async def test_a_start_gives_a_stop_that_waits_its_answer(control: Control, verbs: Verbs) -> None:
    stopping = asyncio.create_task(verbs.stop(["hello"], 60.0))
    await control.model.until(lambda state: state.stopped)
    assert await verbs.start(["hello"]) == []
    assert answers(control.bench.traffic.routes["hello"])
    async with asyncio.timeout(10):
        assert await stopping == []
    assert await control.live() == 1


async def test_who_waits_for_a_stopped_model_is_told_so(control: Control, verbs: Verbs) -> None:
    await verbs.stop(["hello"], None)
    assert (await control.refused()).message.endswith("does not answer: stopped")


async def test_a_name_that_is_none_is_refused_with_its_neighbour(verbs: Verbs) -> None:
    for verb in (verbs.start, verbs.restart, verbs.kill):
        with pytest.raises(SandboxError, match="no model named helo") as raised:
            await verb(["helo"])
        assert (raised.value.reference, raised.value.hint) == ("unknown-model", "did you mean hello?")


async def test_who_waits_for_the_end_is_told_how_a_model_ended(control: Control, verbs: Verbs) -> None:
    control.want(restart="no")
    await control.reconciler.reread()
    ended = asyncio.create_task(verbs.ended("hello"))
    [agent] = control.bench.runtime.agents.values()
    agent.kill_worker()
    async with asyncio.timeout(10):
        assert await ended == 137
    await verbs.stop(["hello"], None)
    await control.model.until(lambda state: state.status.state == "stopped")
    assert await verbs.ended("hello") == 0


@pytest.mark.parametrize(("cause", "code"), [("exit 3", 3), ("signal 15", 143), ("out of memory", 137), ("killed", 1)])
def test_a_cause_is_an_exit_code(cause: str, code: int) -> None:
    assert exit_code(cause) == code


async def test_what_up_was_told_beside_the_files_holds_until_the_next(control: Control) -> None:
    await control.reconciler.reread(overlay=Overlay({"hello": 2}, watched=False))
    await control.model.until(lambda state: state.routed is not None and len(state.routed.upstreams) == 2)
    assert control.model.state.wish is not None
    assert control.model.state.wish.reload.mode == "off"
    control.want(serving=Serving(concurrency=3))
    await control.reconciler.reread()
    assert control.model.state.wish.replicas == 2
    control.bench.write(OTHER)
    await control.reconciler.reread(overlay=Overlay())
    assert control.model.state.wish.replicas == 1
    await control.live(2)  # what was saved unwatched counts from now on


async def test_plan_says_that_a_stopped_model_would_be_started(control: Control, verbs: Verbs) -> None:
    await verbs.stop(["hello"], None)
    assert [(each["verb"], each["cause"]) for each in await preview(control.reconciler)] == [
        ("replace", "stopped by hand")
    ]
