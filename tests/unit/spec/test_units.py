"""Durations, sizes, rates: read, written back, refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import SpecError
from orchestrator.spec import units


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("0s", 0.0),
        ("10us", 0.00001),
        ("10µs", 0.00001),
        ("10ms", 0.010),
        ("250ms", 0.250),
        ("30s", 30.0),
        ("1m30s", 90.0),
        ("1.5h", 5400.0),
        (".5s", 0.5),
        ("1h0m1s", 3601.0),
        ("30s1m", 90.0),
    ],
)
def test_a_duration_is_read_as_go_reads_it(text: str, seconds: float) -> None:
    assert units.duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "30", "1.5", "s", "30 s", "-1s", "1d", "1S", "1e3s", "30s ", "1h-1m", "9" * 12 + "h"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        units.duration(text)
    assert caught.value.reference == "bad-value"
    assert caught.value.hint


def test_a_bare_number_is_asked_for_its_unit() -> None:
    with pytest.raises(SpecError) as caught:
        units.duration("30")
    assert caught.value.hint == "a unit is needed: 30s or 30ms"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("1024", 1024),
        ("10b", 10),
        ("1k", 1024),
        ("1kb", 1024),
        ("512M", 512 * 1024**2),
        ("512m", 512 * 1024**2),
        ("10MB", 10 * 1024**2),
        ("1G", 1024**3),
        ("1GiB", 1024**3),
        ("1.5g", 3 * 512 * 1024**2),
        ("2 G", 2 * 1024**3),
        ("1T", 1024**4),
        ("1P", 1024**5),
    ],
)
def test_a_size_is_read_as_compose_reads_it(text: str, number: int) -> None:
    assert units.size(text) == number


@pytest.mark.parametrize("text", ["", "M", "-1M", "1X", "1iB", "1 M B", "1e3", "9000000000000P", "1,5G", "NaN"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"size|large"):
        units.size(text)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("100/minute", (100, 60.0)),
        ("100/min", (100, 60.0)),
        ("100 / minute", None),
        ("100 per minute", None),
        ("5/s", (5, 1.0)),
        ("5/second", (5, 1.0)),
        ("5/10s", (5, 10.0)),
        ("5/1m30s", (5, 90.0)),
        ("1/hour", (1, 3600.0)),
        ("1/day", (1, 86400.0)),
        ("0/minute", None),
        ("-1/minute", None),
        ("100", None),
        ("1.5/s", None),
        ("5/0s", None),
        ("5/fortnight", None),
        ("", None),
    ],
)
def test_a_rate_is_a_count_and_a_period(text: str, limit: tuple[int, float] | None) -> None:
    if limit is not None:
        assert units.rate(text) == limit
        return
    with pytest.raises(SpecError) as caught:
        units.rate(text)
    assert caught.value.reference == "bad-value"


@given(st.text(alphabet=st.sampled_from(list("0123456789.umsh/µkMGiB -+eE")), max_size=20))
def test_no_text_makes_a_unit_crash(text: str) -> None:
    for read in (units.duration, units.size, units.rate):
        try:
            read(text)
        except SpecError as error:
            assert error.reference == "bad-value"  # noqa: PT017 - most texts are fine


@given(st.integers(min_value=0, max_value=366 * 86400 * 1_000_000))
def test_a_duration_survives_being_written(micros: int) -> None:
    assert units.duration(units.duration_text(micros / 1_000_000)) == pytest.approx(micros / 1_000_000, abs=1e-9)


@given(st.integers(min_value=0, max_value=2**63 - 1))
def test_a_size_survives_being_written(number: int) -> None:
    text = units.size_text(number)
    if len(text.rstrip("KMGTP")) <= 18:
        assert units.size(text) == number


@given(st.integers(min_value=1, max_value=10**9 - 1), st.sampled_from([1.0, 60.0, 3600.0, 86400.0, 10.0, 0.5]))
def test_a_rate_survives_being_written(count: int, seconds: float) -> None:
    assert units.rate(units.rate_text((count, seconds))) == (count, seconds)
