"""Who dies, and what the others do about it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

from tests.guest.process.driver import Replica, alive, eventually

# Streams until its caller or the deadline ends it.
STREAM = """
import time
def predict(n: int = 3):
    for i in range(n):
        yield str(i)
        time.sleep(0.02)
"""


def test_a_killed_active_worker_is_reported_with_its_cause(replica: Replica) -> None:
    pid = replica.ready(1)["pid"]
    replica.activate(1)
    os.kill(pid, signal.SIGKILL)
    exited = replica.control.wait("exited", generation=1)
    assert (exited["pid"], exited["cause"], exited["active"]) == (pid, "signal 9", True)
    assert replica.control.ask({"type": "hello", "version": 1}, "state")["active"] is None


def test_an_exit_of_a_serving_worker_is_reported_with_its_status(replica: Replica) -> None:
    ready = replica.ready(1, "import os\ndef predict():\n    os._exit(7)\n")
    with replica.open(ready["socket"], "POST", "/predict", {}) as answer:
        assert answer.read() == b""
    exited = replica.control.wait("exited", generation=1)
    assert (exited["cause"], exited["active"]) == ("exit 7", False)


def test_what_a_dead_worker_started_dies_with_it(replica: Replica) -> None:
    main = """
import subprocess
daemon = "import os, time; pid = os.fork(); print(pid, flush=True) if pid else (os.setsid(), time.sleep(3600))"
subprocess.run([__import__("sys").executable, "-c", daemon])
def predict(x):
    return x
"""
    pid = replica.ready(1, main)["pid"]
    [line] = eventually(lambda: [line for line in replica.log() if line["s"] == "out"], "the daemon's pid in the log")
    daemon = int(line["m"])
    assert alive(daemon)
    os.kill(pid, signal.SIGKILL)
    replica.control.wait("exited", generation=1)
    assert not alive(daemon)


def test_a_load_works_while_the_zygote_is_dead_and_one_is_started_again(replica: Replica) -> None:
    replica.ready(1)
    zygote = replica.zygote()["pid"]
    os.kill(zygote, signal.SIGKILL)
    assert replica.control.wait("zygote", state="dead")["reason"] == "signal 9"
    ready = replica.ready(2)
    assert replica.predict(ready["socket"], x=1) == 2
    eventually(lambda: replica.zygote()["state"] == "ready", "a new zygote")
    assert replica.zygote()["pid"] != zygote
    assert "fork" in replica.ready(3)["phases"]


def test_a_zygote_killed_with_a_fork_order_open_loses_no_load(replica: Replica) -> None:
    zygote = eventually(lambda: replica.zygote()["state"] == "ready" and replica.zygote()["pid"], "a zygote")
    os.kill(zygote, signal.SIGSTOP)
    replica.load(1)
    os.kill(zygote, signal.SIGKILL)
    message = replica.control.wait("ready", "failed", generation=1)
    assert message["type"] == "ready"


def test_workers_outlive_their_agent_and_the_next_one_adopts_them(replica: Replica) -> None:
    first, second = replica.ready(1), replica.ready(2)
    replica.activate(1)
    replica.agent.kill()
    replica.agent.wait()
    assert replica.predict(first["socket"], x=1) == 2
    state = replica.start().state
    assert state["active"] == 1
    assert {(worker["pid"], worker["state"]) for worker in state["workers"]} == {
        (first["pid"], "ready"),
        (second["pid"], "ready"),
    }
    assert replica.predict(first["socket"], x=2) == 4
    os.kill(first["pid"], signal.SIGKILL)
    exited = replica.control.wait("exited", generation=1)
    assert (exited["cause"], exited["active"]) == ("unknown (agent was replaced)", True)
    retire = {"type": "retire", "generation": 2, "attempt": 1, "drain": 5.0, "grace": 1.0}
    replica.control.ask(retire, "exited", generation=2)
    assert not alive(second["pid"])
    assert "fork" in replica.ready(3)["phases"]


def test_a_model_prints_on_while_its_agent_is_dead(replica: Replica) -> None:
    ready = replica.ready(1, "def predict(n: int):\n    print('x' * n)\n    return n\n")
    replica.activate(1)
    replica.agent.kill()
    replica.agent.wait()
    for _ in range(5):
        assert replica.predict(ready["socket"], n=50_000) == 50_000
    replica.start()
    assert replica.predict(ready["socket"], n=7) == 7
    eventually(lambda: any(line["m"] == "x" * 7 and line["g"] == 1 for line in replica.log()), "its line in the log")


def test_a_retired_worker_finishes_its_open_stream(replica: Replica) -> None:
    ready = replica.ready(1, STREAM)
    with replica.open(ready["socket"], "POST", "/predict", {"n": 10}, accept="text/event-stream") as answer:
        _until(answer, b"data:")
        replica.control.send({"type": "retire", "generation": 1, "attempt": 1, "drain": 15.0, "grace": 1.0})
        rest = answer.read()
    assert rest.count(b"data:") >= 9
    exited = replica.control.wait("exited", generation=1)
    assert (exited["cause"], exited["cut"]) == ("exit 0", 0)


def test_a_stop_lets_a_worker_that_drains_already_finish_its_open_stream(replica: Replica) -> None:
    ready = replica.ready(1, STREAM)
    with replica.open(ready["socket"], "POST", "/predict", {"n": 30}, accept="text/event-stream") as answer:
        _until(answer, b"data:")
        replica.control.send({"type": "retire", "generation": 1, "attempt": 1, "drain": 15.0, "grace": 1.0})
        replica.control.send({"type": "stop", "drain": 15.0, "grace": 1.0})
        rest = answer.read()
    assert rest.count(b"data:") >= 29
    exited = replica.control.wait("exited", generation=1)
    assert (exited["cause"], exited["cut"]) == ("exit 0", 0)
    assert replica.agent.wait(15) == 0


def test_a_stop_cuts_a_worker_that_drains_already_at_the_earlier_deadline(replica: Replica) -> None:
    ready = replica.ready(1, STREAM)
    with replica.open(ready["socket"], "POST", "/predict", {"n": 1_000_000}, accept="text/event-stream") as answer:
        _until(answer, b"data:")
        replica.control.send({"type": "retire", "generation": 1, "attempt": 1, "drain": 3600.0, "grace": 1.0})
        replica.control.send({"type": "stop", "drain": 0.2, "grace": 5.0})
        exited = replica.control.wait("exited", generation=1)
    assert (exited["cause"], exited["cut"]) == ("exit 0", 1)
    assert replica.agent.wait(15) == 0


def test_a_worker_that_leaves_because_its_agent_was_ended_is_not_told_as_leaving_by_itself(replica: Replica) -> None:
    replica.ready(1)
    os.kill(replica.agent.pid, signal.SIGTERM)
    assert replica.control.wait("exited", generation=1)["cause"] == "stopped"
    assert replica.agent.wait(15) == 0


def test_a_stream_still_open_at_the_drain_deadline_is_cut_and_counted(replica: Replica) -> None:
    ready = replica.ready(1, STREAM)
    with replica.open(ready["socket"], "POST", "/predict", {"n": 1_000_000}, accept="text/event-stream") as answer:
        _until(answer, b"data:")
        replica.control.send({"type": "retire", "generation": 1, "attempt": 1, "drain": 0.2, "grace": 5.0})
        exited = replica.control.wait("exited", generation=1)
    assert exited["cut"] == 1
    assert not alive(ready["pid"])


def test_a_worker_that_ignores_its_end_is_killed_after_the_grace(replica: Replica) -> None:
    main = "import time\nasync def predict():\n    time.sleep(3600)\n"
    ready = replica.ready(1, main)
    with replica.open(ready["socket"], "POST", "/predict", {}):
        replica.control.send({"type": "retire", "generation": 1, "attempt": 1, "drain": 0.1, "grace": 0.2})
        assert replica.control.wait("exited", generation=1)["cause"] == "signal 9"


def test_sigterm_ends_everything(replica: Replica) -> None:
    pids = [replica.ready(1)["pid"], replica.ready(2)["pid"], replica.zygote()["pid"]]
    replica.load(3, "import time\ntime.sleep(3600)\n")
    replica.control.wait("phase", generation=3, phase="fork")
    replica.agent.terminate()
    assert replica.agent.wait(15) == 0
    assert not [pid for pid in pids if alive(pid)]
    assert sorted(path.name for path in replica.sockets.iterdir()) == ["log.jsonl"] or not list(
        replica.sockets.glob("*.sock")
    )


def test_the_stop_order_ends_everything(replica: Replica) -> None:
    pid = replica.ready(1)["pid"]
    replica.control.send({"type": "stop", "drain": 1.0, "grace": 1.0})
    replica.control.wait("exited", generation=1)
    assert replica.agent.wait(15) == 0
    assert not alive(pid)


def test_an_order_for_a_worker_that_is_gone_is_answered(replica: Replica) -> None:
    exited = replica.control.ask({"type": "kill", "generation": 9, "attempt": 1}, "exited", generation=9)
    assert exited["pid"] is None


def test_a_malformed_order_does_not_end_the_agent(replica: Replica) -> None:
    for order in ({"type": "load"}, {"type": "kill", "generation": "x"}, {"type": "nonsense"}):
        replica.control.send(order)
    assert replica.ready(1)["generation"] == 1


def test_a_model_that_talks_nonsense_to_its_agent_harms_only_itself(
    make_replica: Callable[..., Replica], python: str
) -> None:
    replica = make_replica(python)
    main = """
