"""The processes under an agent: making their descriptors, spawning, reaping, and killing what nobody announced.

It knows pids and how they ended, not what they are for.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import sys
from typing import Any, Callable, Dict, Iterator, List, Sequence

from sandbox import proc, start, trace
from sandbox.loop import Loop, Timer

# Descriptors of a spawned child start here; whatever the agent has open is moved out of their way first.
FIRST = 3
_OUT_OF_THE_WAY = 64
_SETTLE_SECONDS = 1.0

Exited = Callable[[int], None]


class Pipes:
    """Descriptors of one child, both sides. `theirs` are handed over and then closed by `given`; the rest is ours."""

    def __init__(self, kind: int = socket.SOCK_STREAM) -> None:
        self.channel, channel = socket.socketpair(socket.AF_UNIX, kind)
        self.out, out = os.pipe()
        self.err, err = os.pipe()
        self.trace = trace.create()
        self.theirs = start.Ends(channel.detach(), out, err, self.out, self.err, self.trace)

    def given(self) -> None:
        """The child has its copies: close the ones made for it alone."""
        for fd in self.theirs[:3]:
            os.close(fd)

    def discard(self) -> None:
        """There will be no child."""
        self.given()
        self.channel.close()
        for fd in (self.out, self.err, self.trace):
            os.close(fd)


class Children:
    """Who is expected to exit, and who has. `look_again` must take in announcements that have already arrived."""

    def __init__(self, loop: Loop, look_again: Callable[[], None], may_kill: Callable[[], bool]) -> None:
        self._loop = loop
        self._look_again = look_again
        self._may_kill = may_kill
        self._expected: Dict[int, Exited] = {}
        self._settling: List[Callable[[], None]] = []
        loop.on_signal(signal.SIGCHLD, self.reap)

    def expect(self, pid: int, exited: Exited) -> None:
        """`exited` gets the wait status of this child."""
        self._expected[pid] = exited

    def reap(self) -> None:
        """Take every child that has ended."""
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                break
            if ended is None:
                break
            if ended.si_pid not in self._expected:
                # A child is announced before it runs, so the announcement of a dead one has arrived.
                self._look_again()
            _, status = os.waitpid(ended.si_pid, 0)
            exited = self._expected.pop(ended.si_pid, None)
            if exited is not None:
                exited(status)
        self._sweep()

    def settle(self, settled: Callable[[], None]) -> None:
        """Kill every child that nobody announced (what a dead worker left), then call back, after a second at most."""
        deadline: List[Timer] = []

        def once() -> None:
            deadline[0].cancel()
            if once in self._settling:
                self._settling.remove(once)
            settled()

        deadline.append(self._loop.later(_SETTLE_SECONDS, once))
        self._settling.append(once)
        self._sweep()

    def order_closed(self) -> None:
        """A fork order has ended: an unannounced child is now a stray."""
        self._sweep()

    def _sweep(self) -> None:
        if not self._settling or not self._may_kill():
            return
        strays = [pid for pid in proc.children() if pid not in self._expected]
        for pid in strays:
            # A child's pid stays its own until it is reaped here.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not strays:
            for settled in list(self._settling):
                settled()


def spawn(
    arguments: Sequence[str], job: start.Job, give: Sequence[int], environment: Dict[str, str], **ends: int
) -> int:
    """Start this interpreter anew with `arguments`, the job on standard input and `give` as FIRST, FIRST+1, …

    ends: `out` and `err`, its standard streams. Returns the pid. Raises OSError.
    """
    with _aside([start.write_job(job)], close=True) as (job_fd,), _aside([ends["out"], ends["err"], *give]) as moved:
        actions: List[Any] = [(os.POSIX_SPAWN_DUP2, job_fd, 0)]
        targets = [1, 2, *range(FIRST, FIRST + len(give))]
        actions += [(os.POSIX_SPAWN_DUP2, source, target) for source, target in zip(moved, targets)]
        return os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-B", _guest(), *arguments],
            environment,
            file_actions=actions,
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGPIPE, signal.SIGCHLD, signal.SIGTERM, signal.SIGINT],
        )


def _guest() -> str:
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@contextlib.contextmanager
def _aside(fds: Sequence[int], close: bool = False) -> Iterator[List[int]]:
    """Copies above every target, so that no dup2 overwrites a source of the next."""
    copies = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY) for fd in fds]
    if close:
        for fd in fds:
            os.close(fd)
    try:
        yield copies
    finally:
        for fd in copies:
            os.close(fd)


def kill(pidfd: int, number: int = signal.SIGKILL) -> None:
    """Signal by pidfd: never a stranger who was given the same pid."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)


def kill_group(pid: int) -> None:
    """The process group of a session leader, if any of it is left."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def cause(status: int) -> str:
    """A wait status in the words of `exited`: "exit 3", "signal 9"."""
    code = os.waitstatus_to_exitcode(status)
    return f"exit {code}" if code >= 0 else f"signal {-code}"
