"""Every error that a user can meet, met as a user meets it: what it says, its exit code, and that nothing is left."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TypeVar

import pytest

from orchestrator import folders
from orchestrator.errors import EXIT_FAILURE, REFERENCES
from tests.e2e.sandbox import COMMAND, DEADLINE, Sandbox

ANSWER = "def predict(x: int = 1) -> int:\n    return x\n"
FEW_LINES = 12
COVERED: set[str] = set()
Done = subprocess.CompletedProcess[str]
T = TypeVar("T", bound=Callable[..., object])


def meets(*references: str) -> Callable[[T], T]:
    """Marks a test as one that meets these references."""
    COVERED.update(references)
    return lambda test: test


@pytest.fixture(scope="module")
def runtime() -> str:
    return "process"


@pytest.fixture
def project(sandbox: Sandbox) -> Sandbox:
    """A project with one good model."""
    sandbox.model("one", ANSWER)
    sandbox.spec({"one": {}})
    return sandbox


def check(done: Done, reference: str, *parts: str, code: int | None = None) -> None:
    """It says what, where and what next in a few lines, under its reference, with the right exit code."""
    shown = f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert done.returncode == (REFERENCES[reference].exit_code if code is None else code), shown
    lines = done.stderr.splitlines()
    assert lines[0].startswith("error: "), shown
    assert lines[-1] == f"  ({reference})", shown
    assert any(line.startswith("  hint: ") and line != "  hint: " for line in lines), shown
    assert len(lines) <= FEW_LINES, shown
    assert "Traceback" not in done.stderr, shown
    assert "orchestrator" not in done.stdout, shown
    for part in parts:
        assert part in done.stderr, f"{part!r} is not said:\n{shown}"


def begin(project: Sandbox, *command: str) -> subprocess.Popen[str]:
    """A command that runs on beside the test."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*COMMAND, *command], cwd=project.project, env=project.environ, text=True, **pipes)


def finished(command: subprocess.Popen[str]) -> Done:
    """The end of it."""
    out, err = command.communicate(timeout=DEADLINE)
    return subprocess.CompletedProcess(command.args, command.returncode, out, err)


@pytest.fixture(scope="module", autouse=True)
def kept_waiting(cache: Path) -> Iterator[subprocess.Popen[str]]:
    """An `up` of a project that something else has locked: its patience takes as long as the other tests here."""
    made = Sandbox("process", cache)
    made.model("one", ANSWER)
    made.spec({"one": {}})
    folders.private(str(made.state.parent))
    folders.private(str(made.state))
    lock = made.state / "keeper.lock"
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        command = begin(made, "up", "-d")
        yield command
        command.kill()
        command.communicate()
        lock.unlink()
    made.state.rmdir()
    assert made.close() == []
    shutil.rmtree(made.root)


# The file: nothing is started, and the project is as it was.

MISTAKES = [
    ("yaml-syntax", "models: {\n", ["sandbox.yaml:2"]),
    ("unknown-key", "models:\n  one: {path: one, replica: 2}\n", ["sandbox.yaml:2", "models.one.replica", "replicas?"]),
    ("duplicate-key", "models:\n  one: one\n  one: one\n", ["sandbox.yaml:3", "one"]),
    ("missing-key", "name: x\n", ["sandbox.yaml:1", "models"]),
    ("wrong-type", "models:\n  one: {path: one, replicas: two}\n", ["sandbox.yaml:2", "models.one.replicas", "'two'"]),
    ("bad-value", "runtime: dokcer\nmodels: {one: one}\n", ["sandbox.yaml:1", "runtime", "docker?"]),
    ("bad-name", "models:\n  One: one\n", ["sandbox.yaml:2", "'One'"]),
    ("not-supported", "models: {one: {path: one, gpus: all}}\n", ["sandbox.yaml:1", "models.one.gpus"]),
    ("interpolation", "models:\n  one: ${WHERE_IS_IT:?set it}\n", ["sandbox.yaml:2", "models.one", "WHERE_IS_IT"]),
    ("env-file", "models:\n  one: {path: one, env_file: .env.gone}\n", ["sandbox.yaml:2", "env_file", ".env.gone"]),
    ("path-outside", "models:\n  one: /usr\n", ["sandbox.yaml:2", "models.one", "/usr", "allow_outside"]),
    ("path-missing", "models:\n  one: gone\n", ["sandbox.yaml:2", "models.one", "gone"]),
    ("path-missing", "models:\n  one: {path: one, volumes: ['./gone:/w']}\n", ["sandbox.yaml:2", "volumes", "./gone"]),
    ("volume", "models:\n  one: {path: one, volumes: [one]}\n", ["sandbox.yaml:2", "models.one.volumes", "HOST:TARGET"]),
    (
        "dependency-cycle",
        "models:\n  a: {path: one, depends_on: [b]}\n  b: {path: one, depends_on: [a]}\n",
        ["sandbox.yaml:2", "a → b → a"],
    ),
    ("unknown-model", "models:\n  one: {path: one, depends_on: [noe]}\n", ["sandbox.yaml:2", "'noe'"]),
    ("unknown-profile", "models:\n  a: {path: one, depends_on: [b]}\n  b: {path: one, profiles: [p]}\n", ["--profile p"]),
    ("insecure-gateway", "gateway: {host: 0.0.0.0}\nmodels: {one: one}\n", ["sandbox.yaml:1", "gateway.insecure"]),
]  # fmt: skip


