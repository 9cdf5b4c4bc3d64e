"""Where a worker was when it hung, crashed or left by os._exit: what it writes for that, and how the agent reads it.

A memfd carries it: nothing to clean up, nothing to block on, and it outlives the worker in the agent's hands.
"""

from __future__ import annotations

import faulthandler
import fcntl
import os
import re
import signal
from typing import NamedTuple, NoReturn, Optional, Sequence

# A real-time signal: models use SIGUSR1 and SIGUSR2 themselves.
ASK = signal.SIGRTMAX - 2
_LIMIT = 256 * 1024
_FRAME = re.compile(r'^  File "(?P<file>.*)", line (?P<line>\d+) in (?P<name>.*)$')


class Place(NamedTuple):
    """file: relative to the model directory. stack: from there to the outermost frame of the user."""

    file: str
    line: int
    stack: str


def create() -> int:
    """A descriptor shared by the agent and one worker."""
    fd = os.memfd_create("trace")
    # Appending, so that `clear` leaves no hole before what is written after it.
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
    return fd


def arm(fd: int) -> None:
    """In the worker: crashes, ASK and os._exit leave the stacks in `fd`."""
    faulthandler.enable(file=fd, all_threads=True)
    faulthandler.register(ASK, file=fd, all_threads=True, chain=False)
    leave, owner = os._exit, os.getpid()

    def _exit(status: int) -> NoReturn:
        # Children that a model forks end by os._exit as a rule; only this process's own end is news.
        if os.getpid() == owner:
            faulthandler.dump_traceback(file=fd, all_threads=False)
        leave(status)

    os._exit = _exit


def read(fd: int) -> str:
    """In the agent: what was written, or ""."""
    return os.pread(fd, _LIMIT, 0).decode("ascii", "replace")


def clear(fd: int) -> None:
    """Forget what came before: it belonged to an earlier phase."""
    os.ftruncate(fd, 0)


def find(text: str, *roots: str) -> Optional[Place]:
    """The innermost frame in a file under one of `roots` (the model directory by each of its names).

    The thread that was interrupted or left comes first: others that the model started are rarely the reason.
    """
    stacks = sorted(text.split("\n\n"), key=lambda stack: not stack.lstrip().startswith("Current thread"))
    for stack in stacks:
        frames = [match for match in map(_FRAME.match, stack.splitlines()) if match is not None]
        inside = [(index, _relative(frame["file"], roots)) for index, frame in enumerate(frames)]
        users = [(index, file) for index, file in inside if file is not None]
        if users:
            (first, file), (last, _) = users[0], users[-1]
            shown = "\n".join(frame[0] for frame in frames[first : last + 1])
            return Place(file, int(frames[first]["line"]), f"Stack (most recent call first):\n{shown}\n")
    return None


def _relative(file: str, roots: Sequence[str]) -> Optional[str]:
    path = _unescape(file)
    return next((os.path.relpath(path, root) for root in roots if path.startswith(root + "/")), None)


def _unescape(text: str) -> str:
    r"""Undo the ASCII of faulthandler, which writes other characters as \xe9, \u20ac or \U0001f600."""
    pattern = r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))"
    return re.sub(pattern, lambda match: chr(int(match[1] or match[2] or match[3], 16)), text)
