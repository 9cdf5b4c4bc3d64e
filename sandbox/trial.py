"""One fork of a new zygote that loads the model and answers its example: what hangs there would in every worker.

It serves nothing, its output is dropped, and it runs beside what answers: no reload waits for it.
"""

from __future__ import annotations

import os
from typing import Callable, NamedTuple, Optional

from sandbox import start, wire
from sandbox.child import Child
from sandbox.children import Children, Pipes
from sandbox.forker import Forker
from sandbox.loop import Loop, Timer
from sandbox.peer import Peer


class Verdict(NamedTuple):
    """fault: why nothing may be forked from there, or "". module: it was imported under other variables, or ""."""

    fault: str = ""
    module: str = ""


class Trial:
    """`done` gets the verdict, once."""

    def __init__(
        self,
        loop: Loop,
        brood: Children,
        forker: Forker,
        job: start.Job,
        seconds: float,
        *,
        done: Callable[[Verdict], None],
    ) -> None:
        self._loop = loop
        self._brood = brood
        self._seconds = seconds
        self._done = done
        self._verdict: Optional[Verdict] = None
        self._timer: Optional[Timer] = None
        self._pipes = Pipes()
        forker.fork({**job, "kind": "trial"}, self._pipes.theirs, self._forked)

    def _forked(self, pid: Optional[int], _error: str) -> None:
        pipes = self._pipes
        if pid is None:
            pipes.discard()
            self._done(Verdict())  # the zygote died: that is told by itself
            return
        pipes.given()
        for fd in (pipes.out, pipes.err):
            os.close(fd)
        child = Child(
            self._loop,
            self._brood,
            pid,
            Peer(self._loop, pipes.channel),
            captures=[],
            trace_fd=pipes.trace,
            receive=self._hear,
            ended=self._ended,
        )
        self._timer = self._loop.later(self._seconds, lambda: self._time_out(child))
        child.born()

    def _hear(self, message: wire.Message) -> None:
        if message.get("type") == "tried":
            self._verdict = self._verdict or Verdict(str(message.get("fault") or ""))
        elif message.get("type") == "stale":
            self._verdict = self._verdict or Verdict(str(message.get("reason")), str(message.get("module")))

    def _time_out(self, child: Child) -> None:
        self._verdict = self._verdict or Verdict(f"a trial fork did not load in {self._seconds:.0f} s")
        child.kill()

    def _ended(self, cause: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._verdict is None:
            # Killed by somebody else: for want of memory, which says nothing of forks.
            self._verdict = (
                Verdict() if cause == "signal 9" else Verdict(f"a trial fork ended by {cause} while loading")
            )
        self._done(self._verdict)
