"""What an engine's `ps` says of a process."""

from __future__ import annotations

import pytest

from orchestrator.ports import Process
from orchestrator.runtimes.container import process


@pytest.mark.parametrize(
    ("elapsed", "seconds"), [("00:00:07", 7.0), ("01:05", 65.0), ("02:03:04", 7384.0), ("1-00:00:01", 86401.0)]
)
def test_a_line_is_a_process(elapsed: str, seconds: float) -> None:
    row = ["42", "1", "root", elapsed, "10", "python -I guest"]
    assert process(row) == Process(42, 1, "root", seconds, 10240, "python -I guest")
