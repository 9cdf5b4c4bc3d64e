"""Each reload is told once, with what it was for, the step that was taken, its phases and its result; and counted."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.plan.types import ReloadPolicy, Serving
from tests.unit.control.conftest import GOOD, Bench

OTHER = GOOD + "# other\n"


def reloads(bench: Bench, **wanted: Any) -> list[dict[str, Any]]:
    """The events that carry a reload's result, oldest first, with these data."""
    told = [each for each in bench.store.events() if "result" in each["data"]]
    return [each for each in told if wanted.items() <= each["data"].items()]


def counted(bench: Bench) -> dict[tuple[str, ...], float]:
    [family] = [each for each in bench.world.meters.families() if each["name"] == "sandbox_reloads_total"]
    return {tuple(labels[1:]): value for labels, value in family["series"]}


def phases(bench: Bench) -> set[str]:
    [family] = [each for each in bench.world.meters.families() if each["name"] == "sandbox_reload_duration_seconds"]
    return {labels[1] for labels, *_ in family["series"]}


@pytest.fixture
async def live(bench: Bench) -> Bench:
    await bench.begin()
    await bench.until_live(1)
    return bench


async def test_a_save_is_told_in_one_line_with_all_that_a_program_wants_to_know(live: Bench) -> None:
    await live.save(OTHER)
    await live.until_live(2)
    [event] = reloads(live, generation=2)
    assert event["event"] == "reload"
    assert event["message"].startswith("✔ g2 in ")
    assert event["message"].endswith(" ms (fork: main.py)")
    data = event["data"]
    assert (data["tier"], data["result"], data["cause"], data["files"]) == ("fork", "ok", "main.py", ["main.py"])
    assert set(data["phases"]) == {"detect", "snapshot", "fork", "ready", "swap", "total"}
    assert counted(live)["fork", "ok"] == 2.0  # the first start, too


async def test_a_rejected_edit_says_the_same_of_itself(live: Bench) -> None:
    await live.save("# syntax\n")
    await live.until_state("degraded")
    [event] = reloads(live, result="failed")
    data = event["data"]
    assert (data["tier"], data["generation"], data["cause"], data["files"]) == ("fork", 2, "main.py", ["main.py"])
    assert data["error"]["file"] == "main.py"
    assert "total" in data["phases"]
    assert counted(live)["fork", "failed"] == 1.0


async def test_a_candidate_that_a_newer_save_replaces_is_told_once(live: Bench) -> None:
    live.want(replicas=2)
    await live.until(lambda state: state.routed is not None and len(state.routed.upstreams) == 2)
    await live.save("# hang\n")
    await live.until(lambda state: all(len(each.workers) == 2 for each in state.replicas.values()))
    await live.save(OTHER)
    await live.until_live(3)
    [event] = reloads(live, result="superseded")
    assert (event["data"]["generation"], event["data"]["files"]) == (2, ["main.py"])
    assert event["message"] == "g2 gave way to g3 before it was ready (main.py)"


async def test_limits_are_told_once_all_that_runs_has_them(live: Bench) -> None:
    live.want(serving=Serving(concurrency=2))
    await live.until(lambda state: state.told_live is None)
    [event] = reloads(live, tier="live")
    assert event["message"].endswith("(live: concurrency 16 → 2)")
    assert event["data"]["generation"] == 1
    assert set(event["data"]["phases"]) == {"detect", "total"}
    assert counted(live)["live", "ok"] == 1.0
    [agent] = live.runtime.agents.values()
    assert [each["serving"]["concurrency"] for each in agent.received if each["type"] == "configure"] == [2]


async def test_a_replica_count_is_told_once_as_many_answer(live: Bench) -> None:
    live.want(replicas=3)
    await live.until(lambda state: state.told_live is None)
    [event] = reloads(live, tier="live")
    assert event["message"].endswith("(live: replicas 1 → 3)")
    assert live.model.state.routed is not None
    assert len(live.model.state.routed.upstreams) == 3


async def test_a_load_timeout_is_sent_to_what_runs(live: Bench) -> None:
    live.want(load_timeout=5.0)
    await live.until(lambda state: state.told_live is None)
    [agent] = live.runtime.agents.values()
    assert [each["load_timeout"] for each in agent.received if each["type"] == "configure"] == [5.0]


async def test_what_an_agent_may_not_have_heard_it_is_told_again(live: Bench) -> None:
    [agent] = live.runtime.agents.values()
    live.want(serving=Serving(concurrency=2))
    replica = live.model.state.replicas[agent.place.incarnation]
    replica.telling = (Serving(concurrency=2), 300.0)
    live.model.reports.lost(replica)
    replica.state = "up"
    live.model.wake()
    await live.until(lambda state: state.told_live is None)
    assert any(each["type"] == "configure" for each in agent.received)


async def test_a_replacement_carries_what_it_is_for_its_build_and_its_start(live: Bench) -> None:
    live.want(lock_hash="lock-2", replica_hash="1:b")
    await live.until(lambda state: state.routed is not None and state.routed.replica_hash == "1:b")
    [event] = reloads(live, tier="replace")
    assert event["data"]["cause"] == "environment of its packages"
    assert {"detect", "build", "start", "fork", "ready", "swap", "total"} <= set(event["data"]["phases"])
    assert event["data"]["phases"]["total"] >= event["data"]["phases"]["start"]


async def test_with_mode_replace_the_cause_is_the_file_whatever_was_replaced_before(live: Bench) -> None:
    live.want(network="bridge", replica_hash="1:b")
    await live.until(lambda state: state.routed is not None and state.routed.replica_hash == "1:b")
    live.want(reload=ReloadPolicy(mode="replace"))
    await live.save(OTHER)
    await live.until_live(2)
    [event] = reloads(live, tier="replace", generation=2)
    assert event["data"]["cause"] == "main.py"
    assert not reloads(live, tier="fork", generation=2), "the old replica ran it first"


async def test_a_failed_build_is_a_failed_replacement_with_the_installers_words(live: Bench) -> None:
    live.runtime.engine.unbuildable.add("lock-2")
    live.want(lock_hash="lock-2", replica_hash="1:b")
    await live.until_state("degraded")
    [event] = reloads(live, result="failed")
    assert event["event"] == "build"
    assert (event["data"]["tier"], event["data"]["generation"]) == ("replace", 1)
    assert "build" in event["data"]["phases"]
    assert "no matching distribution" in event["data"]["log"]


async def test_a_spawn_says_why_it_was_no_fork(live: Bench) -> None:
    [agent] = live.runtime.agents.values()
    agent.tell({"type": "zygote", "state": "unsafe", "pid": None, "reason": "torch left 2 threads", "imports": []})
    await live.until(lambda state: bool(state.unforkable))
    assert "new workers are spawned, not forked: torch left 2 threads" in live.events("reload")
    await live.until(lambda _: live.traffic.routes["hello"].info["unforkable"] == "torch left 2 threads")
    agent.how = "spawn"
    await live.save(OTHER)
    await live.until_live(2)
    [event] = reloads(live, tier="spawn")
    assert event["message"].endswith(" ms (spawn: main.py; torch left 2 threads)")


async def test_every_phase_of_a_reload_is_measured(live: Bench) -> None:
    await live.save(OTHER)
    await live.until_live(2)
    await live.until(lambda state: all(len(each.workers) == 1 for each in state.replicas.values()))
    assert {"detect", "fork", "swap", "drain", "total"} <= phases(live)
