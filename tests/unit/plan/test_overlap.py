"""When two generations do not fit beside each other: the rule, and what is said of it."""

from __future__ import annotations

import pytest

from orchestrator.plan.overlap import Peak, Room, Tight, tight

MIB = 1 << 20
GIB = 1 << 30


@pytest.mark.parametrize(
    ("limit", "used", "peak", "fits"),
    [
        (500, 200, 250, True),
        (500, 201, 250, False),
        (500, 199, 250, True),
        (500, 500, 0, True),
        (100, 90, 300, False),  # it does not fit alone either: then the least that can be done
    ],
)
def test_the_old_generation_ends_first_where_the_limit_is_less_than_usage_and_1_2_peaks(
    limit: int, used: int, peak: int, fits: bool
) -> None:
    found = tight(Room(limit * MIB, used * MIB, None), Peak(0, peak * MIB))
    assert (found is None) == fits


def test_without_a_limit_what_the_machine_has_available_counts() -> None:
    assert tight(Room(None, 5 * GIB, 2 * GIB), Peak(0, GIB)) is None
    assert tight(Room(None, 5 * GIB, GIB), Peak(0, GIB)) == Tight(
        "load", "1.0 GiB available here < 1.2 times 1.0 GiB for a load"
    )


def test_a_limit_that_the_machine_cannot_honour_is_no_room() -> None:
    assert tight(Room(100 * GIB, GIB, GIB), Peak(0, GIB)) is not None


def test_replicas_that_load_at_once_share_the_machine() -> None:
    assert tight(Room(None, None, 3 * GIB, replicas=2), Peak(0, GIB)) is None
    found = tight(Room(None, None, 3 * GIB, replicas=3), Peak(0, GIB))
    assert found == Tight("load", "3.0 GiB available here < 1.2 times 1.0 GiB for each of 3 loads")


def test_the_reason_has_the_numbers() -> None:
    found = tight(Room(512 * MIB, 310 * MIB, None), Peak(5 * MIB, 300 * MIB))
    assert found == Tight("load", "memory 512 MiB < 310 MiB in use + 1.2 times 300 MiB for a load")


def test_a_model_that_takes_its_memory_while_it_is_imported_ends_before_that() -> None:
    found = tight(Room(512 * MIB, 310 * MIB, None), Peak(300 * MIB, 301 * MIB))
    assert found is not None
    assert found.pause == "import"


def test_what_could_not_be_measured_speaks_against_nothing() -> None:
    assert tight(Room(512 * MIB, None, None), Peak(0, 400 * MIB)) is None
