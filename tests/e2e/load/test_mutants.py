"""The load catches what it is there to catch: a product with a defect put into it does not pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple
from pathlib import Path

import pytest

from tests.e2e.load import editor, mutants, verdict
from tests.e2e.load.clients import Load
from tests.e2e.load.mutants import Exchange
from tests.e2e.sandbox import Sandbox

SECONDS, EDITS = 5.0, 16


@pytest.fixture(scope="module")
def runtime() -> str:
    """The defects are in what both runtimes share."""
    return "process"


def caught(sandbox: Sandbox, tell: Callable[[str], None], exchanges: Sequence[Exchange]) -> verdict.Verdict:
    """What a short load says about the product with these exchanges made."""
    mutants.run_instead(sandbox, exchanges)
    editor.started(sandbox)
    load = Load(sandbox.port, sandbox.state / "control.sock")
    with load.running():
        versions = editor.edits(sandbox, SECONDS, EDITS)
    found = verdict.judge(load, editor.ran(sandbox))
    counts = dict(zip(verdict.Verdict.__dataclass_fields__, map(len, astuple(found)), strict=True))
    tell(verdict.Figures("a defect to catch", load, versions, counts).line())
    return found


def test_killing_the_old_worker_at_the_swap_is_caught(sandbox: Sandbox, tell: Callable[[str], None]) -> None:
    found = caught(sandbox, tell, mutants.OLD_WORKER_KILLED)

    assert [each for each in found.lost if each.startswith("stream-")]
    assert [each for each in found.lost if "WORKER_DIED" in each]


def test_acknowledging_before_the_gateways_have_swapped_is_caught(
    sandbox: Sandbox, tell: Callable[[str], None]
) -> None:
    found = caught(sandbox, tell, mutants.ACKNOWLEDGED_EARLY)

    assert found.stale
    assert found.lost == found.reran == ()


def test_a_worker_that_closes_idle_connections_first_is_caught_once_nothing_is_sent_again(
    sandbox: Sandbox, tell: Callable[[str], None]
) -> None:
    found = caught(sandbox, tell, [mutants.IDLE_CLOSED_BY_WORKER, *mutants.NO_RETRY])

    assert [each for each in found.lost if "WORKER_DIED" in each]


def test_a_copy_without_a_defect_is_not_caught(sandbox: Sandbox, tell: Callable[[str], None]) -> None:
    assert caught(sandbox, tell, []).faults == ()


@pytest.mark.parametrize("before", ["no such line", "import"])
def test_a_defect_that_cannot_be_put_in_is_an_error(tmp_path: Path, before: str) -> None:
    with pytest.raises(AssertionError, match="times"):
        mutants.copy(tmp_path, [Exchange("orchestrator/keeper.py", before, "")])
