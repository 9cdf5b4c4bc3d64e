"""From `load` to ready, or to a reason with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.guest.process.driver import GOOD, Replica, alive, eventually


def test_a_loaded_generation_is_ready_and_answers(replica: Replica) -> None:
    ready = replica.ready(1)
    assert replica.request(ready["socket"], "GET", "/health")[0] == 200
    assert replica.predict(ready["socket"], x=4) == 8
    assert {"check", "fork", "import"} <= set(ready["phases"])
    [worker] = replica.control.ask({"type": "hello", "version": 1}, "state")["workers"]
    assert (worker["state"], worker["pid"]) == ("ready", ready["pid"])


def test_a_worker_is_a_child_of_the_agent_in_a_session_of_its_own(replica: Replica) -> None:
    pid = replica.ready(1)["pid"]
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    assert (int(fields[1]), int(fields[3])) == (replica.agent.pid, pid)


def test_a_generation_can_be_spawned(replica: Replica) -> None:
    ready = replica.ready(1, mode="spawn")
    assert "spawn" in ready["phases"]
    assert replica.predict(ready["socket"], x=4) == 8


def test_a_syntax_error_is_rejected_before_a_candidate_exists(replica: Replica) -> None:
    error = replica.failed(1, "x = 1\ndef f(:\n    pass\n")
    assert (error["type"], error["file"], error["line"], error["phase"]) == ("SyntaxError", "main.py", 2, "check")
    phases = {message["phase"] for message in replica.control.seen if message["type"] == "phase"}
    assert not phases & {"fork", "spawn", "import"}


def test_a_syntax_error_in_another_file_names_that_file(replica: Replica) -> None:
    error = replica.failed(1, GOOD, files={"other": "\n\nreturn 1\n"})
    assert (error["type"], error["file"], error["line"]) == ("SyntaxError", "other.py", 3)


def test_a_failed_import_names_its_place(replica: Replica) -> None:
    error = replica.failed(1, "import json\nimport nowhere_to_be_found\n" + GOOD)
    assert (error["type"], error["file"], error["line"]) == ("ModuleNotFoundError", "main.py", 2)
    assert error["phase"] == "import"


LOAD = "import os, time\nimport sandbox\n\n\nclass M(sandbox.Model):\n    def load(self):\n        {}\n\n    def predict(self, x):\n        return x\n"


def test_an_exception_in_load_names_its_place(replica: Replica) -> None:
    error = replica.failed(1, LOAD.format("raise ValueError('no weights')"))
    assert (error["type"], error["message"], error["file"], error["line"]) == ("ValueError", "no weights", "main.py", 7)
    assert error["phase"] == "load"


@pytest.mark.parametrize("mode", ["fork", "spawn"])
def test_an_exit_in_load_names_its_place(replica: Replica, mode: str) -> None:
    error = replica.failed(1, LOAD.format("os._exit(3)"), mode=mode)
    assert (error["message"], error["file"], error["line"]) == ("exited with status 3 during load()", "main.py", 7)


def test_a_crash_in_load_names_its_place(replica: Replica) -> None:
    error = replica.failed(1, LOAD.format("import ctypes; ctypes.string_at(0)"))
    assert error["message"] == "killed by signal 11 (SIGSEGV) during load()"
    assert (error["file"], error["line"]) == ("main.py", 7)


@pytest.mark.parametrize("hang", ["time.sleep(3600)", "exec('while True: pass')"])
def test_an_endless_load_is_killed_at_its_deadline_and_names_its_place(replica: Replica, hang: str) -> None:
    error = replica.failed(1, LOAD.format(hang), load_timeout=0.5)
    assert (error["type"], error["message"]) == ("TimeoutError", "load() did not finish in 0.5 s")
    assert (error["file"], error["line"]) == ("main.py", 7)


def test_an_endless_import_is_killed_at_its_deadline(replica: Replica) -> None:
    error = replica.failed(1, "while True:\n    pass\n", load_timeout=0.5)
    assert (error["message"], error["file"]) == ("importing main.py did not finish in 0.5 s", "main.py")
    assert error["line"] in (1, 2)


def test_a_failed_generation_leaves_no_process(replica: Replica) -> None:
    child = "import subprocess\nprint(subprocess.Popen(['sleep', '3600'], start_new_session=True).pid, flush=True)\n"
    replica.failed(1, child + "raise RuntimeError\n")
    [pid] = [int(line["m"]) for line in replica.log() if line["s"] == "out"]
    assert not alive(pid)


def test_a_killed_candidate_is_reported_as_killed(replica: Replica) -> None:
    replica.load(1, "import time\ntime.sleep(3600)\n")
    replica.control.wait("phase", generation=1, phase="fork")
    replica.control.send({"type": "kill", "generation": 1, "attempt": 1})
    replica.load(2)
    assert replica.control.wait("exited", "failed", generation=1)["cause"] == "killed"
    assert replica.control.wait("ready", "failed", generation=2)["type"] == "ready"


def test_a_candidate_killed_before_it_was_born_is_reported_as_killed(replica: Replica) -> None:
    replica.load(1)
    replica.control.send({"type": "kill", "generation": 1, "attempt": 1})
    assert replica.control.wait("exited", "ready", "failed", generation=1)["cause"] == "killed"


def test_an_old_generation_serves_while_a_new_one_fails(replica: Replica) -> None:
    ready = replica.ready(1)
    replica.activate(1)
    replica.failed(2, "raise RuntimeError\n")
    assert replica.predict(ready["socket"], x=1) == 2


def test_a_forked_worker_draws_its_own_random_numbers(replica: Replica) -> None:
    main = "import random\nDRAWN = random.random()\ndef predict() -> float:\n    return DRAWN\n"
    drawn = [replica.predict(replica.ready(generation, main)["socket"]) for generation in (1, 2, 3)]
    assert len(set(drawn)) == 3


def test_a_worker_has_the_environment_of_the_model_unpinned(make_replica, python: str) -> None:
    replica = make_replica(python, {"COLOUR": "green"})
    main = "import os\ndef predict() -> dict:\n    return dict(os.environ)\n"
    for generation, mode in ((1, "fork"), (2, "spawn")):
        ready = replica.ready(generation, main, mode=mode)
        seen = replica.predict(ready["socket"])
        assert seen["COLOUR"] == "green"
        assert "OMP_NUM_THREADS" not in seen


def test_a_new_connection_of_control_replaces_the_older_one(replica: Replica) -> None:
    ready = replica.ready(1)
    replica.activate(1)
    newer = replica.dial()
    assert replica.control.closed()
    assert newer.state["active"] == 1
    assert newer.state["workers"][0]["pid"] == ready["pid"]


def test_a_failure_is_told_to_a_control_that_was_away(replica: Replica) -> None:
    gone = replica.source / "gone"
    waits = f"import pathlib, time\nwhile not pathlib.Path({str(gone)!r}).exists():\n    time.sleep(0.01)\n"
    replica.load(1, f"{waits}raise RuntimeError('told later')\n")
    replica.control.wait("phase", phase="check")
    replica.control.close()
    gone.touch()
    eventually(lambda: any("told later" in line["m"] for line in replica.log()), "the failure in the log")
    assert replica.dial().wait("failed", generation=1)["error"]["message"] == "told later"
