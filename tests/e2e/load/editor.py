"""Saving as people and tools do, on a schedule: renamed over, written in place, and now and then twice in a row."""

from __future__ import annotations

import os
import threading
import time

from tests.e2e.load import model
from tests.e2e.sandbox import Sandbox

# Every so many saves come two at once: the first is to be superseded.
TWICE = 10
MAIN = f"{model.NAME}/main.py"


def length() -> tuple[float, int]:
    """Seconds and edits of the long load: SANDBOX_LOAD_SECONDS, SANDBOX_LOAD_EDITS."""
    return float(os.environ.get("SANDBOX_LOAD_SECONDS", "60")), int(os.environ.get("SANDBOX_LOAD_EDITS", "200"))


def started(sandbox: Sandbox, *, gateways: int = 1) -> None:
    """The model of the load, up. gateways: processes that share the port."""
    sandbox.model(model.NAME, model.source(0))
    sandbox.data(model.NAME)
    sandbox.spec({model.NAME: {"data": "rw", "concurrency": 256}}, gateway={"workers": gateways})
    sandbox.up()


def edits(sandbox: Sandbox, seconds: float, count: int, first: int = 1) -> list[int]:
    """Save `count` versions in `seconds`, evenly, and wait until the last one is what answers; the versions saved."""
    began, pause = time.monotonic(), threading.Event()
    versions = list(range(first, first + count))
    for index, version in enumerate(versions):
        if index % TWICE != TWICE - 1:
            pause.wait(max(0.0, began + seconds * index / count - time.monotonic()))
        sandbox.save(MAIN, model.source(version), rename=version % 2 == 0)
    sandbox.cli("wait", model.NAME, "--generation", "latest")
    return versions


def ran(sandbox: Sandbox) -> str:
    """What the model wrote down."""
    return (sandbox.project / model.NAME / "data" / "ran.txt").read_text()


def held(sandbox: Sandbox) -> float:
    """`sandbox_requests_held_total`, over all models and reasons."""
    text = sandbox.request("GET", "/metrics").body.decode()
    lines = [line for line in text.splitlines() if line.startswith("sandbox_requests_held_total")]
    return sum(float(line.split()[-1]) for line in lines)
