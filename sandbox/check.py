"""One checker at work: a process that compiles what changed before a candidate is born. What follows is not its."""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, List, Optional

from sandbox import blame, start, wire
from sandbox.birth import Cradle, Wanted, bear
from sandbox.child import Child
from sandbox.loop import Timer
from sandbox.scout import Scout

SECONDS = 10.0
# One that has said what is wrong is about to leave by itself.
_LEAVE_SECONDS = 1.0

# The error, None where all is well; the seconds that it took; how its process ended, "" where it lives.
Checked = Callable[[Optional[Dict[str, Any]], float, str], None]


class Check:
    """`checked` is called once, unless it was killed first: then when it is dead."""

    def __init__(self, cradle: Cradle, job: start.Job, generation: int, scout: Scout, checked: Checked) -> None:
        self._cradle = cradle
        self._scout = scout
        self._checked: Optional[Checked] = checked
        self._compiling: Optional[str] = None
        self._error: Optional[Dict[str, Any]] = None
        self._child: Optional[Child] = None
        self._killed = False
        self._timers: List[Timer] = []
        self._began = time.monotonic()
        bear(cradle, Wanted(job, "check", generation, self._hear, self._ended, self._born, self._stillborn))

    def kill(self) -> None:
        self._killed = True
        if self._child is not None:
            self._child.kill()

    def _born(self, child: Child, _how: str) -> None:
        self._child = child
        if self._killed:
            child.kill()
        else:
            self._timers.append(self._cradle.loop.later(SECONDS, child.kill))

    def _stillborn(self, why: str, error: Dict[str, Any]) -> None:
        self._done(error, why)

    def _hear(self, message: wire.Message) -> None:
        self._scout.hear(message)
        if message.get("type") == "compiling":
            self._compiling = str(message.get("file"))
        elif message.get("type") == "checked" and not self._killed:
            self._error = message.get("error")
            if self._error is None:
                self._done(None, "")
            elif self._child is not None:
                self._timers.append(self._cradle.loop.later(_LEAVE_SECONDS, self._child.kill))

    def _ended(self, cause: str) -> None:
        self._done(self._error or blame.checker(cause, self._compiling), cause)

    def _done(self, error: Optional[Dict[str, Any]], cause: str) -> None:
        checked, self._checked = self._checked, None
        for timer in self._timers:
            timer.cancel()
        if checked is not None:
            checked(error, time.monotonic() - self._began, cause)
