"""One announced process of a replica as the agent holds it: its channel, its output, its trace, and its end.

It knows nothing of generations beyond the number that marks its log lines.
"""

from __future__ import annotations

import os
import signal
from typing import Callable, List, Optional

from sandbox import children, start, trace, wire
from sandbox.loop import Loop
from sandbox.output import Capture
from sandbox.peer import Peer

# How long a process may live without its channel: nothing can be told to it any more.
_SPEECHLESS_SECONDS = 1.0
UNKNOWN = "unknown (agent was replaced)"

MakeCaptures = Callable[[int, int], List[Capture]]


class Child:
    """`receive` gets its messages; `ended` its cause of death, its output logged and its leftovers killed by then."""

    def __init__(
        self,
        loop: Loop,
        brood: children.Children,
        pid: int,
        peer: Peer,
        *,
        captures: List[Capture],
        trace_fd: Optional[int],
        receive: Callable[[wire.Message], None],
        ended: Callable[[str], None],
    ) -> None:
        self.pid = pid
        self._loop = loop
        self._brood = brood
        self._pidfd = os.pidfd_open(pid)
        self._captures = captures
        self._trace = trace_fd
        self.ended = ended
        self._peer = peer
        peer.receive, peer.closed = receive, self._speechless
        for capture in captures:
            loop.reading(capture.fd, self._reader(capture))

    def born(self) -> None:
        """It is a child of this agent: its status will be known."""
        self._brood.expect(self.pid, lambda status: self._exited(children.cause(status)))

    def adopted(self) -> None:
        """It is the child of an agent that died."""
        self._loop.reading(self._pidfd, self._vanished)

    def employ(
        self, job: start.Job, generation: int, receive: Callable[[wire.Message], None], ended: Callable[[str], None]
    ) -> bool:
        """Give a waiting child its job; False where it cannot take it any more."""
        job_fd = start.write_job(job)
        try:
            if not self._peer.send_descriptor(job_fd):
                return False
        finally:
            os.close(job_fd)
        self._peer.receive, self.ended = receive, ended
        for capture in self._captures:
            capture.generation = generation
        return True

    def send(self, message: wire.Message) -> None:
        self._peer.send(message)

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self._pidfd >= 0:
            children.kill(self._pidfd, number)

    def ask_place(self) -> None:
        """Have it write its stacks."""
        if self._trace is not None:
            self.kill(trace.ASK)

    @property
    def stacks(self) -> str:
        return "" if self._trace is None else trace.read(self._trace)

    def forget_stacks(self) -> None:
        if self._trace is not None:
            trace.clear(self._trace)

    def _vanished(self) -> None:
        self._loop.forget(self._pidfd)
        self._exited(UNKNOWN)

    def _exited(self, cause: str) -> None:
        self._peer.drain()
        self._peer.close()
        os.close(self._pidfd)
        self._pidfd = -1
        children.kill_group(self.pid)
        self._brood.settle(lambda: self._buried(cause))

    def _buried(self, cause: str) -> None:
        for capture in self._captures:
            self._loop.forget(capture.fd)
            capture.finish()
        self.ended(cause)
        if self._trace is not None:
            os.close(self._trace)
            self._trace = None

    def _speechless(self, _reason: str) -> None:
        self._loop.later(_SPEECHLESS_SECONDS, self.kill)

    def _reader(self, capture: Capture) -> Callable[[], None]:
        def read() -> None:
            if not capture.read():
                self._loop.forget(capture.fd)

        return read
