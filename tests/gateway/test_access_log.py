"""The access log: one line per request through either lane, without what is secret, and only where it is asked for."""

from __future__ import annotations

import hashlib
import json
import os

import pytest
from gateway_world import BOTH, ask, route, until

from orchestrator.gateway import journal
from orchestrator.gateway.journal import Entry, Journal, redacted
from orchestrator.gateway.metrics import Recorder

LANES = BOTH
SECRET = "a-long-secret"
KEYS = [{"name": "ci", "digest": hashlib.sha256(SECRET.encode()).hexdigest(), "allow": ["infer"]}]
WHO = {"X-API-Key": SECRET, "X-Request-ID": "mine"}


async def lines(capfd, count: int) -> list[dict]:
    text = ""

    def complete() -> bool:
        nonlocal text
        text += capfd.readouterr().err
        return text.count("\n") >= count

    await until(complete)
    return [json.loads(line) for line in text.splitlines()]


async def test_each_request_has_its_line_and_no_secret_is_in_it(port, control, workers, capfd, monkeypatch):
    monkeypatch.setattr(journal, "FLUSH_AFTER", 0.01)
    await control.sync({"hello": route(await workers(), generation=4)}, access_log=True, keys=KEYS)
    path = "/models/hello/predict"
    assert (await ask(port, "POST", f"{path}?x=1&api_key={SECRET}", {}, WHO)).status == 200
    assert (await ask(port, "POST", f"{path}?token={SECRET}", {})).status == 401
    called, refused = await lines(capfd, 2)
    assert called.pop("time") > 1.7e9
    assert called.pop("seconds") >= 0
    assert called == {
        "id": "mine", "client": "127.0.0.1", "key": "ci", "method": "POST", "path": f"{path}?x=1&api_key=***",
        "route": "/models/{name}/predict", "model": "hello", "generation": 4, "code": 200,
    }  # fmt: skip
    assert (refused["code"], refused["key"], refused["path"]) == (401, None, f"{path}?token=***")


async def test_an_edit_switches_it_and_it_is_off_by_default(port, control, workers, capfd, monkeypatch):
    monkeypatch.setattr(journal, "FLUSH_AFTER", 0.01)
    await control.sync({"hello": route(await workers())})
    await ask(port, "GET", "/health?off")
    await control.tell("policy", policy={"access_log": True})
    await ask(port, "GET", "/health?on")
    assert [line["path"] for line in await lines(capfd, 1)] == ["/health?on"]


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/a", "/a"),
        ("/a?", "/a?"),
        ("/key=1", "/key=1"),
        ("/a?x=1&Password=p&y=2", "/a?x=1&Password=***&y=2"),
        ("/a?client_secret=p;token=q", "/a?client_secret=***;token=***"),
        ("/a?x=token&key=", "/a?x=token&key="),
        ("/a?key=a=b?c", "/a?key=***"),
    ],
)
def test_what_a_query_names_as_secret_is_masked(target, shown):
    assert redacted(target) == shown


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


async def test_lines_wait_for_each_other_and_are_one_write(pipe):
    os.set_blocking(pipe[0], False)
    kept = Journal(Recorder(), (), pipe[1])
    for _ in range(10):
        kept.write(Entry("id", "GET", "/", None), 200, 0.1)
    with pytest.raises(BlockingIOError):
        os.read(pipe[0], 1)
    kept.flush()
    assert os.read(pipe[0], 65536).count(b"\n") == 10


async def test_a_log_that_cannot_be_written_stops_nobody(pipe, capsys):
    broken = Journal(Recorder(), (), pipe[0])
    broken.write(Entry("id", "GET", "/", None), 200, 0.1)
    broken.flush()
    assert "access log" in capsys.readouterr().err
