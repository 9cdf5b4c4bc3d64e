"""kill -9 of each process while requests run: no more is lost than the documentation says, and all comes back."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from tests.e2e.client import Load
from tests.e2e.sandbox import Sandbox

VICTIMS = ("worker", "zygote", "agent", "gateway", "control", "keeper", "host")
Json = dict[str, Any]


def model(word: str) -> str:
    return f"import asyncio\n\n\nasync def predict() -> str:\n    await asyncio.sleep(0.05)\n    return {word!r}\n"


@pytest.fixture(scope="module", autouse=True)
def running(shared: Sandbox) -> None:
    for name in VICTIMS:
        shared.model(name, model("old"))
    shared.spec(dict.fromkeys(VICTIMS))
    shared.up()


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def load_on(shared: Sandbox, name: str) -> Load:
    return shared.load(name, keep=6, fresh=2)


def answered(load: Load, count: int) -> int:
    """Samples so far, and wait for `count` good ones more."""
    return sum(each.status == 200 for each in load.samples) + count


def wait_for(shared: Sandbox, load: Load, count: int = 30) -> None:
    """Wait until the load has had `count` more good answers."""
    wanted = answered(load, count)
    shared.until(lambda: answered(load, 0) >= wanted)


def one(row: Json, kind: str) -> int:
    (pid,) = row["pids"][kind]
    return int(pid)


def reloads(shared: Sandbox, name: str) -> None:
    """Whatever died, the next save works as ever."""
    event = shared.edit(f"{name}/main.py", model("new"))
    answer = shared.call(name)
    assert (answer.prediction, answer.generation) == ("new", event["data"]["generation"])


def test_a_killed_worker_loses_only_what_it_had_read_and_comes_back_on_the_same_generation(shared: Sandbox) -> None:
    before = shared.row("worker")
    with load_on(shared, "worker").running() as load:
        wait_for(shared, load)
        kill(shared.host_pid(before, "workers"))
        shared.event("worker", "exit")
        wait_for(shared, load)
        after = shared.state_of("worker", "running")

    assert {(each.status, each.body["error"]["code"]) for each in load.failures()} == {(502, "WORKER_DIED")}
    assert len(load.failures()) <= load.keep + load.fresh
    assert {each.generation for each in load.samples if each.status == 200} == {before["generation"]}
    assert after["generation"] == before["generation"]
    assert one(after, "workers") != one(before, "workers")
    assert "signal 9" in shared.event("worker", "exit")["message"]
    reloads(shared, "worker")


def test_a_killed_zygote_loses_nothing_and_is_replaced(shared: Sandbox) -> None:
    before = shared.row("zygote")
    with load_on(shared, "zygote").running() as load:
        wait_for(shared, load)
        kill(shared.host_pid(before, "zygote"))
        wait_for(shared, load)
        reloads(shared, "zygote")
        wait_for(shared, load)

    assert load.failures() == []
    shared.until(lambda: shared.row("zygote")["pids"]["zygote"] not in ([], before["pids"]["zygote"]))
    assert shared.row("zygote")["state"] == "running"


def test_a_killed_agent_loses_nothing_in_a_process_and_a_containers_calls_wait_for_the_next(shared: Sandbox) -> None:
    before = shared.row("agent")
    with load_on(shared, "agent").running() as load:
        wait_for(shared, load)
        agent = shared.host_pid(before, "agent")
        kill(agent)
        shared.event("agent", "exit")
        wait_for(shared, load)
        after = shared.until(lambda: again(shared, agent))
        wait_for(shared, load)

    if shared.runtime == "process":
        assert load.failures() == []
        assert after["pids"]["workers"] == before["pids"]["workers"]
    else:
        assert {(each.status, each.body["error"]["code"]) for each in load.failures()} == {(502, "WORKER_DIED")}
        assert len(load.failures()) <= load.keep + load.fresh
    assert {each.generation for each in load.samples if each.status == 200} == {before["generation"]}
    reloads(shared, "agent")


def again(shared: Sandbox, agent: int) -> Json | None:
    """The row once another agent runs and all is well."""
    row = shared.row("agent")
    well = row["state"] == "running" and row["pids"]["agent"] and row["pids"]["workers"]
    return row if well and shared.host_pid(row, "agent") != agent else None


def test_a_killed_gateway_loses_only_what_it_held_and_is_started_again_at_once(shared: Sandbox) -> None:
    before = shared.row("gateway")
    (gateway,) = shared.keeper["gateways"]
    with load_on(shared, "gateway").running() as load:
        wait_for(shared, load)
        kill(gateway["pid"])
        wait_for(shared, load)

    assert {each.status for each in load.failures()} <= {0}
    assert len(load.failures()) <= load.keep + load.fresh
    (found,) = shared.keeper["gateways"]
    assert found["pid"] != gateway["pid"]
    assert shared.row("gateway")["pids"] == before["pids"]
    shared.disconnect()
    reloads(shared, "gateway")


def test_a_killed_control_loses_nothing_and_takes_up_what_runs(shared: Sandbox) -> None:
    before = everyone(shared, but="control")
    control = shared.keeper["control"]["pid"]
    with load_on(shared, "control").running() as load:
        wait_for(shared, load)
        kill(control)
        shared.until(lambda: shared.keeper["control"]["pid"] != control)
        reloads(shared, "control")
        wait_for(shared, load)

    assert load.failures() == []
    assert {name: row["state"] for name, row in shared.rows().items()} == dict.fromkeys(VICTIMS, "running")
    assert everyone(shared, but="control") == before


def everyone(shared: Sandbox, but: str = "") -> dict[str, Json]:
    """Who runs now, a model apart that was reloaded meanwhile."""
    return {name: shared.identity(row) for name, row in shared.rows().items() if name != but}


def test_a_killed_keeper_loses_nothing_and_the_next_command_restarts_nothing(shared: Sandbox) -> None:
    before, supervised = everyone(shared, but="keeper"), shared.keeper
    with load_on(shared, "keeper").running() as load:
        wait_for(shared, load)
        kill(supervised["pid"])
        reloads(shared, "keeper")
        wait_for(shared, load)
        after = everyone(shared, but="keeper")
        wait_for(shared, load)

    assert load.failures() == []
    assert shared.keeper["pid"] != supervised["pid"]
    assert shared.keeper["control"] == supervised["control"]
    assert shared.keeper["gateways"] == supervised["gateways"]
    assert after == before
    # It is supervised again.
    kill(supervised["control"]["pid"])
    shared.until(lambda: shared.keeper["control"] != supervised["control"])
    assert everyone(shared, but="keeper") == before


def test_models_outlive_everything_on_the_host_and_the_next_command_takes_them_up(shared: Sandbox) -> None:
    before, supervised = everyone(shared), shared.keeper
    generation = shared.row("host")["generation"]
    shared.unfollow()  # it would be that next command
    for pid in (supervised["pid"], supervised["control"]["pid"], *(each["pid"] for each in supervised["gateways"])):
        kill(pid)

    shared.up()

    assert everyone(shared) == before
    assert shared.port == supervised["port"]
    assert shared.call("host").generation == generation
    reloads(shared, "host")
