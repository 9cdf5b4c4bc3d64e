"""Reloads, every kind of client, those that leave and those that do not read, for long: and nothing is left of them.

A minute in `make test`, half an hour in `make soak` (SANDBOX_SOAK_SECONDS).
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.e2e.load import census, editor, unruly, verdict
from tests.e2e.load.clients import Load
from tests.e2e.sandbox import Sandbox

SECONDS = float(os.environ.get("SANDBOX_SOAK_SECONDS", "60"))
# Caches fill and pools grow in the first of the two parts; what grows in the second is a leak.
WARM_UP = 0.25
EDITS_PER_SECOND = 1.0
# Descriptors that come and go by themselves: a watch that looks, a socket that is being closed.
SLACK = 3
GROWTH_MB = 10.0


@pytest.fixture(scope="module")
def runtime() -> str:
    return "process"


@pytest.mark.soak
@pytest.mark.timeout(SECONDS * 2 + 300)
def test_nothing_is_left_of_requests_reloads_and_clients_that_left(
    sandbox: Sandbox, tell: Callable[[str], None]
) -> None:
    editor.started(sandbox)

    def part(seconds: float, first: int) -> tuple[Load, list[int]]:
        load = Load(sandbox.port, sandbox.state / "control.sock")
        with load.running(), unruly.running(sandbox.port):
            versions = editor.edits(sandbox, seconds, max(2, int(seconds * EDITS_PER_SECOND)), first)
        # The last streams have ended, and what drained is gone, before anything is counted.
        sandbox.until(lambda: census.in_progress(sandbox) == 0, deadline=60)
        sandbox.until(lambda: len(sandbox.row("records")["pids"]["workers"]) == 1, deadline=60)
        assert [f"{each.id}: {each.fault}" for each in load.samples if each.fault] == []
        assert verdict.stale(load.samples, load.acknowledged) == []
        return load, versions

    _, versions = part(SECONDS * WARM_UP, 1)
    before = census.take(sandbox)
    load, versions = part(SECONDS * (1 - WARM_UP), len(versions) + 1)
    after = census.take(sandbox)

    figures = verdict.Figures("soak", load, versions, {"grown": _grown(before, after)})
    tell(figures.line())
    for name, was in before.items():
        now = after[name]
        assert now.descriptors <= was.descriptors + SLACK, f"{name} holds {now} and held {was}"
        assert now.threads <= was.threads, f"{name} holds {now} and held {was}"
        assert now.memory <= was.memory + GROWTH_MB, f"{name} holds {now} and held {was}"


def _grown(before: dict[str, census.Holding], after: dict[str, census.Holding]) -> str:
    return ", ".join(f"{name} {after[name].memory - was.memory:+.1f} MB" for name, was in before.items())