import os, socket, stat
for fd in range(3, 20):
    try:
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            os.write(fd, b'{"type": "phase", "phase": [], "seconds": "x"}\\n{"type": "failed", "error": 3}\\n[1]\\n')
    except OSError:
        continue
def predict(x):
    return x
"""
    replica.load(1, main)
    replica.control.wait("failed", generation=1)
    assert replica.ready(2)["generation"] == 2


def test_usage_counts_each_worker(replica: Replica) -> None:
    pid = replica.ready(1)["pid"]
    [used] = replica.control.ask({"type": "usage"}, "usage")["workers"]
    assert (used["pid"], used["generation"]) == (pid, 1)
    assert 0 < used["private"] <= used["rss"]
    assert used["threads"] >= 1


def test_new_limits_reach_the_workers(replica: Replica) -> None:
    replica.ready(1)
    assert replica.control.ask({"type": "configure", "serving": {"concurrency": 2}}, "configured")


def test_a_new_load_timeout_holds_for_what_loads_already(replica: Replica) -> None:
    replica.load(1, "import time\nwhile True:\n    time.sleep(0.01)\n", load_timeout=300.0)
    replica.control.wait("phase", phase="fork")
    replica.control.ask({"type": "configure", "serving": {"concurrency": 2}, "load_timeout": 0.1}, "configured")
    failed = replica.control.wait("ready", "failed", generation=1)
    assert failed["type"] == "failed"
    assert "0.1" in failed["error"]["message"]


def _until(answer: Any, start: bytes) -> None:
    while not answer.readline().startswith(start):
        pass


def test_the_active_generation_is_on_disk(replica: Replica) -> None:
    replica.ready(1)
    replica.activate(1)
    record = json.loads((replica.sockets / "active.json").read_text())
    assert record["active"] == {"generation": 1, "attempt": 1}
