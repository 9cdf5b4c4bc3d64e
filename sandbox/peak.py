"""How much memory of its own a candidate takes while it imports and loads, by looking often. It decides nothing."""

from __future__ import annotations

from typing import Dict, Optional

from sandbox import proc
from sandbox.loop import Loop, Timer

EVERY = 0.02


class Peak:
    """`bytes` by phase: anonymous memory beyond what the process was born with (a fork shares that with its zygote)."""

    def __init__(self, loop: Loop, pid: int, *, forked: bool) -> None:
        self.bytes: Dict[str, int] = {}
        self._loop = loop
        self._pid = pid
        self._inherited = (proc.anonymous(pid) or 0) if forked else 0
        self._timer: Optional[Timer] = None

    def watch(self, phase: str) -> None:
        """Look now, and again and again for `phase`, until told otherwise."""
        self.rest()
        used = proc.anonymous(self._pid)
        if used is None:
            return
        self.bytes[phase] = max(self.bytes.get(phase, 0), used - self._inherited)
        self._timer = self._loop.later(EVERY, lambda: self.watch(phase))

    def rest(self) -> None:
        """Look no more for now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
