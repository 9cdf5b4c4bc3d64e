"""A model whose generations do not fit beside each other, under control; and replicas that hardly come up. On fakes."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.plan.types import Limits
from orchestrator.ports import Environment, ReplicaExit, ReplicaPlace, ReplicaRecord
from tests.unit.control.conftest import GOOD, Bench

MIB = 1 << 20


async def begin_tight(bench: Bench) -> None:
    """A model of which one generation takes 60 of 100 MiB."""
    bench.want(limits=Limits(memory=100 * MIB))
    await bench.begin()
    await bench.until_live(1)
    next(iter(bench.runtime.agents.values())).takes = 60 * MIB
    await bench.save(GOOD + "# again\n")  # loaded beside the first: nothing was known of it yet
    await bench.until_live(2)
    await bench.until(lambda state: all(len(each.workers) == 1 for each in state.replicas.values()))


def routes(bench: Bench, since: int) -> list[tuple[int | None, int]]:
    """The generation and the number of workers of each route since then."""
    return [(route.generation, len(route.upstreams)) for _, route in bench.traffic.history[since:] if route is not None]


async def test_what_does_not_fit_is_stopped_first_and_the_reason_is_told(bench: Bench) -> None:
    await begin_tight(bench)
    since = len(bench.traffic.history)
    await bench.save(GOOD + "# third\n")
    await bench.until_live(3)
    assert [*dict.fromkeys(routes(bench, since))][-2:] == [(2, 0), (3, 1)]
    reason = "memory 100 MiB < 60 MiB in use + 1.2 times 60 MiB for a load"
    assert f"g2 ends first, requests are held: {reason}" in bench.events("reload")
    event = next(each for each in bench.store.events() if each["data"].get("generation") == 3 and "ok" in each["data"])
    assert event["data"]["tier"] == "stop-first"
    assert event["data"]["cause"] == f"main.py; {reason}"
    assert "held" in event["data"]["phases"]


async def test_the_old_one_ended_before_the_new_one_was_let_on(bench: Bench) -> None:
    await begin_tight(bench)
    agent = next(iter(bench.runtime.agents.values()))
    before = len(agent.received)
    await bench.save(GOOD + "# third\n")
    await bench.until_live(3)
    told = [
        each["type"] for each in agent.received[before:] if each["type"] in {"load", "retire", "proceed", "activate"}
    ]
    assert told == ["load", "retire", "proceed", "activate"]


async def test_where_the_new_one_fails_the_old_one_answers_again_and_its_outage_is_told(bench: Bench) -> None:
    await begin_tight(bench)
    since = len(bench.traffic.history)
    await bench.save("# load\n")
    state = await bench.until_state("degraded")
    assert "ValueError main.py:1 as asked" in state.status.reason
    assert {(2, 0), (2, 1)} <= set(routes(bench, since))
    assert state.routed is not None
    assert (state.routed.generation, len(state.routed.upstreams)) == (2, 1)
    assert any(line.startswith("g2 answers again after ") for line in bench.events("reload"))


async def test_what_fails_before_its_load_empties_no_route(bench: Bench) -> None:
    await begin_tight(bench)
    since = len(bench.traffic.history)
    await bench.save("# import\n")
    await bench.until_state("degraded")
    assert all(upstreams for _, upstreams in routes(bench, since))


async def test_a_new_control_learns_from_the_agents_what_a_generation_takes(bench: Bench) -> None:
    await begin_tight(bench)
    for agent in bench.runtime.agents.values():
        for worker in agent.workers.values():
            worker["peak"] = {"load": 60 * MIB}
    await bench.model.close()
    bench.model = bench.make_model()
    await bench.model.adopt(bench.wish, list(bench.runtime.engine.records.values()))
    assert bench.model.state.peak is not None
    assert bench.model.state.peak.loaded == 60 * MIB


async def test_a_control_that_dies_while_the_new_one_loads_knows_what_to_go_back_to(bench: Bench) -> None:
    await begin_tight(bench)
    agent = next(iter(bench.runtime.agents.values()))
    await bench.save("# hang\n")
    await bench.until(
        lambda state: (
            [worker.state for replica in state.replicas.values() for worker in replica.workers.values()] == ["loading"]
        )
    )
    await bench.model.close()
    bench.model = bench.make_model()
    await bench.model.adopt(bench.wish, await bench.runtime.list())
    bench.model.want(bench.wish, ())
    bench.model.start()
    ((attempt, worker),) = agent.workers.items()
    agent.fail(worker["generation"], attempt, "load", "ValueError")
    await bench.until_live(2)
    assert (await bench.until_state("degraded")).good is not None


async def test_what_did_not_end_in_time_is_told(bench: Bench) -> None:
    await bench.begin()
    await bench.until_live(1)
    agent = next(iter(bench.runtime.agents.values()))
    agent.ends_by = "signal 9"
    await bench.save(GOOD + "# again\n")
    await bench.until_live(2)
    await bench.until(lambda state: all(len(each.workers) == 1 for each in state.replicas.values()))
    assert "g1: killed after the drain deadline, with whatever it still had open" in bench.events("reload")


async def test_an_agent_that_dies_before_its_start_is_recorded_costs_no_greeting(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = bench.runtime.start
    died = []

    async def dies(model: object, place: ReplicaPlace, environment: Environment) -> ReplicaRecord:
        record = await start(model, place, environment)  # type: ignore[arg-type]
        if not died:
            died.append(place.incarnation)
            await bench.runtime.agents[place.incarnation].end()
            assert bench.model.ended(ReplicaExit(place.incarnation, "signal 9"))
        return record

    monkeypatch.setattr(bench.runtime, "start", dies)
    async with asyncio.timeout(10):
        await bench.begin()
        await bench.until_state("running")
    assert any("its agent ended at once" in line for line in bench.events("failed"))


async def test_an_agent_that_dies_again_while_it_is_revived_is_revived_once_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.begin()
    await bench.until_live(1)
    (incarnation,) = bench.model.state.replicas
    replica = bench.model.state.replicas[incarnation]
    start = bench.runtime.start
    starting = []

    async def dies_at_first(model: object, place: ReplicaPlace, environment: Environment) -> ReplicaRecord:
        assert replica.state == "starting"
        starting.append(place.incarnation)
        record = await start(model, place, environment)  # type: ignore[arg-type]
        if len(starting) == 1:
            await bench.runtime.agents[place.incarnation].end()
            bench.runtime.engine.exited(place.incarnation, "signal 9")
            assert bench.model.ended(ReplicaExit(place.incarnation, "signal 9"))
            assert replica.state == "starting", "two would bring it up at once"
        return record

    monkeypatch.setattr(bench.runtime, "start", dies_at_first)
    bench.runtime.engine.kill_agent(incarnation)
    assert bench.model.ended(ReplicaExit(incarnation, "signal 9"))
    await bench.until(lambda state: replica.state == "up")
    assert starting == [incarnation, incarnation]
    assert list(bench.model.state.replicas) == [incarnation]
    assert replica.workers


async def test_a_start_that_fails_for_a_reason_that_nobody_foresaw_is_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = bench.runtime.start
    tried = []

    async def fails_at_first(model: object, place: ReplicaPlace, environment: Environment) -> ReplicaRecord:
        tried.append(place.incarnation)
        if len(tried) == 1:
            raise KeyError("unforeseen")
        return await start(model, place, environment)  # type: ignore[arg-type]

    monkeypatch.setattr(bench.runtime, "start", fails_at_first)
    await bench.begin()
    await bench.until_state("running")
    assert len(tried) == 2
    assert any("internal error: KeyError('unforeseen')" in line for line in bench.events("failed"))
