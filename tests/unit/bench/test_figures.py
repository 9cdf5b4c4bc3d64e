"""What the benchmark counts, and how."""

from __future__ import annotations

import math

import pytest

from tests.bench.figures import (
    Block,
    Call,
    Row,
    Target,
    beside,
    durations,
    orders,
    percentile,
    ratio,
    share,
    silence,
    within,
)


def row(name: str, *seconds: float, **fields: int) -> Row:
    return Row("stdlib", name, list(seconds), saves=len(seconds), **fields)


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 10.0), (0.95, 19.0), (0.96, 20.0), (1.0, 20.0), (0.05, 1.0), (0.0, 1.0)]
)
def test_a_percentile_is_a_value_that_was_measured(share: float, expected: float) -> None:
    assert percentile([float(value) for value in range(20, 0, -1)], share) == expected


def test_the_percentile_of_few_values_is_the_largest_not_one_between() -> None:
    assert percentile([1.0, 9.0, 2.0], 0.95) == 9.0


def test_the_percentile_of_nothing_is_no_number() -> None:
    assert math.isnan(percentile([], 0.99))


@pytest.mark.parametrize(
    ("began", "ended", "counts"),
    [
        (9.0, 9.9, False),  # over before the save
        (9.9, 10.0, True),  # under way at the save
        (9.0, 12.0, True),  # outlasts the whole window
        (10.2, 10.3, True),
        (10.5, 10.6, True),  # begins as the window ends
        (10.51, 10.6, False),
        (19.9, 20.1, True),  # the second save
        (21.0, 21.1, False),
    ],
)
def test_a_call_is_beside_a_save_if_any_part_of_it_is(began: float, ended: float, counts: bool) -> None:
    call = Call(began, ended, 1)
    assert beside([call], [10.0, 20.0], after=0.5) == ([call] if counts else [])


def test_a_call_beside_two_saves_counts_once() -> None:
    assert beside([Call(10.1, 10.2, 1)], [10.0, 10.05], after=0.5) == [Call(10.1, 10.2, 1)]


def test_without_saves_nothing_is_beside_one() -> None:
    assert beside([Call(1.0, 2.0, 1)], []) == []


def test_a_quiet_stretch_holds_only_whole_calls() -> None:
    inside = Call(1.0, 2.0, 1)
    assert within([Call(0.9, 1.1, 1), inside, Call(1.9, 2.1, 1)], (1.0, 2.0)) == [inside]


def test_a_failed_call_has_no_duration() -> None:
    assert durations([Call(0.0, 0.5, 1), Call(0.5, 0.51, None)]) == [0.5]


def test_silence_spans_failed_calls() -> None:
    calls = [Call(0.0, 1.0, 1), Call(1.0, 1.1, None), Call(1.2, 3.5, 2), Call(3.5, 3.6, 2)]
    assert silence(calls) == 2.5
    assert silence(calls[:1]) == 0.0


def test_a_row_sums_up_its_blocks() -> None:
    total = Row("stdlib", "process")
    for shift in (0.0, 100.0):
        calls = [
            Call(shift + 0.1, shift + 0.2, 1),
            Call(shift + 1.0, shift + 1.4, 2),
            Call(shift + 1.4, shift + 1.5, None),
        ]
        total.add(Block(calls, (shift, shift + 1.0), [shift + 1.0, shift + 2.0], [0.4], [{"load": 0.1}, {"load": 0.2}]))
    assert (total.saves, total.lost, total.calls, total.failed) == (4, 2, 6, 2)
    assert total.seconds == [0.4, 0.4]
    assert total.silence == pytest.approx(1.2)  # from one block to the next nobody calls: that is no silence
    assert total.quiet == pytest.approx([0.1, 0.1])
    assert total.beside == pytest.approx([0.4, 0.4])
    assert total.phases == {"load": [0.1, 0.2, 0.1, 0.2]}


def test_the_ratio_is_that_of_our_slowest_to_the_fastest_peer() -> None:
    ours = [row("process", 0.02, 0.02, 0.9), row("docker", 0.04)]
    peers = [row("compose-rebuild", 9.0), row("compose-sync-reload", 0.8, 0.8, 2.0), row("bentoml-reload")]
    found = ratio(ours, peers)
    assert found is not None
    assert found[0] == pytest.approx(20.0)
    assert found[1].name == "compose-sync-reload"


def test_there_is_no_ratio_to_nobody() -> None:
    assert ratio([row("process", 0.02)], [row("compose-rebuild")]) is None
    assert ratio([], [row("compose-rebuild", 9.0)]) is None


def test_no_server_has_a_better_place_than_another() -> None:
    rounds = orders(["a", "b", "c"], 4)
    assert {name: sum(order.index(name) for order in rounds) for name in "abc"} == {"a": 4, "b": 4, "c": 4}


@pytest.mark.parametrize(("total", "dealt"), [(30, [10, 10, 10]), (7, [3, 2, 2]), (2, [1, 1, 0])])
def test_saves_are_dealt_evenly_and_all(total: int, dealt: list[int]) -> None:
    assert [share(total, 3, number) for number in range(3)] == dealt


@pytest.mark.parametrize(
    ("measured", "missed"),
    [
        (row("process", 0.02, 0.05), []),
        (row("process", 0.06, 0.06), ["median above 50 ms"]),
        (row("process", 0.02, 0.02, 0.13), ["p95 above 120 ms"]),
        (row("process", 0.02, failed=1), ["1 calls failed"]),
        (Row("stdlib", "process", [0.02], saves=2), ["1 saves never answered"]),
        (Row("stdlib", "process"), ["median above 50 ms", "p95 above 120 ms"]),
    ],
)
def test_a_target_tells_what_is_missed(measured: Row, missed: list[str]) -> None:
    assert Target(0.050, 0.120).missed(measured) == missed
