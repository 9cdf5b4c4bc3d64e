"""The peers that run on the host, each serving the same model over HTTP, without a gateway or isolation."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.bench import installs, server
from tests.bench.subjects import MAIN, Subject

# Of main.py no bytecode is kept: of two saves of one size within one second the second would be taken for the first. That
# of all other modules is, as everywhere.
MODEL = """\
import sys

sys.dont_write_bytecode = True
import main

sys.dont_write_bytecode = False
"""

APP = f"""\
import json

{MODEL}

def answer(body):
    return json.dumps({{"data": {{"prediction": main.predict(**json.loads(body))}}}}).encode()


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    found = answer(body)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(found)).encode())]
    await send({{"type": "http.response.start", "status": 200, "headers": headers}})
    await send({{"type": "http.response.body", "body": found}})


def wsgi(environ, start_response):
    found = answer(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(found)))])
    return [found]
"""

SERVICE = f"""\
import bentoml

{MODEL}

@bentoml.service(workers=1)
class Answers:
    @bentoml.api
    def predict(self, x: float) -> dict:
        return {{"data": {{"prediction": main.predict(x)}}}}
"""

ENVIRON = {"BENTOML_DO_NOT_TRACK": "True"}


class Peer:
    """See server.Server. saved: what is done beyond the write, for a peer that does not watch."""

    def __init__(self, subject: Subject, main: Path, url: str, saved: Callable[[], None] = lambda: None) -> None:
        self._subject = subject
        self._main = main
        self.saved = saved
        self.url = url

    def save(self, version: int) -> None:
        self._main.write_text(self._subject.source(version, ours=False))
        self.saved()

    def phases(self) -> Sequence[Mapping[str, float]]:
        return ()


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def project(subject: Subject) -> Iterator[Path]:
    """A folder with `app/`: the model, and what makes a server of it."""
    folder = Path(tempfile.mkdtemp(prefix="sbench"))
    source = folder / "app"
    source.mkdir()
    (source / "app.py").write_text(APP)
    (source / "service.py").write_text(SERVICE)
    (source / MAIN).write_text(subject.source(1, ours=False))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _hosted(
    subject: Subject, package: str, words: Sequence[str], path: str
) -> Iterator[tuple[Peer, subprocess.Popen[bytes]]]:
    with project(subject) as folder:
        python = installs.environment(folder / "env", [package, *subject.packages])
        # What the model imports is compiled here, what the server does at its start: no reload has to.
        server.run([python, "-c", subject.source(1, ours=False)])
        port = free_port()
        command = [python, "-m", *(word.format(port=port) for word in words)]
        with server.program(command, folder / "app", ENVIRON, folder / "log") as process:
            yield Peer(subject, folder / "app" / MAIN, f"http://127.0.0.1:{port}{path}"), process


@contextmanager
def uvicorn_reload(subject: Subject) -> Iterator[Peer]:
    """`uvicorn --reload`, with watchfiles."""
    words = ["uvicorn", "app:app", "--reload", "--port", "{port}", "--log-level", "error"]
    with _hosted(subject, "uvicorn[standard]", words, "/") as (peer, _):
        yield peer


@contextmanager
def bentoml_reload(subject: Subject) -> Iterator[Peer]:
    """`bentoml serve --reload`."""
    words = ["bentoml", "serve", "service:Answers", "--reload", "--port", "{port}"]
    with _hosted(subject, "bentoml", words, "/predict") as (peer, _):
        yield peer


@contextmanager
def gunicorn_hup(subject: Subject) -> Iterator[Peer]:
    """gunicorn, which watches nothing: SIGHUP follows the write. A reference."""
    words = ["gunicorn", "app:wsgi", "--bind", "127.0.0.1:{port}", "--worker-class", "gthread", "--log-level", "error"]
    with _hosted(subject, "gunicorn", words, "/") as (peer, process):
        peer.saved = lambda: process.send_signal(signal.SIGHUP)
        yield peer
