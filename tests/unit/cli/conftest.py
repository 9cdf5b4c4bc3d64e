"""A project whose control is a stand-in on a real unix socket: the command meets HTTP, as it does in life."""

import http.server
import json
import os
import socketserver
import threading
import urllib.parse

import pytest

from orchestrator import folders
from orchestrator.cli import main

SPEC = "gateway: {port: 0}\nmodels:\n  hello: model_dirs/hello\n  digits:\n    path: model_dirs/hello\n    profiles: [big]\n"


def row(name="hello", **changed):
    return {
        "name": name,
        "state": "running",
        "reason": None,
        "error": None,
        "generation": 1,
        "content": "0123456789ab",
        "runtime": "process",
        "python": "3.11.7",
        "replicas": {"ready": 1, "desired": 1},
        "restarts": 0,
        "not_enforced": [],
        "since": "2026-11-20T12:00:00.000Z",
        "pids": {"agent": [10], "zygote": [11], "workers": [12]},
        "url": f"http://127.0.0.1:8080/models/{name}/predict",
        "unforkable": None,
        **changed,
    }


def event(kind, message, model="hello", **data):
    when = "2026-11-20T12:00:00.123Z"
    return {"type": "event", "time": when, "model": model, "event": kind, "message": message, "data": data}


class FakeControl:
    """Answers each (method, path) with what a test put there: an object, a list of lines, or (status, object)."""

    def __init__(self, place):
        self.place = place
        self.calls = []
        url = "http://127.0.0.1:8080"
        sandbox = {
            "id": place.sandbox_id,
            "name": "project",
            "url": url,
            "keeper": os.getpid(),
            "gateway": [9],
            "control": 8,
        }
        self.answers = {("GET", "/api/models"): {"sandbox": sandbox, "models": [row()]}}
        folders.private(place.state)
        me = {"pid": os.getpid(), "start_time": folders.start_time(os.getpid())}
        record = {**me, "boot_id": folders.boot_id(), "host": "127.0.0.1", "port": 8080, "orders": {}}
        folders.write_json(place.keeper_record, record)
        with folders.socket_address(place.control_socket) as address:
            self.server = _Server(address, _handler(self))
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def down(self):
        """What a finished down leaves: nothing."""
        os.unlink(self.place.keeper_record)

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = False


def _handler(fake):
    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self):
            parts = urllib.parse.urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            call = (self.command, parts.path)
            fake.calls.append((*call, dict(urllib.parse.parse_qsl(parts.query)), json.loads(body) if body else None))
            answer = fake.answers[call]
            if callable(answer):
                answer = answer()
            status, answer = answer if isinstance(answer, tuple) else (200, answer)
            self.send_response(status)
            self.end_headers()
            for line in answer if isinstance(answer, list) else [answer]:
                self.wfile.write(json.dumps(line).encode() + b"\n")

        do_GET = do_POST = answer  # noqa: N815

        def address_string(self):
            return "test"

        def log_message(self, *_):
            pass

    return Handler


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A valid project, the current directory, with state and cache of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SANDBOX_PROFILES", raising=False)
    folder = tmp_path / "project"
    (folder / "model_dirs" / "hello").mkdir(parents=True)
    (folder / "model_dirs" / "hello" / "main.py").write_text("def predict(x: float) -> float:\n    return 2 * x + 1\n")
    (folder / "sandbox.yaml").write_text(SPEC)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def control(project):
    fake = FakeControl(folders.Folders(str(project)))
    yield fake
    fake.close()


@pytest.fixture
def sandbox(capsys):
    """Run one command in this process: (exit code, standard output, standard error)."""

    def run(*words):
        code = main(list(words))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