@meets(*(reference for reference, _, _ in MISTAKES))
@pytest.mark.parametrize(("reference", "text", "parts"), MISTAKES, ids=[reference for reference, _, _ in MISTAKES])
def test_a_wrong_file_starts_nothing(project: Sandbox, reference: str, text: str, parts: list[str]) -> None:
    project.save("sandbox.yaml", text)
    before = sorted(project.root.rglob("*"))

    check(project.cli("up", "-d", code=None), reference, *parts)

    assert sorted(project.root.rglob("*")) == before
    check(project.cli("config", code=None), reference, *parts)
    check(project.cli("plan", code=None), reference, *parts)


@meets("no-spec", "not-running", "unknown-model", "unknown-profile", "usage", "exists", "bad-name")
@pytest.mark.parametrize(
    ("reference", "command", "part"),
    [
        ("no-spec", ["-f", "gone.yaml", "up"], "gone.yaml"),
        ("no-spec", ["--project-directory", "/", "ps"], "sandbox init"),
        ("not-running", ["ps"], "sandbox up"),
        ("not-running", ["reload"], "sandbox up"),
        ("not-running", ["logs", "-f"], "sandbox up"),
        ("unknown-model", ["up", "-d", "onw"], "did you mean one?"),
        ("unknown-profile", ["--profile", "large", "up", "-d"], "'large'"),
        ("usage", ["up", "--detatch"], "--detatch"),
        ("usage", ["nothing"], "'nothing'"),
        ("exists", ["init"], "sandbox.yaml"),
        ("exists", ["new", "one"], "one"),
        ("bad-name", ["new", "My Model"], "my-model"),
    ],
)
def test_a_command_that_cannot_be_done_changes_nothing(
    project: Sandbox, reference: str, command: list[str], part: str
) -> None:
    before = sorted(project.root.rglob("*"))

    check(project.cli(*command, code=None), reference, part)

    assert sorted(project.root.rglob("*")) == before


# The model directory: the others run, and the one that does not says why.

ZOO: dict[str, tuple[str, str | None, list[str]]] = {
    "nomain": ("no-main", None, ["no main.py", "nomain"]),
    "nomodel": ("no-model", "x = 1\n", ["main.py", "predict"]),
    "two": ("many-models", "class A:\n    def predict(self): ...\nclass B:\n    def predict(self): ...\n", ["A, B"]),
    "syntax": ("model-failed", "x = 1\ndef predict(:\n", ["SyntaxError main.py:2"]),
    "imports": (
        "model-failed",
        "import nowhere_to_be_found\n",
        ["ModuleNotFoundError main.py:1", "nowhere_to_be_found"],
    ),
    "raises": ("model-failed", f"{ANSWER}def load():\n    1 / 0\n", ["ZeroDivisionError main.py:4"]),
    "exits": ("model-failed", f"{ANSWER}def load():\n    import os; os._exit(3)\n", ["main.py:4", "status 3"]),
    "hangs": (
        "model-failed",
        f"{ANSWER}def load():\n    import threading; threading.Event().wait()\n",
        ["TimeoutError main.py:4", "did not finish in 1 s"],
    ),
    "unbuildable": ("build", ANSWER, ["models.unbuildable", "no-such-package-here", "requirements.txt"]),
    "internal": ("isolation", ANSWER, ["models.internal.network", "bridge"]),
    "locked-data": ("path-permission", ANSWER, ["models.locked-data", "data/secret", "chmod"]),
    "old": ("no-python", ANSWER, ["Python", "python:"]),
}


