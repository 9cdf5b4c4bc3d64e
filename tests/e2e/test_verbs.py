"""Single models stopped, started, restarted and killed, while their neighbours answer."""

from __future__ import annotations

import json
import os
import signal
import threading

from tests.e2e.client import Answer
from tests.e2e.sandbox import Sandbox

SOURCE = "def predict() -> str:\n    return '{}'\n"
SLOW = "import time\n\n\ndef predict() -> str:\n    time.sleep(60)\n    return 'late'\n"


def test_a_stopped_model_stays_stopped_until_it_is_started(sandbox: Sandbox) -> None:
    for name in ("one", "two"):
        sandbox.model(name, SOURCE.format(name))
    sandbox.spec({"one": None, "two": None})
    sandbox.up()

    sandbox.cli("stop", "one")

    row = sandbox.row("one")
    assert (row["state"], row["replicas"], row["pids"]["agent"]) == ("stopped", {"ready": 0, "desired": 0}, [])
    refused = sandbox.call("one")
    assert (refused.status, refused.body["error"]["code"]) == (503, "MODEL_NOT_LOADED")
    assert sandbox.call("two").prediction == "two"

    control = sandbox.keeper["control"]["pid"]
    os.kill(control, signal.SIGKILL)
    sandbox.until(lambda: sandbox.keeper["control"]["pid"] != control)
    sandbox.save("one/main.py", SOURCE.format("edited"))
    assert sandbox.row("one")["state"] == "stopped"

    sandbox.cli("start", "one")
    assert sandbox.call("one").prediction == "edited"

    # Of what runs, a restart leaves nothing; a neighbour is not touched.
    before, other = sandbox.identity(sandbox.row("one")), sandbox.identity(sandbox.row("two"))
    with sandbox.load("one").running() as load:
        sandbox.answered(load)
        sandbox.cli("restart", "one")
        sandbox.answered(load)
    assert {each.status for each in load.samples} == {200}
    kind = "containers" if sandbox.runtime == "docker" else "agent"
    after = sandbox.until(lambda: len(found := sandbox.identity(sandbox.row("one"))[kind]) == 1 and found)
    assert not set(after) & set(before[kind])
    assert sandbox.identity(sandbox.row("two")) == other


def test_a_kill_waits_for_nobody_and_up_starts_again(sandbox: Sandbox) -> None:
    sandbox.model("slow", SLOW)
    sandbox.spec({"slow": None})
    sandbox.up()
    answers: list[Answer] = []
    call = threading.Thread(target=lambda: answers.append(sandbox.call("slow")))
    call.start()
    with sandbox.another_client() as client:
        metric = b'sandbox_requests_in_progress{model="slow"} 1.0'
        sandbox.until(lambda: metric in client.request("GET", "/metrics").body)
    sandbox.cli("kill", "slow", deadline=30)
    call.join()
    assert answers[0].status in {502, 503}
    assert sandbox.row("slow")["state"] == "stopped"

    sandbox.up()

    assert sandbox.row("slow")["state"] == "running"


EXITS = "import os\n\n\ndef predict() -> None:\n    os._exit(7)\n"


def test_up_scales_renews_and_foretells(sandbox: Sandbox) -> None:
    sandbox.model("one", SOURCE.format("one"))
    sandbox.spec({"one": None})
    assert sandbox.cli("up", "--dry-run").stdout == "one start  (no sandbox runs here)\n"
    assert not sandbox.state.exists()
    sandbox.up("--scale", "one=2", "--no-watch")
    sandbox.until(lambda: sandbox.row("one")["replicas"] == {"ready": 2, "desired": 2})
    before = set(sandbox.row("one")["pids"]["agent"])
    sandbox.save("one/main.py", SOURCE.format("edited"))
    assert "reload.mode is off" in sandbox.cli("up", "--dry-run").stdout
    assert sandbox.call("one").prediction == "one"

    sandbox.up("--force-recreate")

    sandbox.until(lambda: sandbox.row("one")["replicas"] == {"ready": 1, "desired": 1})
    sandbox.until(lambda: sandbox.call("one").prediction == "edited")
    if sandbox.runtime == "process":
        assert not before & set(sandbox.row("one")["pids"]["agent"])


def test_who_waits_for_a_model_exits_as_it_did(sandbox: Sandbox) -> None:
    sandbox.model("one", EXITS)
    sandbox.spec({"one": {"restart": "no"}})
    sandbox.up()
    codes: list[int] = []
    waiting = threading.Thread(target=lambda: codes.append(sandbox.cli("wait", "one", code=None).returncode))
    waiting.start()
    assert sandbox.call("one").status in {502, 503}
    waiting.join()
    assert codes == [7]
    assert sandbox.cli("port").stdout == f"localhost:{sandbox.port}\n"
    assert sandbox.cli("ps", "-q", "--status", "failed").stdout == "one\n"


def test_what_models_use_is_shown(shared: Sandbox) -> None:
    shared.model("used", SOURCE.format("used"))
    shared.spec({"used": None})
    shared.up()
    [row] = json.loads(shared.cli("stats", "--no-stream", "--format", "json-array").stdout)
    assert (row["model"], row["replica"]) == ("used", 0)
    assert row["memory"] > 1_000_000
    found = json.loads(shared.cli("top", "--format", "json-array").stdout)
    assert {each["model"] for each in found} == {"used"}
    assert shared.host_pid(shared.row("used"), "workers") in {each["pid"] for each in found}


def test_what_was_built_beforehand_is_what_runs(sandbox: Sandbox) -> None:
    sandbox.model("one", SOURCE.format("one"))
    sandbox.spec({"one": None})
    assert "✔ environment" in sandbox.cli("build").stdout
    sandbox.cli("pull")
    [row] = json.loads(sandbox.cli("images", "--format", "json-array").stdout)
    assert row["runtime"] == sandbox.runtime
    assert row["location"].startswith("sha256:" if sandbox.runtime == "docker" else "/")
    named = sandbox.cli("config", "--images").stdout
    assert named == (f"model-sandbox/env:{row['lock'][:32]}\n" if sandbox.runtime == "docker" else "")
    sandbox.up("--no-build")
    assert sandbox.row("one")["python"] == row["python"]
    assert not [each for each in sandbox.events if each["event"] == "build"]
    sandbox.down("--rmi", "local")


SHOWS = "import os\nprint(os.getuid(), os.getcwd(), os.environ['LOG'], os.path.isdir('/run/sandbox/generations'))\n"


def test_a_command_runs_where_the_model_runs(sandbox: Sandbox) -> None:
    sandbox.model("one", "import os\n\n\ndef predict() -> int:\n    return os.getuid()\n")
    sandbox.spec({"one": {"environment": {"LOG": "info"}}})
    sandbox.up()
    done = sandbox.cli("exec", "-T", "one", "python", "-c", SHOWS, code=None)
    if done.returncode == 1:
        assert "(isolation)" in done.stderr  # nothing to enter on this machine, or not for this user
        return
    assert done.stdout == f"{sandbox.call('one').prediction} /tmp info True\n", done.stderr
    assert sandbox.cli("exec", "-T", "one", "sh", "-c", "exit 7", code=None).returncode == 7
