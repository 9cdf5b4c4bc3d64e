"""Children forked before they are needed: a save then costs no fork. It knows no job, only who waits for one."""

from __future__ import annotations

import os
from typing import Callable, List, Optional, Tuple

from sandbox import start, wire
from sandbox.child import Child
from sandbox.children import Children, Pipes
from sandbox.loop import Loop, Timer
from sandbox.nursery import Nursery
from sandbox.output import Capture
from sandbox.peer import Peer

# One to compile, one to serve.
WAITING = 2
# Forking waits until a reload and its first answers are over.
_QUIET_SECONDS = 0.1


class Spares:
    """Owns the waiting children. They come from the zygote in use; when that is another one they are of no more use."""

    def __init__(
        self,
        loop: Loop,
        brood: Children,
        nursery: Nursery,
        capture: Callable[[int, int, str], Capture],
        cpus: Optional[float],
    ) -> None:
        self._loop = loop
        self._brood = brood
        self._nursery = nursery
        self._capture = capture
        self._cpus = cpus
        self._waiting: List[Child] = []
        self._ordered = 0
        self._origin: Optional[Tuple[int, int]] = None
        self._timer: Optional[Timer] = None
        self._closed = False

    def take(
        self,
        job: start.Job,
        generation: int,
        receive: Callable[[wire.Message], None],
        ended: Callable[[str], None],
    ) -> Optional[Child]:
        """A child that now does `job`; None where none waits."""
        self.look()  # whoever asks because a zygote has just become ready may be told of it before we are
        while self._waiting:
            child = self._waiting.pop(0)
            if child.employ(job, generation, receive, ended):
                return child
        return None

    def refill(self) -> None:
        """Have enough of them again, once it is quiet."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.later(_QUIET_SECONDS, self._fill)

    def look(self) -> None:
        """The zygotes changed: children of an earlier one lack what this one imported."""
        source = self._nursery.source
        if source is not None and source != self._origin:
            self._discard()
            self._origin = source
            self.refill()

    def close(self) -> None:
        self._closed = True
        self._discard()

    def _discard(self) -> None:
        waiting, self._waiting = self._waiting, []
        for child in waiting:
            child.kill()

    def _fill(self) -> None:
        while not self._closed and self._nursery.ready and len(self._waiting) + self._ordered < WAITING:
            self._ordered += 1
            self._order()

    def _order(self) -> None:
        pipes, origin = Pipes(), self._origin
        job = {"kind": "wait", "environment": dict(os.environ), "cpus": self._cpus}

        def forked(pid: Optional[int], _error: str) -> None:
            self._ordered -= 1
            if pid is None:
                pipes.discard()
                return
            captures = [self._capture(pipes.out, 0, "out"), self._capture(pipes.err, 0, "err")]
            pipes.given()
            child = Child(
                self._loop,
                self._brood,
                pid,
                Peer(self._loop, pipes.channel),
                captures=captures,
                trace_fd=pipes.trace,
                receive=lambda _message: None,
                ended=lambda _cause: self._lost(child),
            )
            child.born()
            self._waiting.append(child)
            if self._closed or origin != self._origin:
                self._waiting.remove(child)
                child.kill()

        self._nursery.fork(job, pipes.theirs, forked)

    def _lost(self, child: Child) -> None:
        if child in self._waiting:
            self._waiting.remove(child)
            self.refill()