@pytest.fixture(scope="module")
def zoo(shared: Sandbox) -> Sandbox:
    """All of these models in one sandbox, and one that works."""
    for name, (_, source, _) in ZOO.items():
        shared.model(name, source or "")
        if source is None:
            (shared.project / name / "main.py").unlink()
    shared.model("one", ANSWER)
    (shared.project / "unbuildable" / "requirements.txt").write_text("no-such-package-here==1\n")
    (shared.data("locked-data") / "secret").touch(mode=0)
    # Nothing to install from, and no interpreter but our own.
    folder = shared.root / "bin"
    folder.mkdir()
    absent = next(version for version in ("3.9", "3.10", "3.12") if not sys.version.startswith(version))
    shared.environ |= {"PIP_NO_INDEX": "1", "PATH": str(folder), "PYENV_ROOT": "/", "UV_PYTHON_INSTALL_DIR": "/"}
    more = {"internal": {"network": "internal"}, "old": {"python": absent}, "hangs": {"load_timeout": "1s"}}
    shared.spec({name: more.get(name) for name in [*ZOO, "one"]})
    shared.up(code=EXIT_FAILURE)
    return shared


@meets(*(reference for reference, _, _ in ZOO.values()))
@pytest.mark.parametrize("name", ZOO)
def test_a_model_that_cannot_run_says_why_in_up_and_in_ps(zoo: Sandbox, name: str) -> None:
    reference, _, parts = ZOO[name]

    check(zoo.cli("up", "-d", name, code=None), reference, name, *parts, code=EXIT_FAILURE)

    row = zoo.row(name)
    assert (row["state"], row["error"]["reference"]) == ("failed", reference)
    assert all(part in row["reason"] for part in parts), row["reason"]


@meets("model-failed")
def test_where_several_models_fail_each_has_a_line_and_the_good_one_answers(zoo: Sandbox) -> None:
    done = zoo.cli("up", "-d", "nomodel", "syntax", "one", code=None)

    check(done, "model-failed", "2 models are not ready", "\n       nomodel: ", "\n       syntax: ", code=EXIT_FAILURE)
    assert zoo.call("one", {"x": 3}).prediction == 3


@meets("request")
def test_a_call_that_the_gateway_refuses_says_what_the_model_takes(zoo: Sandbox) -> None:
    check(zoo.cli("predict", "one", "x=many", code=None), "request", "INVALID_REQUEST: x: expected integer", "/info")
    check(zoo.cli("predict", "onw", "x=1", code=None), "unknown-model", "did you mean one?")


# The machine.


