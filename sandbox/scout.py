"""What a generation's files import first, found by a checker's process, and told to the nursery in time.

In time is when the worker's own importing is over: a zygote that imports the same would take its processor away.
"""

from __future__ import annotations

from typing import List, Optional

from sandbox import start, steps, wire
from sandbox.birth import Cradle, Wanted, bear
from sandbox.child import Child
from sandbox.steps import Step

_SECONDS = 10.0


class Scout:
    def __init__(self, cradle: Cradle) -> None:
        self._cradle = cradle
        self._steps: Optional[List[Step]] = None
        self._in_time = False

    def hear(self, message: wire.Message) -> None:
        """`scanned` of a checker."""
        if message.get("type") == "scanned":
            self._steps = steps.received(message.get("steps"))
            if self._in_time:
                self.tell()

    def look(self, job: start.Job, generation: int) -> None:
        """Have the files read beside the worker, where nothing had to be checked before it."""
        if self._cradle.nursery.ready:
            wanted = Wanted(job, "fork", generation, self.hear, lambda _: None, self._bound, lambda _, __: None)
            bear(self._cradle, wanted)

    def _bound(self, child: Child, _how: str) -> None:
        self._cradle.loop.later(_SECONDS, child.kill)

    def tell(self) -> None:
        """It is time."""
        self._in_time = True
        if self._steps is not None:
            self._cradle.nursery.scanned(self._steps)
            self._steps = None
