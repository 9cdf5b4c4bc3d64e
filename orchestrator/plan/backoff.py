"""How long to wait before trying again. Pure: the caller keeps the count and the clock."""

from __future__ import annotations

FIRST = 0.1
LONGEST = 30.0
FORGET_AFTER = 60.0


def delay(failures: int) -> float:
    """Seconds to wait after this many failures in a row: 0 for none, then 0.1 s doubling to 30 s."""
    if failures <= 0:
        return 0.0
    return min(FIRST * 2.0 ** min(failures - 1, 20), LONGEST)