@meets("port-in-use")
def test_a_port_that_is_taken_names_who_has_it_and_starts_nothing(project: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        project.spec({"one": {}}, gateway={"port": port})

        check(project.cli("up", "-d", code=None), "port-in-use", str(port), f"pid {os.getpid()}", "gateway.port")

    assert project.remains() == []


@meets("no-engine")
def test_docker_without_an_engine_is_an_error_and_auto_goes_on_without(project: Sandbox) -> None:
    project.environ["DOCKER_HOST"] = "unix:///nonexistent/docker.sock"
    project.spec({"one": {}}, runtime="docker")
    check(project.cli("up", "-d", code=None), "no-engine", "/nonexistent/docker.sock", "runtime: process")
    assert project.remains() == []

    project.spec({"one": {}}, runtime="auto")
    done = project.up()
    assert "runtime: process (no Docker engine: /nonexistent/docker.sock does not exist)" in done.stdout
    assert project.row("one")["runtime"] == "process"


class BrokenEngine(BaseHTTPRequestHandler):
    """Says that it is there, and fails at everything."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        healthy = self.path.endswith(("/_ping", "/version"))
        body = json.dumps({"ApiVersion": "1.41"} if healthy else {"message": "the engine is on fire"}).encode()
        self.send_response(200 if healthy else 500)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """In silence."""

    def address_string(self) -> str:
        return "unix"


@contextmanager
def broken_engine(path: Path) -> Iterator[None]:
    with socketserver.ThreadingUnixStreamServer(str(path), BrokenEngine) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()
            path.unlink()


@meets("engine")
def test_what_an_engine_refuses_is_told_in_its_own_words(project: Sandbox) -> None:
    path = project.root / "d.sock"
    project.environ["DOCKER_HOST"] = f"unix://{path}"
    project.spec({"one": {}}, runtime="docker")
    with broken_engine(path):
        check(project.cli("up", "-d", code=None), "engine", "the engine is on fire")
    assert project.remains() == []


@meets("start")
def test_a_project_that_cannot_be_written_starts_nothing(project: Sandbox) -> None:
    (project.project / ".sandbox").touch()
    check(project.cli("up", "-d", code=None), "start", ".sandbox", "sandbox doctor")
    assert project.remains() == []


@meets("disk-full")
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a disk that is small")
def test_a_full_disk_is_named(project: Sandbox) -> None:
    disk = project.root / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", disk], check=True)
    try:
        project.environ["XDG_CACHE_HOME"] = str(disk)
        check(project.cli("up", "-d", code=None), "disk-full", str(disk))
    finally:
        subprocess.run(["umount", disk], check=True)
    assert project.remains() == []


# The sandbox.


@meets("store")
def test_a_store_that_cannot_be_opened_ends_up_at_once(project: Sandbox) -> None:
    (project.project / ".sandbox" / "store.db").mkdir(parents=True)
    check(project.cli("up", "-d", code=None), "store", "store.db", "move the file away")
    assert project.remains() == []


@meets("control")
def test_a_control_that_does_not_come_back_is_told_with_its_log(project: Sandbox) -> None:
    project.up()
    project.unfollow()
    keeper = project.keeper
    os.kill(keeper["pid"], signal.SIGSTOP)
    try:
        os.kill(keeper["control"]["pid"], signal.SIGKILL)
        check(project.cli("ps", code=None), "control", ".sandbox/logs/control.log")
        assert project.call("one", {"x": 2}).prediction == 2
    finally:
        os.kill(keeper["pid"], signal.SIGCONT)


@meets("no-generation", "not-live")
def test_a_generation_that_is_not_there_is_neither_gone_back_to_nor_waited_for(zoo: Sandbox) -> None:
    check(zoo.cli("rollback", "one", "9", code=None), "no-generation", "generation 9", "sandbox generations one")
    check(zoo.cli("rollback", "one", code=None), "no-generation", "no other content")
    late = zoo.cli("wait", "one", "--generation", "9", "--timeout", "0.1", code=None)
    check(late, "not-live", "g9 does not answer after 0.1 s", "the newest is g1")
    assert zoo.call("one", {"x": 3}).prediction == 3


@meets("unknown-model", "no-main")
def test_what_cannot_be_waited_for_is_named(zoo: Sandbox) -> None:
    check(zoo.cli("wait", "onw", code=None), "unknown-model", "did you mean one?")
    check(zoo.cli("wait", "nomain", "--generation", "latest", code=None), "no-main", "no main.py", code=EXIT_FAILURE)


@meets("interrupted")
def test_an_interrupted_up_d_says_what_goes_on(project: Sandbox) -> None:
    project.model("one", f"{ANSWER}def load():\n    import threading; threading.Event().wait()\n")
    command = begin(project, "up", "-d")
    project.until((project.state / "keeper.json").exists)
    command.send_signal(signal.SIGINT)

    check(finished(command), "interrupted", "in the background", "sandbox down")
    assert project.row("one")["state"] != "stopped"


@meets("locked")
def test_a_project_that_stays_locked_is_told_so(kept_waiting: subprocess.Popen[str]) -> None:
    check(finished(kept_waiting), "locked", "wait")


def test_every_error_reference_is_met_here() -> None:
    assert set(REFERENCES) == COVERED
