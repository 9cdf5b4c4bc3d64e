"""Tells when processes end, children or not, by pidfd. It knows numbers and descriptors; not what the processes are."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress

UNKNOWN = "unknown (control was replaced)"
Ended = Callable[[str], None]


class Exits:
    """Watches processes from one event loop, and reaps those that are children."""

    def __init__(self) -> None:
        self._watched: dict[int, int] = {}

    def watch(self, pid: int, ended: Ended) -> bool:
        """Call `ended` with the cause ("exit 0", "signal 9") when `pid` ends. False where it is gone already."""
        if pid in self._watched:
            return True
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        self._watched[pid] = descriptor
        asyncio.get_running_loop().add_reader(descriptor, self._over, pid, descriptor, ended)
        return True

    def close(self) -> None:
        """Stop watching; the processes run on."""
        for descriptor in self._watched.values():
            with suppress(RuntimeError):  # the loop is closed
                asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)
        self._watched.clear()

    def _over(self, pid: int, descriptor: int, ended: Ended) -> None:
        asyncio.get_running_loop().remove_reader(descriptor)
        del self._watched[pid]
        cause = _reap(descriptor)
        os.close(descriptor)
        ended(cause)


def _reap(descriptor: int) -> str:
    try:
        found = os.waitid(os.P_PIDFD, descriptor, os.WEXITED)
    except ChildProcessError:
        return UNKNOWN
    if found is None or found.si_code == os.CLD_EXITED:
        return f"exit {found.si_status if found else 0}"
    return f"signal {found.si_status}"


def killed(cause: str) -> bool:
    """Whether this may have been the kernel's out-of-memory killer."""
    return cause == f"signal {int(signal.SIGKILL)}"
