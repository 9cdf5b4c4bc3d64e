"""The load is one that the usual tool does not pass: `docker compose watch`, syncing and restarting, loses requests."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.load import model, verdict
from tests.e2e.load.clients import Load

pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]

EDITS, EVERY = 2, 2.5
STARTS_WITHIN = 60.0
COMPOSE = """\
services:
  model:
    image: {image}
    command: [python3, /app/peer.py]
    ports: ["127.0.0.1:{port}:8000"]
    volumes: ["{folder}/ran:/ran"]
    build:
      context: .
      dockerfile_inline: |
        FROM python:3.11-slim
        ENV PYTHONDONTWRITEBYTECODE=1
        COPY app /app
    develop:
      watch: [{{action: sync+restart, path: ./app, target: /app}}]
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="sbpeer")).resolve()
    (made / "app").mkdir()
    (made / "ran").mkdir()
    (made / "ran").chmod(0o777)
    shutil.copy(Path(__file__).with_name("peer.py"), made / "app")
    save(made, 0)
    yield made
    shutil.rmtree(made, ignore_errors=True)


def save(folder: Path, version: int) -> None:
    (folder / "app" / "version.py").write_text(f'VERSION = "{version:05}"\n')


def publish(folder: Path, port: int) -> None:
    (folder / "compose.yaml").write_text(COMPOSE.format(image=folder.name, port=port, folder=folder))


@contextlib.contextmanager
def watched(folder: Path) -> Iterator[int]:
    """What compose serves and watches; its port."""
    compose = ["docker", "compose", "--progress", "plain"]
    try:
        publish(folder, 8000)
        subprocess.run([*compose, "build"], cwd=folder, check=True, capture_output=True)
        with socket.socket() as probe:  # only now: others take free ports while it builds
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        publish(folder, port)
        subprocess.run([*compose, "up", "-d", "--no-build"], cwd=folder, check=True, capture_output=True)
        with watching([*compose, "watch", "--no-up"], folder):
            answering(port)
            yield port
    finally:
        words = [*compose, "down", "-t", "0", "--rmi", "all", "--volumes"]
        subprocess.run(words, cwd=folder, check=True, capture_output=True)


def answering(port: int) -> None:
    """Wait until it answers: a container that has started is no server yet."""
    end, pause = time.monotonic() + STARTS_WITHIN, threading.Event()
    body = model.asked("first", 0, 0.0)
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("POST", "/", body)
            return connection.getresponse().close()
        except (OSError, http.client.HTTPException):
            assert time.monotonic() < end
            pause.wait(0.05)
        finally:
            connection.close()


@contextlib.contextmanager
def watching(words: list[str], folder: Path) -> Iterator[None]:
    """Until it says that it watches, an edit would go unseen."""
    process = subprocess.Popen(
        words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    said: list[str] = []
    watches = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                said.append(line)
                if "watch" in line.lower():
                    watches.set()
        watches.set()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert watches.wait(STARTS_WITHIN), said
        assert process.poll() is None, said
        yield
    finally:
        # In the middle of a restart it ignores SIGTERM; what it started goes with it.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        reader.join()


def test_compose_watch_does_not_pass(folder: Path, tell: Callable[[str], None]) -> None:
    with watched(folder) as port:
        load = Load(port)
        pause = threading.Event()
        with load.running():
            pause.wait(EVERY)
            before = [each for each in load.samples if each.fault]
            for version in range(1, EDITS + 1):
                save(folder, version)
                pause.wait(EVERY)

    found = verdict.judge(load, (folder / "ran" / "ran.txt").read_text())
    tell(verdict.Figures("docker compose watch, sync+restart", load, range(1, EDITS + 1)).line())
    assert before == []
    assert max(each.version for each in load.samples) > 0
    assert found.lost
