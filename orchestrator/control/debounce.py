"""When saved paths are to be acted on. It is told the time and what the disk looks like; it reads neither."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

# While a checkout runs (git holds its lock, or ever new paths arrive) it is one edit, up to this.
LONGEST = 5.0
# Data is acted on once it was left alone for this long: weights are written slowly, and logs without end never count.
DATA_QUIET = 1.0


@dataclass(slots=True)
class Debounce:
    """The pending paths of one model. quiet, max_wait, longest: seconds.

    Once `due` passed, `take` decides:
    1. It waits `quiet` after the last event, but no longer than `max_wait` after the last path that was new, nor than
       `longest` after the first event. A file that a program still has open for writing counts as an event until then.
    2. While git holds its lock it asks again every `quiet`, until `longest`.
    3. A file that is empty now was perhaps just truncated: it waits one more `quiet`, once.
    """

    quiet: float
    max_wait: float
    longest: float = LONGEST
    _paths: set[str] = field(default_factory=set)
    _writing: set[str] = field(default_factory=set)
    _everything: bool = False
    _first: float | None = None
    _last: float = 0.0
    _fresh: float = 0.0
    _not_before: float = -math.inf
    _emptied: bool = False

    def add(self, path: str | None, now: float, *, writing: bool = False) -> None:
        """Note an event. path: None where everything may have changed. writing: the writer has not closed it yet."""
        if self._first is None:
            self._first = self._fresh = now
        self._last = now
        if path is None:
            self._everything = True
            return
        if path not in self._paths:
            self._paths.add(path)
            self._fresh = now
        (self._writing.add if writing else self._writing.discard)(path)

    @property
    def first(self) -> float | None:
        """When the first pending event came, or None where nothing is pending."""
        return self._first

    @property
    def due(self) -> float | None:
        """When to call `take`; None where nothing is pending."""
        if self._first is None:
            return None
        cap = min(self._fresh + self.max_wait, self._first + self.longest)
        return max(min(cap if self._writing else self._last + self.quiet, cap), self._not_before)

    @property
    def pending(self) -> frozenset[str]:
        """The paths that wait."""
        return frozenset(self._paths)

    def take(self, now: float, *, locked: bool = False, empty: bool = False) -> frozenset[str] | None:
        """The paths to act on now (an empty set: everything), or None where `due` moved on.

        locked: a `.git/index.lock` exists above. empty: one of the pending files is empty.
        """
        due = self.due
        if due is None or self._first is None or now < due:  # 1
            return None
        if locked and now < self._first + self.longest:  # 2
            self._not_before = min(now + self.quiet, self._first + self.longest)
            return None
        if empty and not self._emptied:  # 3
            self._emptied = True
            self._not_before = now + self.quiet
            return None
        taken = frozenset() if self._everything else frozenset(self._paths)
        self._reset()
        return taken

    def _reset(self) -> None:
        self._paths, self._writing = set(), set()
        self._everything = self._emptied = False
        self._first, self._not_before = None, -math.inf


def for_data() -> Debounce:
    """The lane of a data folder: it acts once nothing was written for DATA_QUIET, however long that takes."""
    return Debounce(DATA_QUIET, math.inf, math.inf)
