"""`docker compose watch` as a peer: a container that is synced and restarted, synced and reloaded in, or rebuilt."""

from __future__ import annotations

import os
import secrets
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench import installs, server
from tests.bench.peers import Peer, free_port, project
from tests.bench.subjects import MAIN, Subject

STARTS_WATCHING_WITHIN = 60.0

DOCKERFILE = """\
FROM {image}
WORKDIR /app
COPY app /app
CMD ["/opt/env/bin/python", "-m", "uvicorn", "app:app", "--host", "0.0.0.0", "--port", "8000", "--log-level", "error"{more}]
"""

COMPOSE = """\
name: {name}
services:
  model:
    build: .
    ports: ["127.0.0.1:{port}:8000"]
    develop:
      watch:
        - action: {action}
          path: ./app
{target}"""

TARGET = "          target: /app\n"
# Action of compose.yaml, further words of uvicorn.
ACTIONS = {
    "compose-sync-restart": ("sync+restart", ""),
    "compose-sync-reload": ("sync", ', "--reload"'),
    "compose-rebuild": ("rebuild", ""),
}


@contextmanager
def watched(subject: Subject, row: str) -> Iterator[Peer]:
    """A project that `docker compose watch` watches, on an image that has the packages already."""
    server.run(["docker", "compose", "version"])
    action, more = ACTIONS[row]
    packages = ["uvicorn[standard]", *subject.packages]
    with installs.image(f"{subject.name}-{row}", packages) as image, project(subject) as folder:
        port, name = free_port(), f"sbench-{secrets.token_hex(4)}"
        target = "" if action == "rebuild" else TARGET
        (folder / "Dockerfile").write_text(DOCKERFILE.format(image=image, more=more))
        (folder / "compose.yaml").write_text(COMPOSE.format(name=name, port=port, action=action, target=target))
        compose = ["docker", "compose", "--project-directory", folder, "--progress", "plain"]
        try:
            server.run([*compose, "up", "-d", "--build"])
            with _watch([*compose, "watch", "--no-up"], folder):
                yield Peer(subject, folder / "app" / MAIN, f"http://127.0.0.1:{port}/")
        finally:
            server.run([*compose, "down", "-t", "0", "--rmi", "local", "--volumes"])


@contextmanager
def _watch(words: list[str | Path], folder: Path) -> Iterator[None]:
    """Until it says that it watches, an edit would go unseen."""
    process = subprocess.Popen(
        words, cwd=folder, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    said: list[str] = []
    watches = threading.Event()

    def read() -> None:
        for line in process.stdout or ():
            said.append(line)
            if "watching" in line.lower() or "watch enabled" in line.lower():
                watches.set()
        watches.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        if not watches.wait(STARTS_WATCHING_WITHIN) or process.poll() is not None:
            raise server.Unavailable(
                server.last_words("".join(said)) or "docker compose watch does not say that it watches"
            )
        yield
    finally:
        process.terminate()
        process.wait()
        reader.join()
