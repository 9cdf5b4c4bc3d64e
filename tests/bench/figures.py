"""The arithmetic of the reload benchmark: which calls count where, percentiles, ratios, targets. It measures nothing.

All times are seconds of one clock.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

AFTER = 0.5  # how long after a save a call counts as beside it


class Call(NamedTuple):
    """One request: sent, last byte read, and the version that answered (None: no good answer)."""

    began: float
    ended: float
    version: int | None


@dataclass(frozen=True, slots=True)
class Block:
    """What one client saw of one server while nobody else was measured.

    quiet: a stretch in which nothing was saved. saves: when each save was begun. seconds: from a save to its first
    answer, without those that were lost. phases: of each reload, where the server tells.
    """

    calls: Sequence[Call]
    quiet: tuple[float, float]
    saves: Sequence[float]
    seconds: Sequence[float]
    phases: Sequence[Mapping[str, float]] = ()


@dataclass(slots=True)
class Row:
    """The blocks of one server and one model, summed up. quiet, beside: how long calls took where nothing was saved, and
    close after a save. silence: the longest time without a good answer.
    """

    model: str
    name: str
    seconds: list[float] = field(default_factory=list)
    phases: dict[str, list[float]] = field(default_factory=dict)
    quiet: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    saves: int = 0
    calls: int = 0
    failed: int = 0
    silence: float = 0.0

    @property
    def lost(self) -> int:
        """Saves that never answered."""
        return self.saves - len(self.seconds)

    def add(self, block: Block) -> None:
        """Count a block in."""
        self.saves += len(block.saves)
        self.seconds += block.seconds
        self.calls += len(block.calls)
        self.failed += sum(call.version is None for call in block.calls)
        self.silence = max(self.silence, silence(block.calls))
        self.quiet += durations(within(block.calls, block.quiet))
        self.beside += durations(beside(block.calls, block.saves))
        for phases in block.phases:
            for phase, seconds in phases.items():
                self.phases.setdefault(phase, []).append(seconds)


@dataclass(frozen=True, slots=True)
class Target:
    """What a row of ours has to reach, seconds."""

    median: float
    p95: float

    def missed(self, row: Row) -> list[str]:
        """What the row does not reach, in words."""
        found = []
        if not row.seconds or statistics.median(row.seconds) > self.median:
            found.append(f"median above {self.median * 1000:.0f} ms")
        if not row.seconds or percentile(row.seconds, 0.95) > self.p95:
            found.append(f"p95 above {self.p95 * 1000:.0f} ms")
        if row.failed:
            found.append(f"{row.failed} calls failed")
        if row.lost:
            found.append(f"{row.lost} saves never answered")
        return found


def percentile(values: Iterable[float], share: float) -> float:
    """The nearest-rank percentile: the smallest value that `share` of all values do not exceed. NaN of nothing."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def durations(calls: Iterable[Call]) -> list[float]:
    """How long the good ones took: a refused connection is a failure, not a quick answer."""
    return [call.ended - call.began for call in calls if call.version is not None]


def beside(calls: Iterable[Call], saves: Sequence[float], after: float = AFTER) -> list[Call]:
    """The calls of which any part lies in the time `after` a save. saves: ascending."""
    found = []
    for call in calls:
        first = bisect_left(saves, call.began - after)  # the earliest save whose window has not ended by then
        if first < len(saves) and saves[first] <= call.ended:
            found.append(call)
    return found


def within(calls: Iterable[Call], stretch: tuple[float, float]) -> list[Call]:
    """The calls that lie wholly in a stretch."""
    return [call for call in calls if stretch[0] <= call.began and call.ended <= stretch[1]]


def silence(calls: Iterable[Call]) -> float:
    """The longest time between one good answer and the next."""
    ends = [call.ended for call in calls if call.version is not None]
    return max((later - earlier for earlier, later in pairwise(ends)), default=0.0)


def ratio(ours: Iterable[Row], peers: Iterable[Row]) -> tuple[float, Row] | None:
    """How many times faster the slowest of ours is than the fastest of the peers, by medians, and which peer that is."""
    medians = [statistics.median(row.seconds) for row in ours if row.seconds]
    measured = [row for row in peers if row.seconds]
    if not medians or not measured:
        return None
    best = min(measured, key=lambda row: statistics.median(row.seconds))
    return statistics.median(best.seconds) / max(medians), best


def orders(names: Sequence[str], rounds: int) -> list[list[str]]:
    """Who is measured when: forwards and backwards by turns, so that nobody always has the quiet part of the run."""
    return [list(names) if number % 2 == 0 else list(reversed(names)) for number in range(rounds)]


def share(total: int, rounds: int, number: int) -> int:
    """How many of `total` saves belong to round `number`, as evenly as they can be dealt."""
    return total // rounds + (number < total % rounds)
