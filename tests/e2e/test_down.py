"""`down` leaves nothing but what it says it keeps, and never touches data or volumes; `up` goes on from there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from tests.e2e import remains
from tests.e2e.sandbox import Sandbox

WRITES = """
import os
import sandbox

class Writes(sandbox.Model):
    def predict(self, name: str) -> list:
        for folder in (self.data_dir, "/volume" if os.path.isdir("/volume") else os.environ["VOLUME"]):
            with open(f"{folder}/{name}", "w") as file:
                file.write("kept")
        return sorted(os.listdir(self.data_dir))
"""
SLOW = "import time\n\n\ndef predict() -> str:\n    time.sleep(1)\n    return 'finished'\n"


def test_down_removes_all_that_runs_and_nothing_that_models_wrote(sandbox: Sandbox) -> None:
    sandbox.model("one", WRITES)
    data = sandbox.data("one")
    volume = sandbox.project / "volume"
    volume.mkdir()
    volume.chmod(0o777)
    entry = {"data": "rw", "volumes": ["./volume:/volume"], "resources": {"memory": "512M"}}
    sandbox.spec({"one": entry})
    sandbox.up()
    assert sandbox.call("one", {"name": "first"}).prediction == ["first"]
    generation = sandbox.edit("one/main.py", WRITES + "# edited\n")["data"]["generation"]
    docker = sandbox.runtime == "docker"
    # The search for what is left is able to find it.
    kinds = {line.split()[0] for line in remains.find(sandbox.root, sandbox.id, docker=docker)}
    assert {"process", "file"} <= kinds
    assert ("container" in kinds) == docker

    sandbox.down()

    assert sandbox.remains() == []
    assert kept(data) == kept(volume) == {"first": "kept"}
    assert "no sandbox runs" in sandbox.cli("ps", code=1).stderr
    assert sandbox.cli("ls", "-q").stdout == ""

    # Numbers are never used again, and equal content is no new generation.
    sandbox.up()
    assert sandbox.call("one", {"name": "second"}).generation >= generation
    event = sandbox.edit("one/main.py", WRITES)
    assert event["data"]["generation"] > generation

    sandbox.down("-v")

    assert sandbox.remains() == []
    assert kept(data) == kept(volume) == {"first": "kept", "second": "kept"}
    assert not (sandbox.project / ".sandbox").exists()
    assert sandbox.cli("down").returncode == 0


def kept(folder: Path) -> dict[str, str]:
    return {each.name: each.read_text() for each in folder.iterdir()}


def test_down_lets_a_request_that_runs_finish(sandbox: Sandbox) -> None:
    sandbox.model("slow", SLOW)
    sandbox.spec({"slow": None})
    sandbox.up()
    answers = []
    call = threading.Thread(target=lambda: answers.append(sandbox.call("slow")))
    call.start()
    metric = 'sandbox_requests_in_progress{model="slow"} 1.0'
    sandbox.until(lambda: metric in metrics(sandbox))

    sandbox.down()

    call.join()
    assert [each.prediction for each in answers] == ["finished"]


def metrics(sandbox: Sandbox) -> str:
    with sandbox.another_client() as client:
        return str(client.request("GET", "/metrics").body, "utf-8")


def test_sandboxes_of_equal_names_run_side_by_side(make: Callable[[], Sandbox]) -> None:
    two = [make(), make()]
    for number, sandbox in enumerate(two):
        sandbox.model("same", f"def predict() -> int:\n    return {number}\n")
        sandbox.spec({"same": None}, name="same")
        sandbox.up()

    assert [sandbox.call("same").prediction for sandbox in two] == [0, 1]
    two[0].down()
    assert two[0].remains() == []
    assert two[1].call("same").prediction == 1
    assert two[1].row("same")["restarts"] == 0


def test_two_ups_at_once_make_one_sandbox(sandbox: Sandbox) -> None:
    sandbox.model("one", "def predict() -> int:\n    return 1\n")
    sandbox.spec({"one": None})
    done = []
    threads = [threading.Thread(target=lambda: done.append(sandbox.cli("up", "-d", code=None))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [(each.returncode, each.stderr) for each in done] == [(0, "")] * 3
    assert sandbox.call("one").prediction == 1
    row = sandbox.row("one")
    assert (len(row["pids"]["agent"]), row["restarts"], row["generation"]) == (1, 0, 1)
