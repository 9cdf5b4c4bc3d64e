"""The reload benchmark against a real sandbox: that it still works, not how fast anything is."""

from __future__ import annotations

import pytest

from tests.bench import reload, report
from tests.bench.subjects import SUBJECTS


def test_a_sandbox_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("SETTLE", 0.0), ("QUIET", 0.1), ("AFTER", 0.1)):
        monkeypatch.setattr(reload, name, seconds)
    found = reload.measure(SUBJECTS["stdlib"], ["process"], saves=2, peer_saves=0, rounds=1)
    (row,) = found.rows
    assert (row.saves, row.lost, row.failed) == (2, 0, 0)
    assert {"detect", "snapshot", "load", "swap", "total"} <= row.phases.keys()
    assert all(len(seconds) == 2 for seconds in row.phases.values())
    assert "**ours, process** | 2 |" in report.section(found.subject, found.rows, found.missing, found.seconds)
