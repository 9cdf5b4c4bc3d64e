"""What the benchmark says of what it measured, and of what it could not."""

from __future__ import annotations

import pytest

from tests.bench import report
from tests.bench.figures import Row
from tests.bench.reload import OURS, SERVERS
from tests.bench.subjects import SUBJECTS

STDLIB = SUBJECTS["stdlib"]


def row(name: str, *seconds: float) -> Row:
    return Row("stdlib", name, list(seconds), saves=len(seconds))


def test_every_server_has_a_name_and_a_place() -> None:
    assert set(report.NAMES) == set(SERVERS)
    assert {*OURS, *report.WATCHING, "gunicorn-hup"} == set(SERVERS)


def test_what_cannot_be_measured_is_said() -> None:
    text = report.section(STDLIB, [row("process", 0.02)], {"bentoml-reload": "no such package"}, 1.0)
    assert "- `bentoml serve --reload`: not measured: no such package\n" in text


@pytest.mark.parametrize(
    ("compose", "uvicorn", "said"),
    [
        (0.8, 0.4, ["40.0 times as fast", "(target 20: reached)", "20.0 times as fast", "(target 10: reached)"]),
        (0.3, 0.19, ["15.0 times as fast", "(target 20: missed)", "9.5 times as fast", "(target 10: missed)"]),
    ],
)
def test_ratios_are_to_the_best_in_a_container_and_to_the_best_that_watches(
    compose: float, uvicorn: float, said: list[str]
) -> None:
    rows = [
        row("process", 0.01),
        row("docker", 0.02),
        row("gunicorn-hup", 0.001),  # watches nothing: no rival
        row("uvicorn-reload", uvicorn),
        row("compose-sync-reload", compose),
        row("compose-rebuild", 9.0),
    ]
    text = report.section(STDLIB, rows, {}, 1.0)
    assert all(words in text for words in said)
    assert "SIGHUP after the save (target" not in text


def test_a_missed_target_is_named_beside_a_reached_one() -> None:
    text = report.section(STDLIB, [row("process", 0.02), row("docker", 0.06)], {}, 1.0)
    assert "**ours, process**: target (median 50 ms, p95 120 ms, no call failed, no save lost) reached." in text
    assert "no save lost) missed: median above 50 ms." in text


def test_a_server_that_lost_every_save_is_still_shown() -> None:
    text = report.section(STDLIB, [Row("stdlib", "uvicorn-reload", saves=3, calls=7, failed=7)], {}, 1.0)
    assert "3 (3 never answered)" in text
    assert "7 of 7" in text


@pytest.mark.parametrize("name", list(SUBJECTS))
def test_each_version_of_a_model_differs_and_compiles(name: str) -> None:
    for ours in (True, False):
        sources = {SUBJECTS[name].source(version, ours=ours) for version in (1, 2)}
        assert len(sources) == 2
        for source in sources:
            compile(source, "main.py", "exec")
