"""The peers that `reload.py` measures beside us, each doing the same small job: one HTTP call that answers a number."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import uv

APP = """
import json

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    body = json.dumps({{"data": {{"prediction": {version}}}}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({{"type": "http.response.start", "status": 200, "headers": headers}})
    await send({{"type": "http.response.body", "body": body}})
"""
STARTS_WITHIN = 30.0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_port(port: int) -> None:
    deadline = time.monotonic() + STARTS_WITHIN
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing listens on port {port}")
        time.sleep(0.05)


@contextlib.contextmanager
def uvicorn_reload() -> Iterator[tuple[str, Path]]:
    """`uvicorn --reload` of a bare ASGI app; gives its URL and the file to save. Its package is installed for the run."""
    folder = Path(tempfile.mkdtemp(prefix="sbench"))
    python = folder / "env" / "bin" / "python"
    source = folder / "app" / "app.py"
    source.parent.mkdir()
    source.write_text(APP.format(version=1))
    tool = uv.find_uv_bin()
    subprocess.run([tool, "venv", "-q", folder / "env"], check=True)
    subprocess.run([tool, "pip", "install", "-q", "--python", python, "uvicorn[standard]"], check=True)
    port = _free_port()
    words = [python, "-m", "uvicorn", "app:app", "--reload", "--port", str(port), "--log-level", "error"]
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    server = subprocess.Popen(words, cwd=source.parent, env=environ)
    try:
        _await_port(port)
        yield f"http://127.0.0.1:{port}", source
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)
