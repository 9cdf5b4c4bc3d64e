"""The progress of `up` on a terminal (a real pseudo-terminal), and the supervision that `up` relies on."""

import json
import os
import subprocess
import sys

import pytest

from orchestrator import folders, supervision
from orchestrator.errors import SandboxError
from tests.unit.cli.conftest import event, row


def on_a_terminal(*words):
    """Run a command with a pseudo-terminal as its output: (exit code, what it wrote)."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli", *words],
        stdout=theirs,
        stderr=theirs,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(theirs)
    written = b""
    with open(ours, "rb", buffering=0) as terminal:
        while True:
            try:
                more = terminal.read(65536)
            except OSError:  # EIO: the other end is closed
                break
            if not more:
                break
            written += more
    return process.wait(30), written.decode()


def test_on_a_terminal_each_model_that_arrived_stays_on_its_line(control):
    control.answers["POST", "/api/up"] = [
        event("progress", "installing numpy"),
        event("ready", "✔ ready g1 in 0.4 s", ok=True),
        {"type": "settled", "failed": [], "models": [row()]},
    ]
    code, written = on_a_terminal("up", "-d")
    assert code == 0
    assert "ready g1 in 0.4 s" in written
    assert "\x1b[32m" in written
    code, written = on_a_terminal("--ansi", "never", "up", "-d")
    assert code == 0
    assert "\x1b" not in written


def test_a_keeper_is_not_started_where_one_lives(control):
    place = control.place
    found, started = supervision.ensure(place, {})
    assert not started
    assert found.get("/api/models")["models"][0]["name"] == "hello"


def test_a_taken_port_is_reported_by_up_and_leaves_no_state(project, sandbox):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        (project / "sandbox.yaml").write_text(f"gateway: {{port: {port}}}\nmodels: {{}}\n")
        code, _, err = sandbox("up", "-d")
    assert code == 1
    assert err.startswith(f"error: port {port} is taken by ")
    assert err.endswith("(port-in-use)\n")
    assert not os.path.exists(folders.Folders(str(project)).state)


def test_a_record_of_another_boot_is_no_running_sandbox(project):
    place = folders.Folders(str(project))
    folders.private(place.state)
    me = {"pid": os.getpid(), "start_time": folders.start_time(os.getpid())}
    folders.write_json(place.keeper_record, {**me, "boot_id": "another", "orders": {}})
    with pytest.raises(SandboxError, match="no sandbox runs"):
        supervision.connect(place)


def test_a_record_is_replaced_whole(tmp_path):
    path = tmp_path / "record.json"
    folders.write_json(str(path), {"a": 1})
    with pytest.raises(TypeError):
        folders.write_json(str(path), {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["record.json"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_process_is_known_by_its_start_and_a_zombie_does_not_live():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    record = {"pid": child.pid, "start_time": folders.start_time(child.pid)}
    assert folders.living(record)
    assert not folders.living({**record, "start_time": record["start_time"] - 1})
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not folders.living(record)
    child.wait()
