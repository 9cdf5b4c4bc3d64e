"""A restart of the Docker engine under load, on an engine of the tests' own."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator

import pytest

from orchestrator.image.engine import base_name
from tests.e2e import figures
from tests.e2e.engine import Engine
from tests.e2e.sandbox import Sandbox

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("dockerd"), reason="starts an engine: needs root, dockerd"
    ),
]


@pytest.fixture(scope="module")
def runtime() -> str:
    return "docker"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """Every command of this module talks to it."""
    made = Engine()
    with pytest.MonkeyPatch.context() as patch:
        try:
            made.start(live_restore=False)
            made.copy(base_name(""))
            patch.setenv("DOCKER_HOST", made.address)
            yield made
        finally:
            made.close()


@pytest.fixture
def serving(engine: Engine, make: Callable[[], Sandbox]) -> Sandbox:
    sandbox = make()
    sandbox.model("one", says("before"))
    sandbox.spec({"one": None})
    sandbox.up()
    return sandbox


def says(word: str) -> str:
    return f"import asyncio\n\n\nasync def predict() -> str:\n    await asyncio.sleep(0.02)\n    return {word!r}\n"


def advice(sandbox: Sandbox) -> dict[str, str]:
    """What doctor says, by check."""
    checks = map(json.loads, sandbox.cli("doctor", "--format", "json", code=None).stdout.splitlines())
    return {each["name"]: each["message"] for each in checks}


def test_without_live_restore_every_model_comes_back_with_the_engine(engine: Engine, serving: Sandbox) -> None:
    assert "ends every container" in advice(serving)["live-restore"]
    before = serving.row("one")
    with serving.load("one", keep=3, fresh=1, pause=0.02).running() as load:
        serving.answered(load)
        began = time.monotonic()
        engine.restart(live_restore=False)
        serving.answered(load)
        after = serving.state_of("one", "running")

    figures.tell(f"docker: engine restarted without live-restore: {load.outage(began)}")
    # Lost is what the workers had read when their container ended; the rest waited for the engine.
    assert {each.body["error"]["code"] for each in load.failures()} <= {"WORKER_DIED"}
    assert len(load.failures()) <= load.keep + load.fresh
    assert after["generation"] == before["generation"]
    assert after["pids"] != before["pids"]
    # Nothing is left of the container that ended with its engine.
    serving.until(lambda: len(engine.containers()) == 1)
    serving.edit("one/main.py", says("after"))
    assert serving.call("one").prediction == "after"


def test_with_live_restore_a_restart_of_the_engine_loses_nothing_and_saves_work_meanwhile(
    engine: Engine, serving: Sandbox
) -> None:
    engine.restart(live_restore=True)
    serving.state_of("one", "running")
    assert "live-restore" not in advice(serving)
    before = serving.identity(serving.row("one"))
    with serving.load("one", keep=3, fresh=1, pause=0.02).running() as load:
        serving.answered(load)
        began = time.monotonic()
        engine.stop()
        serving.edit("one/main.py", says("without an engine"))
        assert serving.call("one").prediction == "without an engine"
        engine.start(live_restore=True)
        serving.answered(load)

    figures.tell(f"docker: engine restarted with live-restore: {load.outage(began)}")
    assert load.failures() == []
    after = serving.identity(serving.row("one"))
    assert (after["agent"], after["containers"]) == (before["agent"], before["containers"])
