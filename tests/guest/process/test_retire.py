"""The end of a generation that served, and the pause of one that has no room yet."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from tests.guest.process.driver import GOOD, Replica, alive, eventually

STREAM = """
import time
def predict(n: int = 3):
    for i in range(n):
        yield str(i)
        time.sleep(0.02)
"""
LOADS = """
import time
print("imported", flush=True)
def load():
    global KEPT
    KEPT = b"x" * (64 << 20)
def predict(x: float) -> float:
    return x * 2
"""
RETIRE = {"type": "retire", "attempt": 1}
KEY = {"generation": 2, "attempt": 1}


def _until(answer: Any, start: bytes) -> None:
    while not answer.readline().startswith(start):
        pass


def score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def test_a_worker_that_drains_is_cut_at_its_deadline_by_the_agent_that_adopted_it(replica: Replica) -> None:
    ready = replica.ready(1, STREAM)
    with replica.open(ready["socket"], "POST", "/predict", {"n": 1_000_000}, accept="text/event-stream") as answer:
        _until(answer, b"data:")
        replica.control.send({**RETIRE, "generation": 1, "drain": 1.0, "grace": 5.0})
        eventually(lambda: replica.dial().state["workers"][0]["state"] == "draining", "a draining worker")
        replica.agent.kill()
        replica.agent.wait()
        state = replica.start().state
        assert [worker["state"] for worker in state["workers"]] == ["draining"]
        exited = replica.control.wait("exited", generation=1)
    assert exited["cut"] == 1
    assert not alive(ready["pid"])


def test_what_drains_keeps_its_deadline_whatever_is_asked_for_later(replica: Replica) -> None:
    ready = replica.ready(1, STREAM)
    with replica.open(ready["socket"], "POST", "/predict", {"n": 1_000_000}, accept="text/event-stream") as answer:
        _until(answer, b"data:")
        replica.control.send({**RETIRE, "generation": 1, "drain": 0.5, "grace": 5.0})
        replica.control.send({**RETIRE, "generation": 1, "drain": 3600.0, "grace": 5.0})
        assert replica.control.wait("exited", generation=1)["cut"] == 1


def test_an_answer_that_its_client_has_not_read_counts_as_cut(replica: Replica) -> None:
    ready = replica.ready(1, "def predict() -> str:\n    return 'x' * (8 << 20)\n")
    with replica.open(ready["socket"], "POST", "/predict", {}) as answer:
        assert answer.readline().startswith(b"HTTP/1.1 200")
        replica.control.send({**RETIRE, "generation": 1, "drain": 0.2, "grace": 5.0})
        assert replica.control.wait("exited", generation=1)["cut"] == 1


def test_a_worker_past_its_drain_deadline_is_signalled_before_it_is_killed(replica: Replica) -> None:
    main = (
        "import signal, time\n"
        "async def predict():\n"
        "    signal.signal(signal.SIGTERM, lambda *_: print('told to end', flush=True))\n"
        "    while True:\n"
        "        time.sleep(0.01)\n"
    )
    ready = replica.ready(1, main)
    with replica.open(ready["socket"], "POST", "/predict", {}):
        replica.control.send({**RETIRE, "generation": 1, "drain": 0.3, "grace": 0.5})
        assert replica.control.wait("exited", generation=1)["cause"] == "signal 9"
    assert "told to end" in [line["m"] for line in replica.log()]


def test_a_worker_that_no_agent_adopts_cuts_what_it_cannot_finish(replica: Replica) -> None:
    impatient = "import sandbox.worker\nsandbox.worker._DIAL_FOR = 0.2\nsandbox.worker._DRAIN_ALONE = 0.2\n"
    ready = replica.ready(1, impatient + STREAM)
    with replica.open(ready["socket"], "POST", "/predict", {"n": 1_000_000}, accept="text/event-stream") as answer:
        _until(answer, b"data:")
        replica.agent.kill()
        replica.agent.wait()
        eventually(lambda: not alive(ready["pid"]), "the end of a worker that nobody adopted")


def test_memory_takes_candidates_first_and_what_answers_late(replica: Replica) -> None:
    zygote = eventually(lambda: replica.zygote()["state"] == "ready" and replica.zygote()["pid"], "a zygote")
    first, second = replica.ready(1, STREAM), replica.ready(2)
    assert score(first["pid"]) == score(second["pid"]) == 1000
    replica.activate(1)
    assert {score(replica.agent.pid), score(zygote), score(first["pid"])} == {0, 500, 200}
    with replica.open(first["socket"], "POST", "/predict", {"n": 1_000_000}, accept="text/event-stream") as answer:
        _until(answer, b"data:")
        replica.activate(2)
        replica.control.send({**RETIRE, "generation": 1, "drain": 15.0, "grace": 1.0})
        eventually(lambda: score(first["pid"]) == 700, "the score of what drains")
        assert score(second["pid"]) == 200


def test_what_a_candidate_takes_for_itself_is_reported(replica: Replica) -> None:
    for generation, mode in ((1, "fork"), (2, "spawn")):
        peak = replica.ready(generation, LOADS, mode=mode)["peak"]
        assert 64 << 20 <= peak["load"] < 100 << 20
        assert peak["import"] < 32 << 20
    assert replica.dial().state["workers"][0]["peak"]["load"] >= 64 << 20


def test_a_candidate_without_room_waits_imported_until_it_may_proceed(replica: Replica) -> None:
    first = replica.ready(1)
    replica.load(2, LOADS, pause="load")
    replica.control.wait("paused", generation=2)
    states = {worker["generation"]: worker["state"] for worker in replica.dial().state["workers"]}
    assert states == {1: "ready", 2: "paused"}
    assert [line["m"] for line in replica.log() if line["g"] == 2] == ["imported"]
    assert replica.predict(first["socket"], x=1) == 2
    replica.control = replica.dial()
    replica.control.send({"type": "proceed", **KEY})
    ready = replica.control.wait("ready", generation=2)
    assert {"import", "load"} <= set(ready["phases"])
    assert ready["peak"]["load"] >= 64 << 20
    assert replica.predict(ready["socket"], x=3) == 6


def test_a_candidate_can_wait_before_its_import(replica: Replica) -> None:
    replica.load(2, LOADS, pause="import")
    replica.control.wait("paused", generation=2)
    assert not replica.log()
    replica.control.ask({"type": "proceed", **KEY}, "ready", generation=2)


def test_time_spent_waiting_is_none_of_the_load_timeout(replica: Replica) -> None:
    main = "import time\ndef load():\n    time.sleep(3600)\ndef predict():\n    return 1\n"
    replica.load(2, main, pause="load", load_timeout=1.0)
    replica.control.wait("paused", generation=2)
    replica.load(3, GOOD, load_timeout=15.0)
    replica.control.wait("ready", generation=3)
    assert not [message for message in replica.control.seen if message["type"] == "failed"]
    failed = replica.control.ask({"type": "proceed", **KEY}, "failed", generation=2)
    assert failed["error"]["message"] == "load() did not finish in 1 s"


def test_a_candidate_that_waits_can_be_killed(replica: Replica) -> None:
    replica.load(2, LOADS, pause="load")
    replica.control.wait("paused", generation=2)
    exited = replica.control.ask({"type": "kill", **KEY}, "exited", generation=2)
    assert exited["cause"] == "killed"


def test_a_candidate_that_dies_while_it_waits_has_failed(replica: Replica) -> None:
    replica.load(
        2, "import os\nopen('/proc/self/comm').close()\nprint(os.getpid(), flush=True)\n" + LOADS, pause="load"
    )
    replica.control.wait("paused", generation=2)
    [pid] = [int(line["m"]) for line in replica.log() if line["m"].isdigit()]
    os.kill(pid, signal.SIGKILL)
    assert replica.control.wait("failed", generation=2)["error"]["message"].startswith("killed by signal 9")


def test_a_candidate_that_waits_ends_with_its_agent(replica: Replica) -> None:
    replica.load(2, "import os\nprint(os.getpid(), flush=True)\n" + LOADS, pause="load")
    replica.control.wait("paused", generation=2)
    [pid] = [int(line["m"]) for line in replica.log() if line["m"].isdigit()]
    replica.agent.kill()
    replica.agent.wait()
    eventually(lambda: not alive(pid), "the end of a candidate that nobody will let on")
    assert replica.start().state["workers"] == []


def test_new_limits_reach_a_candidate_that_waits(replica: Replica) -> None:
    replica.load(2, GOOD, pause="load")
    replica.control.wait("paused", generation=2)
    replica.control.ask({"type": "configure", "serving": {"concurrency": 2, "max_batch": 3}}, "configured")
    ready = replica.control.ask({"type": "proceed", **KEY}, "ready", generation=2)
    status, body = replica.request(ready["socket"], "POST", "/predict/batch", {"instances": [{"x": 1}] * 4})
    assert status in (400, 413), body
