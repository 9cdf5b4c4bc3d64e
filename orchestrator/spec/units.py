"""Durations, sizes and rates as text, read and written. Pure; raises SpecError("bad-value") without a place.

Durations are Go's, as in Compose ("10ms", "1m30s", "1.5h"); sizes are Compose's, where K, M, G are powers of 1024
("512M", "10mb", "1GiB"); rates are ours ("100/minute", "5/10s").
"""

from __future__ import annotations

import re
from fractions import Fraction

from orchestrator.errors import SpecError

_DURATION = re.compile(r"(?:(?:[0-9]{1,15}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})(?:us|µs|μs|ms|s|m|h))+\Z")
_DURATION_PART = re.compile(r"([0-9.]+)(us|µs|μs|ms|s|m|h)")
_SECONDS = {
    "us": Fraction(1, 1_000_000),
    "µs": Fraction(1, 1_000_000),
    "μs": Fraction(1, 1_000_000),
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3600),
}
_LONGEST = 366 * 86400
_SIZE = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,9})?) ?([kmgtp]?)(i?)(b?)\Z", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_LARGEST = 2**63 - 1
_RATE = re.compile(r"([0-9]{1,9})/(.+)\Z")
_PERIODS = {
    **dict.fromkeys(("s", "sec", "second"), 1.0),
    **dict.fromkeys(("m", "min", "minute"), 60.0),
    **dict.fromkeys(("h", "hour"), 3600.0),
    **dict.fromkeys(("d", "day"), 86400.0),
}


def duration(text: str) -> float:
    """Seconds of "1m30s"."""
    if text == "0":
        return 0.0
    if not _DURATION.match(text):
        hint = f"a unit is needed: {text}s or {text}ms" if _is_number(text) else "write for example 10ms, 30s or 1m30s"
        raise SpecError("bad-value", f"{_short(text)} is no duration", hint=hint)
    seconds = sum(_fraction(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text))
    if seconds > _LONGEST:
        raise SpecError("bad-value", f"{_short(text)} is longer than a year", hint="write a shorter duration")
    return float(seconds)


def duration_text(seconds: float) -> str:
    """The shortest text that `duration` reads back as `seconds`, to the microsecond."""
    micros = round(seconds * 1_000_000)
    if micros % 1_000_000:
        return f"{micros // 1000}ms" if micros % 1000 == 0 else f"{micros}us"
    whole = micros // 1_000_000
    for unit, length in (("h", 3600), ("m", 60)):
        if whole and whole % length == 0:
            return f"{whole // length}{unit}"
    return f"{whole}s"


def size(text: str) -> int:
    """Bytes of "512M"."""
    found = _SIZE.match(text)
    if found is None or (found[3] and not found[2]):
        raise SpecError("bad-value", f"{_short(text)} is no size", hint="write for example 512M, 1.5G or 10485760")
    number = int(_fraction(found[1]) * 1024 ** _POWERS[found[2].lower()])
    if number > _LARGEST:
        raise SpecError("bad-value", f"{_short(text)} is too large", hint="write a smaller size")
    return number


def size_text(number: int) -> str:
    """The shortest text that `size` reads back as `number`."""
    for unit in ("P", "T", "G", "M", "K"):
        if number and number % 1024 ** _POWERS[unit.lower()] == 0:
            return f"{number // 1024 ** _POWERS[unit.lower()]}{unit}"
    return str(number)


def rate(text: str) -> tuple[int, float]:
    """(requests, seconds) of "100/minute" or "5/10s"."""
    found = _RATE.match(text)
    if found is None or int(found[1]) < 1:
        raise SpecError("bad-value", f"{_short(text)} is no rate", hint="write for example 100/minute or 5/10s")
    seconds = _PERIODS.get(found[2]) or duration(found[2])
    if seconds <= 0:
        raise SpecError("bad-value", f"{_short(text)} has no period", hint="write for example 100/minute or 5/10s")
    return int(found[1]), seconds


def rate_text(limit: tuple[int, float]) -> str:
    """The text that `rate` reads back as `limit`."""
    names = {1.0: "second", 60.0: "minute", 3600.0: "hour", 86400.0: "day"}
    count, seconds = limit
    return f"{count}/{names.get(seconds) or duration_text(seconds)}"


def _fraction(number: str) -> Fraction:
    return Fraction(f"0{number}0" if number.endswith(".") else f"0{number}")


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) is not None


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}…")
