"""What comes before a worker's birth where its model has a preload.py: a zygote that has run it, under a deadline."""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, Optional

from sandbox import blame
from sandbox.birth import Cradle
from sandbox.loop import Timer
from sandbox.second import Outcome

# Time for the stacks of a hanging preload() to be written.
_ASK_SECONDS = 0.1


class Prelude:
    """`done` gets how it went and the seconds that it took; once, but not after `abandon`."""

    def __init__(self, cradle: Cradle, load_timeout: float, done: Callable[[Outcome, float], None]) -> None:
        self._cradle = cradle
        self._load_timeout = load_timeout
        self._done = done
        self._error: Optional[Dict[str, Any]] = None
        self._timer: Optional[Timer] = None

    def begin(self, job: Dict[str, Any]) -> None:
        self._began = time.monotonic()
        self._timer = self._cradle.loop.later(self._load_timeout, self._time_out)
        self._cradle.nursery.run_preload({**job, "kind": "preload"}, self._settled)

    def abandon(self) -> None:
        """Nobody waits any more. The files may change from here on: what is made now could be of neither content."""
        self._stop()
        self._done = _nobody
        self._cradle.nursery.second.drop("")

    def _settled(self, outcome: Outcome) -> None:
        self._stop()
        self._done(
            outcome if self._error is None else outcome._replace(error=self._error), time.monotonic() - self._began
        )

    def _time_out(self) -> None:
        self._error = blame.timeout("preload", self._load_timeout)
        second = self._cradle.nursery.second
        second.ask_place()
        self._timer = self._cradle.loop.later(_ASK_SECONDS, lambda: second.drop(str(self._error)))

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _nobody(_outcome: Outcome, _seconds: float) -> None:
    """Who waited has been killed."""
