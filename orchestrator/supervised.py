"""One process that the keeper keeps alive, whoever started it. It knows pids, back-off and a log file, no purpose."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from orchestrator import folders

if TYPE_CHECKING:
    from typing import Any

# Where a child finds the listener.
LISTENER_DESCRIPTOR = 3
FIRST_BACKOFF = 0.1
LONGEST_BACKOFF = 5.0
# Alive this long, a process has earned an immediate restart again.
STEADY = 10.0
LOG_LIMIT = 4 * 1024 * 1024


class Supervised:
    """descriptor: the pidfd while it runs. due_at: the monotonic time at which to start it (again)."""

    def __init__(self, name: str, argv: Sequence[str], environment: Mapping[str, str], log: str) -> None:
        self.name = name
        self.descriptor: int | None = None
        self.due_at = 0.0
        self._argv = argv
        self.order(environment)
        self._log = log
        self._pid = 0
        self._start_time: int | None = None
        self._ours = False
        self._since = 0.0
        self._backoff = 0.0

    def order(self, environment: Mapping[str, str]) -> None:
        """Give it another environment from its next start on."""
        self._environment = {**environment, "SANDBOX_LISTENER_FD": str(LISTENER_DESCRIPTOR)}

    def record(self) -> dict[str, Any] | None:
        """`{"pid", "start_time"}`, or None while it does not run."""
        return None if self.descriptor is None else {"pid": self._pid, "start_time": self._start_time}

    def due(self, now: float) -> bool:
        return self.descriptor is None and now >= self.due_at

    def adopt(self, record: Any) -> None:
        """Watch a process that somebody else started, unless it is gone."""
        if not isinstance(record, dict) or not isinstance(record.get("pid"), int):
            return
        try:
            descriptor = os.pidfd_open(record["pid"])
        except OSError:
            return
        # In this order: once the pidfd is open, the number cannot be given to another process unnoticed.
        if not folders.living(record):
            os.close(descriptor)
            return
        self._pid, self._start_time, self.descriptor, self._ours = (
            record["pid"],
            record["start_time"],
            descriptor,
            False,
        )
        self._since = time.monotonic()

    def start(self, listener: int) -> None:
        """Start it in a session of its own, so that no key press and no death of ours reaches it."""
        self.trim_log()
        actions: list[tuple[Any, ...]] = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
            (os.POSIX_SPAWN_DUP2, listener, LISTENER_DESCRIPTOR),
        ]
        self._pid = os.posix_spawn(
            self._argv[0],
            list(self._argv),
            self._environment,
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGHUP,),
        )
        self.descriptor = os.pidfd_open(self._pid)
        self._start_time = folders.start_time(self._pid)
        self._ours = True
        self._since = time.monotonic()

    def reap(self, now: float) -> int | None:
        """Note its death and when to start it again. Its exit code (-N: signal N), None where it is no child."""
        code = None
        if self._ours:
            _, status = os.waitpid(self._pid, 0)
            code = os.waitstatus_to_exitcode(status)
        if self.descriptor is not None:
            os.close(self.descriptor)
        self.descriptor = None
        if now - self._since >= STEADY:
            self._backoff = 0.0
        self.due_at = now + self._backoff
        self._backoff = min(LONGEST_BACKOFF, max(FIRST_BACKOFF, self._backoff * 2))
        return code

    def signal(self, number: int) -> None:
        if self.descriptor is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.descriptor, number)

    def end(self, deadline: float) -> None:
        """Wait up to `deadline` seconds for its end, then kill it."""
        if self.descriptor is None:
            return
        if not _readable(self.descriptor, deadline):
            self.signal(signal.SIGKILL)
            _readable(self.descriptor, LONGEST_BACKOFF)
        self.reap(time.monotonic())

    def trim_log(self) -> None:
        """Keep the end of a log that grew too long as `.1`. It is open for appending, so it is emptied in place."""
        with suppress(OSError):
            size = os.path.getsize(self._log)
            if size <= LOG_LIMIT:
                return
            with open(self._log, "rb") as source, open(f"{self._log}.1", "wb") as kept:
                os.sendfile(kept.fileno(), source.fileno(), size - LOG_LIMIT // 4, LOG_LIMIT // 4)
            os.truncate(self._log, 0)


def _readable(descriptor: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
