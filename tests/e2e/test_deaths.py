"""kill -9 of each process while requests run: no more is lost than the documentation says, and all comes back."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import figures
from tests.e2e.client import Load
from tests.e2e.sandbox import Sandbox

VICTIMS = ("worker", "zygote", "agent", "gateway", "control", "keeper", "host")
Json = dict[str, Any]


def model(word: str) -> str:
    body = f"    await asyncio.sleep(seconds)\n    return {word!r}\n"
    return f"import asyncio\n\n\nasync def predict(seconds: float = 0.05) -> str:\n{body}"


@pytest.fixture(scope="module", autouse=True)
def running(shared: Sandbox) -> None:
    for name in VICTIMS:
        shared.model(name, model("old"))
    shared.spec(dict.fromkeys(VICTIMS))
    shared.up()


class Death:
    """One process killed under a light load, and what that costs."""

    def __init__(self, shared: Sandbox, load: Load) -> None:
        self.load = load
        self._shared = shared
        self._at = 0.0
        self._replaced = ""

    def of(self, *pids: int) -> None:
        """Kill these, at once."""
        self._at = time.monotonic()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    def replaced(self, condition: Callable[[], Any]) -> Any:
        """Wait until `condition` says that another one is there; what it says."""
        found = self._shared.until(condition)
        self._replaced = f", the next one seen after {(time.monotonic() - self._at) * 1000:.0f} ms"
        return found

    def __str__(self) -> str:
        return f"{self.load.outage(self._at)}{self._replaced}"


@contextmanager
def dying(shared: Sandbox, name: str) -> Iterator[Death]:
    """A load on the model `name` during which something is killed; good answers come before it and after the block."""
    load = shared.load(name, keep=6, fresh=2, pause=0.01)
    death = Death(shared, load)
    with load.running():
        shared.answered(load)
        yield death
        shared.answered(load)
    figures.tell(f"{shared.runtime}: {name} killed: {death}")


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
    worker = shared.host_pid(before, "workers")
    with dying(shared, "worker") as death, shared.another_client() as client, ThreadPoolExecutor(1) as pool:
        read = pool.submit(client.request, "POST", "/models/worker/predict", {"seconds": 15.0})
        shared.answered(death.load)  # by now it has been read, whatever the load is at when the worker dies
        death.of(worker)
        shared.event("worker", "exit")
    after = shared.state_of("worker", "running")

    load = death.load
    assert (read.result().status, read.result().code) == (502, "WORKER_DIED")
    assert {(each.status, each.body["error"]["code"]) for each in load.failures()} <= {(502, "WORKER_DIED")}
    assert len(load.failures()) <= load.keep + load.fresh
    assert {each.generation for each in load.samples if each.status == 200} == {before["generation"]}
    assert after["generation"] == before["generation"]
    assert one(after, "workers") != one(before, "workers")
    assert "signal 9" in shared.event("worker", "exit")["message"]
    reloads(shared, "worker")


def test_a_killed_zygote_loses_nothing_and_is_replaced(shared: Sandbox) -> None:
    before = shared.row("zygote")["pids"]["zygote"]
    with dying(shared, "zygote") as death:
        death.of(shared.host_pid(shared.row("zygote"), "zygote"))
        reloads(shared, "zygote")
        death.replaced(lambda: shared.row("zygote")["pids"]["zygote"] not in ([], before))

    assert death.load.failures() == []
    assert shared.row("zygote")["state"] == "running"


def test_a_killed_agent_loses_nothing_in_a_process_and_a_containers_calls_wait_for_the_next(shared: Sandbox) -> None:
    before = shared.row("agent")
    with dying(shared, "agent") as death:
        agent = shared.host_pid(before, "agent")
        death.of(agent)
        shared.event("agent", "exit")
        after = death.replaced(lambda: again(shared, agent))

    load = death.load
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
    with dying(shared, "gateway") as death:
        death.of(gateway["pid"])
        death.replaced(lambda: [each["pid"] for each in shared.keeper["gateways"]] != [gateway["pid"]])

    load = death.load
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
    following = str(shared.row("control")["generation"] + 1)
    with (
        dying(shared, "control") as death,
        ThreadPoolExecutor(1) as pool,
    ):
        waiting = pool.submit(shared.cli, "wait", "control", "--generation", following)
        # It has asked once it holds a connection, which a control that is asked later cannot end.
        shared.until(lambda: connections(shared) >= 2)
        death.of(control)
        death.replaced(lambda: shared.keeper["control"]["pid"] != control)
        reloads(shared, "control")
        assert f"g{following} answers" in waiting.result().stdout

    assert death.load.failures() == []
    assert {name: row["state"] for name, row in shared.rows().items()} == dict.fromkeys(VICTIMS, "running")
    assert everyone(shared, but="control") == before


def connections(shared: Sandbox) -> int:
    """To control's management API: the one that follows events, and others."""
    lines = Path("/proc/net/unix").read_text().splitlines()
    return sum(line.endswith(f"{shared.state}/control.sock") for line in lines) - 1


def everyone(shared: Sandbox, but: str = "") -> dict[str, Json]:
    """Who runs now, a model apart that was reloaded meanwhile."""
    return {name: shared.identity(row) for name, row in shared.rows().items() if name != but}


def test_a_killed_keeper_loses_nothing_and_the_next_command_restarts_nothing(shared: Sandbox) -> None:
    before, supervised = everyone(shared, but="keeper"), shared.keeper
    with dying(shared, "keeper") as death:
        death.of(supervised["pid"])
        reloads(shared, "keeper")
        after = everyone(shared, but="keeper")  # by the next command
        death.replaced(lambda: shared.keeper["pid"] != supervised["pid"])

    assert death.load.failures() == []
    assert shared.keeper["control"] == supervised["control"]
    assert shared.keeper["gateways"] == supervised["gateways"]
    assert after == before
    # It is supervised again.
    os.kill(supervised["control"]["pid"], signal.SIGKILL)
    shared.until(lambda: shared.keeper["control"] != supervised["control"])
    assert everyone(shared, but="keeper") == before


def test_models_outlive_everything_on_the_host_and_the_next_command_takes_them_up(shared: Sandbox) -> None:
    before, supervised = everyone(shared), shared.keeper
    generation = shared.row("host")["generation"]
    shared.unfollow()  # it would be that next command
    for pid in (supervised["pid"], supervised["control"]["pid"], *(each["pid"] for each in supervised["gateways"])):
        os.kill(pid, signal.SIGKILL)

    shared.up()

    assert everyone(shared) == before
    assert shared.port == supervised["port"]
    assert shared.call("host").generation == generation
    reloads(shared, "host")
