"""The run itself, against servers in this process."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import pytest

from tests.bench import reload
from tests.bench.server import Unavailable
from tests.bench.subjects import SUBJECTS, Subject

SUBJECT = SUBJECTS["stdlib"]


class _Served(http.server.ThreadingHTTPServer):
    """See server.Server. Answers the version that was saved, unless it is deaf."""

    daemon_threads = True

    def __init__(self, name: str, saved: list[str], *, deaf: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.name, self.saved, self.deaf = name, saved, deaf
        self.version = 1
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"

    def save(self, version: int) -> None:
        self.saved.append(self.name)
        self.version = self.version if self.deaf else version

    def phases(self) -> Sequence[Mapping[str, float]]:
        return ()


class _Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Served

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        text = b'{"data": {"prediction": %d}}' % self.server.version
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


@contextmanager
def served(_subject: Subject, name: str, saved: list[str], *, deaf: bool = False) -> Iterator[_Served]:
    server = _Served(name, saved, deaf=deaf)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def absent(_subject: Subject) -> Iterator[_Served]:
    raise Unavailable("no such package")
    yield


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Who was saved, in order. process and gunicorn-hup answer, uvicorn-reload is deaf, bentoml-reload is not here."""
    order: list[str] = []
    servers = {
        "process": partial(served, name="process", saved=order),
        "gunicorn-hup": partial(served, name="gunicorn-hup", saved=order),
        "uvicorn-reload": partial(served, name="uvicorn-reload", saved=order, deaf=True),
        "bentoml-reload": absent,
    }
    monkeypatch.setattr(reload, "SERVERS", servers)
    for name, seconds in (("SETTLE", 0.0), ("QUIET", 0.02), ("AFTER", 0.0)):
        monkeypatch.setattr(reload, name, seconds)
    monkeypatch.setattr(reload, "PAUSE", (0.0, 0.0))
    return order


def test_servers_are_saved_by_turns_forwards_and_backwards(saved: list[str]) -> None:
    found = reload.measure(SUBJECT, ["process", "gunicorn-hup"], saves=4, peer_saves=2, rounds=2)
    assert saved == ["process", "process", "gunicorn-hup", "gunicorn-hup", "process", "process"]
    assert [(row.name, row.saves, row.lost, row.failed) for row in found.rows] == [
        ("process", 4, 0, 0),
        ("gunicorn-hup", 2, 0, 0),
    ]
    assert all(row.quiet and row.beside and len(row.seconds) == row.saves for row in found.rows)


def test_a_server_that_cannot_be_had_is_named_and_the_others_are_measured(saved: list[str]) -> None:
    found = reload.measure(SUBJECT, ["bentoml-reload", "process"], saves=1, peer_saves=1, rounds=1)
    assert found.missing == {"bentoml-reload": "no such package"}
    assert [row.name for row in found.rows] == ["process"]


def test_saves_that_never_answer_are_counted_and_end_the_row(saved: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload, "ANSWERS_WITHIN", 0.05)
    found = reload.measure(SUBJECT, ["uvicorn-reload"], saves=1, peer_saves=9, rounds=3)
    (row,) = found.rows
    assert (row.saves, row.lost, row.seconds) == (3, 3, [])
    assert len(saved) == reload.GIVEN_UP_AFTER


def test_a_selection_is_read_and_a_slip_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        reload.main(["--rows", "process,dokcer"])
    assert "dokcer: not one of process, docker" in capsys.readouterr().err
