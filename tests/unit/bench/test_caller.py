"""What the one client notes of a server."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from tests.bench.caller import Caller
from tests.bench.figures import silence

WITHIN = 10.0


class Answers(http.server.ThreadingHTTPServer):
    """Answers what it is told to."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.status, self.text = 200, b'{"data": {"prediction": 1}}'
        self.told = threading.Event()

    def change(self, status: int, text: bytes) -> None:
        """Answer this from now on; returns when it was answered once."""
        self.told.clear()
        self.status, self.text = status, text
        assert self.told.wait(WITHIN)


class _Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Answers

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        status, text = self.server.status, self.server.text
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
        if text == self.server.text:
            self.server.told.set()

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


@pytest.fixture
def answers() -> Iterator[Answers]:
    server = Answers()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def url(server: Answers) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}/predict"


def test_the_first_answer_of_a_version_is_when_its_last_byte_came(answers: Answers) -> None:
    with Caller(url(answers)) as caller:
        assert caller.wait(1, WITHIN) is not None
        answers.change(200, b'{"data": {"prediction": 2.0}}')
        found = caller.wait(2, WITHIN)
    assert found == min(call.ended for call in caller.calls if call.version == 2)
    assert {call.version for call in caller.calls} == {1, 2}
    assert 0.0 < silence(caller.calls) < WITHIN


@pytest.mark.parametrize("text", [b'{"error": {"message": "no such model"}}', b"Bad Gateway", b"[]", b'{"data": null}'])
def test_an_answer_that_is_none_has_failed_and_is_quoted(answers: Answers, text: bytes) -> None:
    with Caller(url(answers)) as caller:
        caller.wait(1, WITHIN)
        answers.change(200, text)
    assert caller.calls[-1].version is None
    assert caller.trouble == text.decode()


def test_an_error_status_is_no_good_answer(answers: Answers) -> None:
    with Caller(url(answers)) as caller:
        caller.wait(1, WITHIN)
        answers.change(503, b'{"data": {"prediction": 2}}')
        assert caller.wait(2, 0.0) is None
    assert caller.calls[-1].version is None


def test_a_refused_connection_has_failed_and_is_tried_again() -> None:
    with Caller("http://127.0.0.1:9/predict") as caller:
        assert caller.wait(1, 0.05) is None
    assert len(caller.calls) > 1
    assert all(call.version is None for call in caller.calls)
    assert "refused" in caller.trouble.lower()
