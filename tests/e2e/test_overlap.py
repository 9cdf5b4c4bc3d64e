"""Two generations that do not fit into memory: the old one ends first, requests wait, and nothing is lost."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.e2e.client import Load
from tests.e2e.sandbox import Sandbox

LIMIT = "256M"
# Of the limit: with the old generation's share, and what is always there, no second one fits.
TAKES = 150


def model(word: str, then: str = "") -> str:
    return f"""\
import asyncio
KEPT = b""

def load() -> None:
    global KEPT
    KEPT = b"x" * ({TAKES} << 20)
    {then or "pass"}

async def predict() -> str:
    await asyncio.sleep(0.02)
    return {word!r}
"""


@pytest.fixture(scope="module", autouse=True)
def running(shared: Sandbox) -> None:
    for name in ("tight", "broken", "twins", "hog", "asked"):
        shared.model(name, model("old"))
    shared.model("roomy", model("old"))
    limited = {"resources": {"memory": LIMIT}}
    shared.spec(
        {
            "tight": limited,
            "broken": limited,
            "hog": limited,
            "asked": {**limited, "reload": {"mode": "off"}},
            "twins": {**limited, "replicas": 2},
            "roomy": None,
        }
    )
    shared.up()


def load_on(shared: Sandbox, name: str) -> Load:
    return shared.load(name, keep=8, fresh=2)


def more(shared: Sandbox, load: Load, count: int = 30) -> None:
    """Wait until the load has had `count` more good answers."""
    wanted = sum(each.status == 200 for each in load.samples) + count
    shared.until(lambda: sum(each.status == 200 for each in load.samples) >= wanted)


def held(shared: Sandbox, name: str) -> float:
    text = shared.request("GET", "/metrics").body.decode()
    found = re.findall(rf'^sandbox_requests_held_total{{model="{name}",[^}}]*}} (\S+)$', text, re.MULTILINE)
    return sum(map(float, found))


def test_a_model_that_does_not_fit_twice_is_stopped_first_and_its_requests_wait(shared: Sandbox) -> None:
    before = shared.row("tight")
    with load_on(shared, "tight").running() as load:
        more(shared, load)
        event = shared.edit("tight/main.py", model("new"))
        more(shared, load)

    data = event["data"]
    assert data["tier"] == "stop-first"
    assert re.fullmatch(r"main\.py; memory 256 MiB < \d+ MiB in use \+ 1\.2 times 1\d\d MiB for a load", data["cause"])
    assert {"import", "held", "load", "swap"} <= set(data["phases"])
    assert load.failures() == []
    assert held(shared, "tight") > 0
    assert {each.body["data"]["prediction"] for each in load.samples} == {"old", "new"}
    after = shared.row("tight")
    assert (after["state"], after["restarts"]) == ("running", before["restarts"])
    assert after["pids"]["agent"] == before["pids"]["agent"]


def test_where_the_new_generation_fails_to_load_the_old_one_is_started_again(shared: Sandbox) -> None:
    before = shared.row("broken")
    with load_on(shared, "broken").running() as load:
        more(shared, load)
        since = shared.mark()
        shared.save("broken/main.py", model("new", "raise ValueError('no weights')"))
        rejected = shared.event("broken", "reload", since, ok=False)
        back = shared.state_of("broken", "degraded")
        more(shared, load)

    assert "ValueError main.py:7 no weights" in rejected["message"]
    assert back["generation"] == before["generation"]
    assert "no weights" in back["reason"]
    assert load.failures() == []
    assert held(shared, "broken") > 0
    assert {each.body["data"]["prediction"] for each in load.samples} == {"old"}
    assert any("answers again" in each["message"] for each in shared.events if each["model"] == "broken")


def test_a_load_that_takes_more_than_the_limit_is_killed_and_the_old_generation_is_back(shared: Sandbox) -> None:
    before = shared.row("hog")
    with load_on(shared, "hog").running() as load:
        more(shared, load)
        since = shared.mark()
        shared.save("hog/main.py", model("new", "KEPT = [b'x' * (10 << 20) for _ in range(40)]"))
        rejected = shared.event("hog", "reload", since, ok=False)
        shared.state_of("hog", "degraded")
        more(shared, load)

    after = shared.row("hog")
    assert "killed for lack of memory during load()" in rejected["message"]
    assert (after["generation"], after["pids"]["agent"]) == (before["generation"], before["pids"]["agent"])
    assert load.failures() == []
    assert {each.body["data"]["prediction"] for each in load.samples} == {"old"}


def test_what_fails_before_its_load_ends_nothing(shared: Sandbox) -> None:
    since = shared.mark()
    before = held(shared, "tight")
    shared.save("tight/main.py", model("new") + "raise ImportError('not today')\n")
    shared.event("tight", "reload", since, ok=False)
    assert shared.call("tight").prediction in {"old", "new"}
    assert held(shared, "tight") == before
    shared.edit("tight/main.py", model("mended"))


def test_of_two_replicas_one_answers_while_the_other_makes_room(shared: Sandbox) -> None:
    with load_on(shared, "twins").running() as load:
        more(shared, load)
        event = shared.edit("twins/main.py", model("new"))
        shared.until(lambda: shared.row("twins")["replicas"]["ready"] == 2)
        more(shared, load)

    assert event["data"]["tier"] == "stop-first"
    assert load.failures() == []
    assert held(shared, "twins") == 0
    acknowledged = [(event["seen"], event["data"]["generation"])]
    assert load.stale(acknowledged) == []


def test_it_is_said_beforehand(shared: Sandbox) -> None:
    shared.save("asked/main.py", model("new"))
    plan = shared.cli("plan", code=None).stdout
    assert "stop-first" in plan
    assert "256 MiB" in plan
    assert shared.call("asked").prediction == "old"


def test_the_kernel_would_take_what_answers_after_all_that_does_not(shared: Sandbox) -> None:
    row = shared.row("roomy")
    scores = {
        kind: int(Path(f"/proc/{shared.host_pid(row, kind)}/oom_score_adj").read_text())
        for kind in ("agent", "zygote", "workers")
    }
    assert scores == {"agent": 0, "zygote": 500, "workers": 200}


def test_a_model_without_a_limit_is_loaded_beside_the_old_one(shared: Sandbox) -> None:
    event = shared.edit("roomy/main.py", model("new"))
    assert event["data"]["tier"] == "fork"
    assert held(shared, "roomy") == 0
