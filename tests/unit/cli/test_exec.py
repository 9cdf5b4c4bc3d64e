"""exec: what it becomes, and what it refuses."""

import http.server
import os
import shutil
import socketserver
import subprocess
import sys
import tempfile
import threading

import pytest

from tests.unit.cli.conftest import row


class Ping(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"OK")

    def address_string(self):
        return "test"

    def log_message(self, *_):
        pass


@pytest.fixture
def engine(project, tmp_path, monkeypatch):
    """A `docker` that says what it was asked, and an engine's socket."""
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$@"\ncat\nexit 7\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    folder = tempfile.mkdtemp(prefix="sbx")  # short: a socket's path may not be long
    with socketserver.ThreadingUnixStreamServer(f"{folder}/engine.sock", Ping) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{folder}/engine.sock")
        yield f"unix://{folder}/engine.sock"
        server.shutdown()
        thread.join()
    shutil.rmtree(folder)


def test_in_a_container_it_is_docker_exec_and_exits_as_that(engine, control):
    found = row(runtime="docker", containers=["c0ffee", "decade"])
    control.answers["GET", "/api/models"]["models"] = [found]
    words = ["exec", "-e", "A=b", "-w", "/data", "--index", "2", "hello", "ls", "-l"]
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", *words], input="typed", capture_output=True, text=True, check=False
    )
    assert done.returncode == 7, done.stderr
    flags = "--interactive --workdir /data --env A=b"
    assert done.stdout == f"--host {engine} exec {flags} decade ls -l\ntyped"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["hello"], 2, "no command was given"),
        (["-e", "A", "hello", "ls"], 2, "'A' is not NAME=VALUE"),
        (["--index", "0", "hello", "ls"], 2, "index"),
        (["helo", "ls"], 2, "did you mean hello?"),
        (["--index", "9", "hello", "ls"], 1, "hello has 1 replicas that run, and no number 9"),
    ],
)
def test_what_cannot_be_meant_is_refused(words, code, said, control, sandbox):
    found, _, err = sandbox("exec", *words)
    assert (found, said in err) == (code, True), err


def test_where_there_are_no_walls_to_enter_it_refuses(control, sandbox):
    control.answers["GET", "/api/models"]["models"] = [row(pids={"agent": [os.getpid()], "zygote": [], "workers": []})]
    code, out, err = sandbox("exec", "hello", "true")
    assert (code, out) == (1, "")
    assert err.startswith("error: exec cannot go where hello runs: ")
    assert err.endswith("  hint: runtime: docker can\n  (isolation)\n")
