"""One deadline at a time, moved with every request, and a timer that is touched by hardly any."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_NEVER = float("inf")


class Deadline:
    """Calls `passed` once what was watched last has taken too long.

    The timer stays where it is as long as it rings early enough; when it does, it is set anew for what is left.
    """

    __slots__ = ("_at", "_loop", "_passed", "_rings", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, passed: Callable[[], None]) -> None:
        self._loop = loop
        self._passed = passed
        self._at = _NEVER
        self._rings = _NEVER
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, seconds: float) -> None:
        """From now; it replaces the deadline before."""
        self._at = at = self._loop.time() + seconds
        if at < self._rings:
            if self._timer is not None:
                self._timer.cancel()
            self._rings = at
            self._timer = self._loop.call_at(at, self._ring)

    def unwatch(self) -> None:
        """Nothing has a deadline now."""
        self._at = _NEVER

    def close(self) -> None:
        """Never call again."""
        self._at = _NEVER
        if self._timer is not None:
            self._timer.cancel()

    def _ring(self) -> None:
        self._timer = None
        self._rings = _NEVER
        left = self._at - self._loop.time()
        if left <= 0:
            self._at = _NEVER
            self._passed()
        elif left < _NEVER:
            self.watch(left)
