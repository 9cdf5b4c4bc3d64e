"""What a load proves, or what it caught: a pure look at samples, acknowledgements and the ids that the model wrote."""

from __future__ import annotations

import bisect
import itertools
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.e2e.load.clients import Acknowledged, Load, Sample

# Kinds whose time is the product's, not the model's or the body's.
_PROMPT = frozenset({"keep-alive", "fresh", "http-1.0", "expect"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """One line for each thing that must not be. Empty: the load proved what it is to prove.

    lost: no good answer, or a connection closed; stale: answered by older code than was acknowledged; reran: not run
    exactly once; confused: a generation that is not one version, or not newer than the one before.
    """

    lost: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    reran: tuple[str, ...] = ()
    confused: tuple[str, ...] = ()

    @property
    def faults(self) -> tuple[str, ...]:
        return (*self.lost, *self.stale, *self.reran, *self.confused)


def judge(load: Load, ran: str) -> Verdict:
    """ran: what the model wrote, a line `id version` for each call."""
    lost = [f"{each.id}: {each.fault}" for each in load.samples if each.fault]
    return Verdict(
        lost=(*lost, *load.closed),
        stale=tuple(stale(load.samples, load.acknowledged)),
        reran=tuple(reran(load.samples, ran)),
        confused=tuple(confused(load.samples, load.acknowledged)),
    )


def stale(samples: Sequence[Sample], acknowledged: Sequence[Acknowledged]) -> list[str]:
    """Requests whose first byte was sent after an acknowledgement, and which an older generation answered."""
    moments = [each.at for each in acknowledged]
    newest = list(itertools.accumulate((each.generation for each in acknowledged), max, initial=0))
    found = []
    for each in samples:
        owed = newest[bisect.bisect_right(moments, each.sent)]
        if each.generation and each.generation < owed:
            late = each.sent - next(one.at for one in acknowledged if one.generation >= owed)
            found.append(f"{each.id}: g{each.generation} answered {late * 1000:.1f} ms after g{owed} was acknowledged")
    return found


def reran(samples: Sequence[Sample], ran: str) -> list[str]:
    """Ids that the model did not run exactly once, by the version that the answer names."""
    calls = Counter(line.split()[0] for line in ran.splitlines())
    versions = dict(line.split() for line in ran.splitlines())
    asked = {each.id for each in samples}
    found = [f"{each.id}: ran {calls[each.id]} times" for each in samples if calls[each.id] != 1]
    found += [f"{name}: ran and was never asked for" for name in calls if name not in asked]
    good = [each for each in samples if not each.fault and each.id in versions]
    found += [f"{each.id}: ran elsewhere" for each in good if int(versions[each.id]) != each.version]
    return found


def confused(samples: Sequence[Sample], acknowledged: Sequence[Acknowledged]) -> list[str]:
    """Generations that answered with two versions, or that do not follow one another (a replaced replica has its own again)."""
    said: dict[int, set[int]] = {}
    for each in samples:
        if not each.fault:
            said.setdefault(each.generation, set()).add(each.version)
    found = [f"g{number} is {sorted(versions)}" for number, versions in said.items() if len(versions) != 1]
    known = [min(versions) for _, versions in sorted(said.items())]
    found += [f"version {b} came after {a}" for a, b in itertools.pairwise(known) if b <= a]
    numbers = [each.generation for each in acknowledged]
    return found + [f"g{b} acknowledged after g{a}" for a, b in itertools.pairwise(numbers) if b < a]


@dataclass(slots=True)
class Figures:
    """One line for people who read the log."""

    title: str
    load: Load
    saved: Sequence[int] = ()
    more: dict[str, object] = field(default_factory=dict)

    @property
    def superseded(self) -> list[int]:
        """Versions that were saved and never answered."""
        return sorted(set(self.saved) - {each.version for each in self.load.samples})

    def line(self) -> str:
        samples = self.load.samples
        times = sorted(each.done - each.sent for each in samples if each.kind in _PROMPT) or [0.0]
        over = max(each.done for each in samples) - min(each.sent for each in samples)
        p99 = times[int(0.99 * (len(times) - 1))]
        parts = [
            f"{len(samples)} requests in {over:.0f} s",
            f"{sum(bool(each.fault) for each in samples)} lost",
            *([f"{len(self.saved)} edits"] if self.saved else []),
            f"{len(self.load.acknowledged)} acknowledged",
            *([f"{len(self.superseded)} superseded before going live {self.superseded}"] if self.saved else []),
            f"p50 {statistics.median(times) * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms, max {times[-1] * 1000:.0f} ms",
            *(f"{name} {value}" for name, value in self.more.items()),
        ]
        return f"{self.title}: {', '.join(parts)}"
