"""The load catches what it is there to catch: a product with a defect put into it does not pass.

That a copy passes where nothing is wrong with it is shown by test_exits_under_load.py, which runs one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple
from pathlib import Path

import pytest

from tests.e2e.load import editor, mutants, verdict
from tests.e2e.load.clients import Load
from tests.e2e.load.mutants import Exchange
from tests.e2e.sandbox import Sandbox

SECONDS, EDITS = 4.0, 13


@pytest.fixture(scope="module")
def runtime() -> str:
    """The defects are in what both runtimes share."""
    return "process"


def caught(
    sandbox: Sandbox, tell: Callable[[str], None], defect: str, exchanges: Sequence[Exchange]
) -> verdict.Verdict:
    """What a short load says about the product with these exchanges made."""
    mutants.run_instead(sandbox, exchanges)
    editor.started(sandbox)
    load = Load(sandbox.port, sandbox.state / "control.sock")
    with load.running():
        versions = editor.edits(sandbox, SECONDS, EDITS)
    found = verdict.judge(load, editor.ran(sandbox))
    counts = dict(zip(verdict.Verdict.__dataclass_fields__, map(len, astuple(found)), strict=True))
    tell(verdict.Figures(f"a defect to catch, {defect}", load, versions, counts).line())
    return found


def test_killing_the_old_worker_at_the_swap_is_caught(sandbox: Sandbox, tell: Callable[[str], None]) -> None:
    found = caught(sandbox, tell, "old worker killed", mutants.OLD_WORKER_KILLED)

    assert [each for each in found.lost if each.startswith("stream-")]
    assert [each for each in found.lost if "WORKER_DIED" in each]


def test_acknowledging_before_the_gateways_have_swapped_is_caught(
    sandbox: Sandbox, tell: Callable[[str], None]
) -> None:
    found = caught(sandbox, tell, "acknowledged early", mutants.ACKNOWLEDGED_EARLY)

    assert found.stale
    assert found.lost == found.reran == ()


def test_a_worker_that_closes_idle_connections_first_is_caught_once_nothing_is_sent_again(
    sandbox: Sandbox, tell: Callable[[str], None]
) -> None:
    found = caught(sandbox, tell, "idle closed, no retry", [mutants.IDLE_CLOSED_BY_WORKER, *mutants.NO_RETRY])

    assert [each for each in found.lost if "WORKER_DIED" in each]


@pytest.mark.parametrize("before", ["no such line", "import"])
def test_a_defect_that_cannot_be_put_in_is_an_error(tmp_path: Path, before: str) -> None:
    with pytest.raises(AssertionError, match="times"):
        mutants.copy(tmp_path, [Exchange("orchestrator/keeper.py", before, "")])
