"""One model's loop against fakes: what a person does to it, and what the gateways are told."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.control.orphans import wish_of
from orchestrator.errors import RuntimeFailure
from orchestrator.plan.types import ReloadPolicy
from orchestrator.ports import ReplicaExit, ReplicaRecord
from tests.unit.control.conftest import GOOD, Bench


async def test_a_model_becomes_ready_and_is_routed(bench: Bench) -> None:
    await bench.begin()
    await bench.until_state("running")
    route = bench.traffic.routes["hello"]
    assert route.generation == 1
    assert len(route.upstreams) == 1
    assert bench.runtime.engine.builds == ["lock-1"]


async def test_a_save_swaps_to_a_new_generation_and_retires_the_old(bench: Bench) -> None:
    await bench.begin()
    await bench.until_live(1)
    await bench.save("def predict(x): return 2 * x\n")
    await bench.until_live(2)
    await bench.until(lambda state: all(len(each.workers) == 1 for each in state.replicas.values()))
    assert any("g2" in line for line in bench.events("reload"))


async def test_a_broken_edit_keeps_the_last_good_generation_serving(bench: Bench) -> None:
    await bench.begin()
    await bench.until_live(1)
    await bench.save("# syntax\n")
    state = await bench.until_state("degraded")
    assert state.status.reason == "SyntaxError main.py:1 as asked"
    route = bench.traffic.routes["hello"]
    assert (route.generation, route.state) == (1, "degraded")
    assert route.error is not None
    assert route.error["file"] == "main.py"
    await bench.save(GOOD + "\n")
    await bench.until_live(3)
    assert (await bench.until_state("running")).status.problem is None


async def test_a_model_that_never_worked_is_failed_and_comes_up_when_mended(bench: Bench) -> None:
    await bench.begin("# import\n")
    state = await bench.until_state("failed")
    assert "ImportError main.py:1" in state.status.reason
    await bench.save(GOOD)
    await bench.until_state("running")


async def test_saves_faster_than_load_still_land(bench: Bench) -> None:
    await bench.begin()
    await bench.until_live(1)
    for at in range(5):
        await bench.save(f"# hang\n# {at}\n")
    await bench.save(GOOD + "# last\n")
    agent = next(iter(bench.runtime.agents.values()))
    await bench.until(lambda state: state.superseded >= 2)
    for attempt, worker in list(agent.workers.items()):
        if worker["state"] == "loading":  # the one that was let finish, finishes
            worker["state"] = "ready"
            ready = {"type": "ready", "generation": worker["generation"], "attempt": attempt}
            agent.tell({**ready, "socket": worker["socket"], "pid": 1, "phases": {}, "imports": [], "info": {}})
    await bench.until(
        lambda state: (
            state.routed is not None and state.wanted is not None and state.routed.generation == state.wanted.number
        )
    )
    kills = [each for each in agent.received if each["type"] == "kill"]
    assert len(kills) <= 4


async def test_a_missing_main_py_is_told_and_keeps_serving(bench: Bench) -> None:
    await bench.begin()
    await bench.until_live(1)
    (bench.path / "main.py").unlink()
    await bench.model.source.look(["main.py"])
    state = await bench.until_state("degraded")
    assert "main.py" in state.status.reason
    assert bench.traffic.routes["hello"].upstreams
    await bench.save(GOOD)
    await bench.until_state("running")


async def test_changed_requirements_build_beside_the_one_that_serves(bench: Bench) -> None:
    await bench.begin()
    await bench.until_live(1)
    before = set(bench.model.state.replicas)
    bench.want(lock_hash="lock-2", replica_hash="1:b")
    await bench.until(lambda state: state.routed is not None and state.routed.replica_hash == "1:b")
    await bench.until(lambda state: not before & set(state.replicas))
    answered = [bool(route and route.upstreams) for _, route in bench.traffic.history]
    assert all(answered[answered.index(True) :]), "the route was empty for a moment"


async def test_a_failed_build_degrades_and_says_what_the_installer_said(bench: Bench) -> None:
    await bench.begin()
    await bench.until_live(1)
    bench.runtime.engine.unbuildable.add("lock-2")
    bench.want(lock_hash="lock-2", replica_hash="1:b")
    state = await bench.until_state("degraded")
    assert state.status.problem is not None
    assert "no matching distribution" in state.status.problem.traceback
    assert bench.traffic.routes["hello"].upstreams
    bench.want(lock_hash="lock-1", replica_hash="1:a")
    await bench.until_state("running")


async def test_a_failed_build_is_tried_again_and_told_after_any_change_of_the_specification(bench: Bench) -> None:
    await bench.begin()
    await bench.until_live(1)
    bench.runtime.engine.unbuildable.add("lock-2")
    bench.want(lock_hash="lock-2", replica_hash="1:b")
    await bench.until_state("degraded")
    bench.want(replica_hash="1:c")
    await bench.until(lambda _: len(bench.events("build")) == 2)
    assert (await bench.until_state("degraded")).status.problem is not None


async def test_a_dead_worker_is_loaded_again(bench: Bench) -> None:
    await bench.begin()
    await bench.until_live(1)
    next(iter(bench.runtime.agents.values())).kill_worker()
    await bench.until(lambda state: state.restarts == 1)
    await bench.until_live(1)
    assert any("signal 9" in line for line in bench.events("exit"))


async def test_a_dead_agent_is_revived_and_its_worker_serves_on(bench: Bench) -> None:
    await bench.begin()
    await bench.until_live(1)
    incarnation = next(iter(bench.runtime.agents))
    exits = bench.runtime.exits()
    exit_ = asyncio.create_task(anext(exits))
    await asyncio.sleep(0)
    bench.runtime.engine.kill_agent(incarnation)
    assert bench.model.ended(await exit_)
    await exits.aclose()
    assert bench.traffic.routes["hello"].upstreams
    await bench.until(lambda state: state.replicas[incarnation].state == "up")
    assert [each.attempt for each in bench.model.state.replicas[incarnation].workers.values()] == [1]


async def test_replicas_follow_their_number(bench: Bench) -> None:
    await bench.begin()
    await bench.until_live(1)
    bench.want(replicas=3)
    await bench.until(lambda state: state.routed is not None and len(state.routed.upstreams) == 3)
    bench.want(replicas=1)
    await bench.until(lambda state: len(state.replicas) == 1 and len(state.routed.upstreams) == 1)


async def test_a_new_control_adopts_and_restarts_nothing(bench: Bench) -> None:
    await bench.begin()
    await bench.until_live(1)
    await bench.save(GOOD + "# two\n")
    await bench.until_live(2)
    await bench.model.close()
    incarnation = next(iter(bench.runtime.agents))
    loads = [each for each in bench.runtime.agents[incarnation].received if each["type"] == "load"]

    bench.model = bench.make_model()
    await bench.model.adopt(bench.wish, await bench.runtime.list())
    bench.model.want(bench.wish, ())
    bench.model.start()
    await bench.model.source.look(None)
    await bench.until_state("running")
    assert list(bench.model.state.replicas) == [incarnation]
    assert bench.model.state.routed is not None
    assert bench.model.state.routed.generation == 2
    after = [each for each in bench.runtime.agents[incarnation].received if each["type"] == "load"]
    assert after == loads


async def test_a_sandbox_that_was_down_goes_on_with_its_last_generation(bench: Bench) -> None:
    await bench.begin()
    await bench.until_live(1)
    await bench.model.stop(1.0)

    bench.model = bench.make_model()
    await bench.model.adopt(bench.wish, [])
    bench.model.want(bench.wish, ())
    bench.model.start()
    await bench.model.source.look(None)
    await bench.until_live(1)


async def test_a_save_that_was_seen_before_reload_was_turned_off_makes_nothing_after(bench: Bench) -> None:
    await bench.begin()
    await bench.until_live(1)
    bench.want(reload=ReloadPolicy(mode="off"))
    bench.write(GOOD + "# edited\n")
    await bench.model.source.look(["main.py"], seen_at=0.0)
    assert bench.model.state.wanted is not None
    assert bench.model.state.wanted.number == 1
    await bench.model.reload()
    await bench.until_live(2)


async def test_reload_makes_a_new_generation_of_the_same_content(bench: Bench) -> None:
    await bench.begin()
    await bench.until_live(1)
    await bench.model.reload()
    await bench.until_live(2)


async def test_mode_replace_gives_each_generation_its_own_replicas(bench: Bench) -> None:
    from orchestrator.plan.types import ReloadPolicy

    bench.wish = bench.wish.__class__(
        **{**{f: getattr(bench.wish, f) for f in bench.wish.__slots__}, "reload": ReloadPolicy(mode="replace")}
    )
    await bench.begin()
    await bench.until_live(1)
    first = set(bench.model.state.replicas)
    await bench.save(GOOD + "# two\n")
    await bench.until_live(2)
    await bench.until(lambda state: not first & set(state.replicas))


async def test_stopping_leaves_nothing(bench: Bench) -> None:
    await bench.begin()
    await bench.until_live(1)
    await bench.model.stop(1.0)
    assert not bench.runtime.agents
    assert not list((bench.folder / "r").iterdir())
    assert "hello" not in bench.traffic.routes


async def test_no_replicas_is_stopped_and_can_come_back(bench: Bench) -> None:
    await bench.begin()
    await bench.until_live(1)
    bench.want(replicas=0)
    await bench.until_state("stopped")
    assert bench.traffic.routes["hello"].state == "stopped"
    bench.want(replicas=1)
    await bench.until_state("running")


async def test_a_model_that_no_file_has_serves_on_under_a_new_control(bench: Bench) -> None:
    await bench.begin()
    await bench.until_live(1)
    await bench.model.close()
    records = await bench.runtime.list()

    bench.model = bench.make_model()
    await bench.model.adopt(wish_of(records), records, orphan=True)
    bench.model.orphan()
    await bench.model.reports.publish()
    bench.model.start()
    state = await bench.until_state("running")
    assert state.status.reason.startswith("orphan")
    assert bench.traffic.routes["hello"].upstreams
    bench.model.want(bench.wish, ())
    await bench.save(GOOD + "# wanted again\n")
    await bench.until_live(2)


async def test_a_worker_whose_socket_cannot_be_reached_is_replaced(bench: Bench) -> None:
    await bench.begin()
    await bench.until_live(1)
    before = bench.traffic.routes["hello"].upstreams
    bench.model.suspect(before[0].id)
    await bench.until(lambda state: state.routed is not None and not state.routed.upstreams)
    await bench.until_live(1)
    assert bench.traffic.routes["hello"].upstreams != before
    bench.model.suspect(before[0].id)  # said again, of one that is gone
    assert bench.traffic.routes["hello"].upstreams != before


async def test_only_the_worker_that_cannot_be_reached_is_replaced(bench: Bench) -> None:
    bench.want(replicas=2)
    await bench.begin()
    await bench.until(lambda state: state.routed is not None and len(state.routed.upstreams) == 2)
    first, second = bench.traffic.routes["hello"].upstreams
    assert first.socket == second.socket  # in a folder of its own each
    bench.model.suspect(first.id)
    await bench.until(lambda state: state.routed is not None and len(state.routed.upstreams) == 1)
    assert bench.traffic.routes["hello"].upstreams == (second,)


async def test_a_worker_that_control_can_reach_is_not_replaced_on_a_gateways_word(bench: Bench) -> None:
    await bench.begin()
    await bench.until_live(1)
    [upstream] = bench.traffic.routes["hello"].upstreams
    reached = asyncio.Event()
    path = os.path.join(upstream.directory, upstream.socket)

    def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.set()
        writer.close()

    server = await asyncio.start_unix_server(serve, path)
    bench.model.suspect(upstream.id)
    async with asyncio.timeout(10):
        await reached.wait()
    server.close()
    assert bench.traffic.routes["hello"].upstreams == (upstream,)
    assert not bench.events("exit")


async def test_a_last_generation_that_is_lost_is_made_again(bench: Bench) -> None:
    await bench.begin()
    await bench.until_live(1)
    await bench.model.stop(1.0)
    for folder, _, _ in os.walk(bench.folder):
        os.chmod(folder, 0o700)
    shutil.rmtree(bench.folder / "objects")
    shutil.rmtree(bench.folder / "generations")

    bench.model = bench.make_model()
    await bench.model.adopt(bench.wish, [])
    bench.model.want(bench.wish, ())
    bench.model.start()
    await bench.model.source.look(None)
    await bench.until_live(2)


async def test_an_agent_that_cannot_be_revived_at_once_keeps_its_workers(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.begin()
    await bench.until_live(1)
    start, refusals = bench.runtime.start, [RuntimeFailure("start", "no memory") for _ in range(2)]

    async def reluctant(*given: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return await start(*given)

    monkeypatch.setattr(bench.runtime, "start", reluctant)
    [incarnation] = bench.runtime.agents
    bench.runtime.engine.kill_agent(incarnation)
    bench.model.ended(ReplicaExit(incarnation, "signal 9"))
    await bench.until(lambda state: not refusals and state.replicas[incarnation].state == "up")
    assert bench.traffic.routes["hello"].upstreams
    assert all(route is None or route.upstreams for _, route in bench.traffic.history[-3:])


async def test_a_revived_replica_is_drained_like_any_other(bench: Bench) -> None:
    await bench.begin()
    await bench.until_live(1)
    [incarnation] = bench.runtime.agents
    bench.runtime.engine.kill_agent(incarnation)
    bench.model.ended(ReplicaExit(incarnation, "signal 9"))
    await bench.until(lambda state: state.replicas[incarnation].state == "up")
    assert not bench.model.state.replicas[incarnation].ended.is_set()  # else its end is not waited for


@pytest.mark.parametrize("nonsense", [[], {"type": "ready", "generation": 1, "attempt": 1}, {"type": "state"}])
async def test_nonsense_from_an_agent_ends_a_connection_and_no_more(bench: Bench, nonsense: Any) -> None:
    await bench.begin()
    await bench.until_live(1)
    [agent] = bench.runtime.agents.values()
    if isinstance(nonsense, dict) and nonsense["type"] == "state":
        nonsense["workers"] = [{}]
    agent.tell(nonsense)
    await bench.until(lambda state: [m["type"] for m in agent.received].count("hello") == 2)
    await bench.save(GOOD + "# more\n")
    await bench.until_live(2)


async def test_an_error_that_utf8_cannot_carry_is_told_all_the_same(bench: Bench) -> None:
    await bench.begin("# hang\n")
    await bench.until(lambda state: any(each.workers for each in state.replicas.values()))
    [agent] = bench.runtime.agents.values()
    error = {"type": "OSError", "message": "no file caf\udce9", "file": "main.py", "line": 1, "traceback": ""}
    agent.tell({"type": "failed", "generation": 1, "attempt": 1, "phase": "load", "error": error})
    state = await bench.until_state("failed")
    assert state.status.reason == "OSError main.py:1 no file caf?"
    assert any("no file caf?" in line for line in bench.events("reload"))


async def test_a_swap_under_way_gives_the_gateways_no_worker_that_is_being_stopped(bench: Bench) -> None:
    await bench.begin()
    await bench.until_live(1)
    [agent] = bench.runtime.agents.values()
    answer, swapping, ending = agent._answer, asyncio.Event(), list[Any]()

    def late(message: Any) -> None:  # its agent confirms the next activation only when it is told to stop
        if message["type"] == "activate":
            swapping.set()
        elif message["type"] == "stop":
            ending.append(message)
            agent.tell({"type": "activated", "generation": 2})
        else:
            answer(message)

    agent._answer = late  # type: ignore[method-assign]
    await bench.save(GOOD + "# more\n")
    await swapping.wait()
    told = len(bench.traffic.history)
    stopping = asyncio.create_task(bench.model.stop(1.0))
    await bench.until(lambda state: bool(ending))  # and the swap is over
    answer(ending[0])
    await stopping
    assert not any(route is not None and route.upstreams for _, route in bench.traffic.history[told:])


async def test_a_replica_that_cannot_be_removed_keeps_the_folder_by_which_it_is_found(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.begin()
    await bench.until_live(1)
    [replica] = bench.model.state.replicas.values()

    async def fail(*_: Any) -> None:
        raise RuntimeFailure("engine", "its processes do not end")

    with monkeypatch.context() as patch:
        patch.setattr(bench.runtime, "stop", fail)
        await bench.model.stop(1.0)
    assert await asyncio.to_thread(os.path.isdir, replica.place.folder)
    assert bench.events("failed") == ["cannot be removed: its processes do not end"]


async def test_a_replica_that_cannot_be_removed_is_removed_once_its_runtime_is_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.begin()
    await bench.until_live(1)
    [replica] = bench.model.state.replicas.values()
    stop, failures = bench.runtime.stop, [1, 2]

    async def fail_twice(record: ReplicaRecord, grace: float) -> None:
        if failures:
            failures.pop()
            raise RuntimeFailure("engine", "it is away")
        await stop(record, grace)

    monkeypatch.setattr(bench.runtime, "stop", fail_twice)
    bench.want(replica_hash="1:other")
    await bench.until(lambda state: replica.incarnation not in state.replicas)

    assert replica.incarnation not in bench.runtime.agents
    assert not await asyncio.to_thread(os.path.exists, replica.place.folder)
    assert bench.events("failed") == ["cannot be removed: it is away"]


async def test_a_replica_whose_agent_fell_silent_is_replaced(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.begin()
    await bench.until_live(1)
    [silent] = bench.model.state.replicas.values()
    monkeypatch.setattr("orchestrator.control.launcher.SILENT_FOR", 0.0)
    silent.silent_since = 0.0
    bench.model.wake()
    await bench.until(lambda state: silent.incarnation not in state.replicas)
    await bench.until_live(1)


async def test_a_phase_is_noted_and_asks_for_no_new_look(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.begin()
    await bench.until_live(1)
    (replica,) = bench.model.state.replicas.values()
    (worker,) = replica.workers.values()
    woken: list[str] = []
    monkeypatch.setattr(bench.model.reports, "_wake", lambda: woken.append("woken"))
    about = {"generation": 1, "attempt": worker.attempt}
    bench.model.reports.receive(replica, {"type": "phase", "phase": "warmup", "seconds": 0.25, **about})
    assert worker.phases["warmup"] == 0.25
    assert not woken
    bench.model.reports.receive(replica, {"type": "ready", "socket": "g1-1.sock", "pid": 1, "phases": {}, **about})
    assert woken


async def test_what_ends_has_the_time_to_do_so_that_stop_grace_period_says(bench: Bench) -> None:
    bench.wish = replace(bench.wish, stop_grace=7.0)
    await bench.begin()
    await bench.until_live(1)
    await bench.save(GOOD + "# second\n")
    await bench.until_live(2)
    [agent] = bench.runtime.agents.values()
    await bench.until(lambda _: any(each["type"] == "retire" for each in agent.received))
    await bench.model.stop(0.0)
    ends = {each["type"]: each["grace"] for each in agent.received if "grace" in each}
    assert ends == {"retire": 7.0, "stop": 7.0}
