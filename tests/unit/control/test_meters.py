"""Control's figures: what they count, and that docs/operations.md has them as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.control import meters
from orchestrator.control.meters import Meters
from orchestrator.exposition import merge, render
from orchestrator.ports import Usage

ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (Path(__file__).parents[3] / "docs" / "operations.md").read_text().splitlines()
    if line.startswith("| sandbox_")
]


def families() -> list[dict]:
    made = Meters()
    made.reload("hello", "fork", "ok", {"fork": 0.004, "total": 0.03})
    made.reload("hello", "fork", "failed", {})
    made.restart("hello", "signal 9")
    made.cut("hello", 2)
    return merge(
        [
            made.families(),
            [meters.states({"hello": "running"}), meters.infos([("hello", 3, "process", "3.11.7")])],
            meters.usages({"hello": Usage(1.5, 1024, 2)}),
        ]
    )


@pytest.mark.parametrize("family", families(), ids=lambda family: family["name"])
def test_each_figure_is_documented_with_its_type_and_labels(family: dict) -> None:
    row = next((row for row in ROWS if row[0] == family["name"]), None)
    assert row is not None, f"docs/operations.md has no row for {family['name']}"
    assert row[1] == family["type"]
    assert [label.strip() for label in row[2].split(",")] == list(family["labels"])


def test_they_read_as_prometheus_wants_them() -> None:
    text, _ = render(families())
    lines = text.decode().splitlines()
    assert 'sandbox_reloads_total{action="fork",model="hello",result="ok"} 1.0' in lines
    assert 'sandbox_reload_duration_seconds_count{model="hello",phase="total"} 1.0' in lines
    assert 'sandbox_model_state{model="hello",state="running"} 1.0' in lines
    assert 'sandbox_model_state{model="hello",state="failed"} 0.0' in lines
    assert 'sandbox_model_info{generation="3",model="hello",python="3.11.7",runtime="process"} 1.0' in lines
