"""Nothing is lost, run twice or answered by old code while every kind of client calls and the model is edited."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.load import editor, verdict
from tests.e2e.load.clients import Load
from tests.e2e.sandbox import Sandbox

# An acknowledgement is every gateway's.
GATEWAYS = {"process": 2, "docker": 1}


@pytest.mark.timeout(400)
def test_no_request_is_lost_rerun_held_or_answered_by_old_code_over_the_edits(
    sandbox: Sandbox, tell: Callable[[str], None]
) -> None:
    seconds, count = editor.length()
    editor.started(sandbox, gateways=GATEWAYS[sandbox.runtime])
    load = Load(sandbox.port, sandbox.state / "control.sock")

    with load.running():
        versions = editor.edits(sandbox, seconds, count)

    held = editor.held(sandbox)
    figures = verdict.Figures(f"edits under load, {sandbox.runtime}", load, versions, {"held": f"{held:.0f}"})
    tell(figures.line())
    assert verdict.judge(load, editor.ran(sandbox)).faults == ()
    assert held == 0
    # The edits did go live, and every kind of client was at work.
    assert len({each.generation for each in load.acknowledged}) == len(load.acknowledged) > count // 2
    assert versions[-1] not in figures.superseded
    assert {each.kind for each in load.samples} == {kind.name for kind in load.mix}
