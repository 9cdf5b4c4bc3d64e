"""A real worker process per test, on each Python that a model may use, and a client for its unix socket."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

VERSIONS = ("3.9", "3.11", "3.13")
ROOT = Path(__file__).parents[2]
START = "import sys, json, socket; sys.path.insert(0, sys.argv[1]); from sandbox import worker; worker.run(json.loads(sys.argv[2]), socket.socket(fileno=int(sys.argv[3])))"
DEADLINE = 20.0


@functools.cache
def interpreter(version: str) -> str | None:
    """A program of this name on PATH that really is that version: a version manager's stand-in may not be."""
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        found = shutil.which(f"python{version}", path=folder)
        if found is None:
            continue
        asked = subprocess.run(
            [found, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=False,
        )
        if asked.returncode == 0 and asked.stdout.strip() == version:
            return found
    return None


@pytest.fixture(params=VERSIONS)
def python(request: pytest.FixtureRequest) -> str:
    """The path of an interpreter; the test runs once for each."""
    found = interpreter(request.param)
    if found is None:
        if os.environ.get("SANDBOX_REQUIRE_PYTHONS") == "1":
            pytest.fail(f"python{request.param} is not on PATH")
        pytest.skip(f"python{request.param} is not on PATH")
    return found


class Answer:
    """A whole HTTP answer."""

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def prediction(self) -> Any:
        assert self.status == 200, self.body
        return self.json["data"]["prediction"]

    @property
    def events(self) -> list[str]:
        """The data of each server-sent event."""
        lines = self.body.decode().split("\n")
        return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]


class UnixClient(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("worker", timeout=DEADLINE)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(DEADLINE)
        self.sock.connect(self.path)


class Worker:
    """A worker process and the agent's end of its channel."""

    def __init__(self, python: str, folder: Path, assignment: dict[str, Any], guest: Path) -> None:
        self.folder = folder
        self.assignment = assignment
        self.socket_path = os.path.join(assignment["sockets"], assignment["socket"])
        self.channel, theirs = socket.socketpair()
        self.channel.settimeout(DEADLINE)
        self._lines = self.channel.makefile("r", encoding="utf-8")
        self.log = folder / "output.txt"
        with theirs, self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [python, "-I", "-B", "-c", START, str(guest), json.dumps(assignment), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno(), *assignment.get("output", ()), *assignment.get("extra", ())],
                start_new_session=True,
            )

    def next_message(self) -> dict[str, Any]:
        """The worker's next message. An empty one where it has closed the channel."""
        line = self._lines.readline()
        return json.loads(line) if line else {}

    def until(self, kind: str) -> dict[str, Any]:
        """Its next message of this type."""
        while True:
            message = self.next_message()
            if message.get("type") == kind:
                return message
            assert message, f"the worker never said {kind}: {self.output}"

    def tell(self, kind: str, **fields: Any) -> None:
        self.channel.sendall(json.dumps({"type": kind, **fields}).encode() + b"\n")

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(DEADLINE)
        connection.connect(self.socket_path)
        return connection

    @property
    def data(self) -> Path:
        return Path(self.assignment["tree"], "data")

    def client(self) -> UnixClient:
        return UnixClient(self.socket_path)

    def call(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """One request on a connection of its own. body: JSON, or bytes as they are."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        client = self.client()
        try:
            client.request(method, path, data, headers or {})
            response = client.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            client.close()

    def predict(self, headers: dict[str, str] | None = None, **inputs: Any) -> Answer:
        return self.call("POST", "/predict", inputs, headers)

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self) -> int:
        return self.process.wait(DEADLINE)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # it may have ended, and what it forked lives
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(DEADLINE)
        self._lines.close()
        self.channel.close()


StartWorker = Callable[..., Worker]


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    """A folder as models have it on their path: `sandbox` and nothing of the host's."""
    folder = tmp_path / "guest"
    folder.mkdir()
    (folder / "sandbox").symlink_to(ROOT / "sandbox")
    return folder


@pytest.fixture
def boot(python: str, tmp_path: Path, guest: Path) -> Iterator[StartWorker]:
    """Start a worker on these files ({"main.py": text, …} or main.py's text) without waiting for anything."""
    workers: list[Worker] = []

    def start(files: dict[str, str] | str, **given: Any) -> Worker:
        number = len(workers) + 1
        folder = tmp_path / f"replica-{number}"
        tree, sockets = folder / "generations" / "tree-1", folder / "s"
        sockets.mkdir(parents=True)
        (tree / "data").mkdir(parents=True)
        for name, text in ({"main.py": files} if isinstance(files, str) else files).items():
            path = tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assignment = {
            "model": "probe",
            "generation": number,
            "attempt": 1,
            "content": "0" * 64,
            "tree": str(tree),
            "data": str(tree / "data"),
            "source": "/home/author/models/probe",
            "entry": None,
            "config": {},
            "serving": {},
            "warmup": False,
            "sockets": str(sockets),
            "socket": f"g{number}-1.sock",
            **given,
        }
        worker = Worker(python, folder, assignment, guest)
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.close()


@pytest.fixture
def serve(boot: StartWorker) -> StartWorker:
    """As `boot`, and wait until it listens. `worker.ready` is what it announced."""

    def start(files: dict[str, str] | str, **given: Any) -> Worker:
        worker = boot(files, **given)
        worker.ready = worker.until("listening")  # type: ignore[attr-defined]
        return worker

    return start


@pytest.fixture
def refuse(boot: StartWorker) -> Callable[..., dict[str, Any]]:
    """As `boot`, for a model that must not load: returns its `failed` message once the worker left with status 1."""

    def start(files: dict[str, str] | str, **given: Any) -> dict[str, Any]:
        worker = boot(files, **given)
        failed = worker.until("failed")
        assert worker.wait() == 1
        return failed

    return start
