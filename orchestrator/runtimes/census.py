"""Which processes belong to a process replica, what they use, and how they are ended: by reading /proc.

It knows the marks that a replica's processes bear; not why a replica lives or must end. With a cgroup the kernel keeps
the list; without one a process is known by (1) its mount namespace, in which the replica's socket folder is mounted,
(2) the replica's folder in its environment or arguments, (3) descent from such a process.
"""

from __future__ import annotations

import os
import re
import signal
from contextlib import suppress
from dataclasses import dataclass

from orchestrator import folders
from orchestrator.ports import Process, Usage
from orchestrator.runtimes.cgroups import Group

SOCKETS = "/run/sandbox/sockets"
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Census:
    """Finds the processes of one incarnation. group: None where no cgroup could be made."""

    incarnation: str
    group: Group | None

    def living(self) -> set[int]:
        """Every process of the replica that runs; the dead that nobody reaped are not counted."""
        found = self.group.pids() if self.group is not None else self._marked()
        return {pid for pid in found if folders.start_time(pid) is not None}

    def _marked(self) -> set[int]:
        mark = self.incarnation.encode("ascii")
        parents: dict[int, int] = {}
        found: set[int] = set()
        for pid in _all():
            parent = _parent(pid)
            if parent is None:
                continue
            parents[pid] = parent
            if pid != os.getpid() and _bears(pid, mark):
                found.add(pid)
        grown = True
        while grown:
            more = {pid for pid, parent in parents.items() if parent in found} - found
            found |= more
            grown = bool(more)
        return found

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to all of them, by descriptor: a number that was given to another process is left alone."""
        for pid in self.living():
            send(pid, number)

    def usage(self) -> Usage | None:
        """What all of them use together; None where none lives."""
        measured = self.group.usage() if self.group is not None else None
        if measured is not None:
            return measured
        pids = self.living()
        if not pids:
            return None
        return Usage(sum(map(_cpu_seconds, pids)), sum(map(private_share, pids)), len(pids))

    def processes(self) -> list[Process]:
        """Each of them, oldest number first."""
        found = [_process(pid) for pid in sorted(self.living())]
        return [each for each in found if each is not None]


def _process(pid: int) -> Process | None:
    """What /proc says of it; None where it is gone."""
    status = dict(line.split(b":\t", 1) for line in _read(f"/proc/{pid}/status").splitlines() if b":\t" in line)
    parent = _parent(pid)
    if parent is None or b"Uid" not in status:
        return None
    words = _read(f"/proc/{pid}/cmdline").split(b"\0")
    command = b" ".join(words).strip() or b"[%s]" % status.get(b"Name", b"?")
    memory = int(status.get(b"VmRSS", b"0 kB").split()[0]) * 1024
    user = status[b"Uid"].split()[0].decode()
    return Process(pid, parent, user, _cpu_seconds(pid), memory, command.decode(errors="replace"))


def send(pid: int, number: int, start_time: int | None = None) -> bool:
    """Signal a process, and only that one; False where it is gone."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        # Whatever the number stood for when it was read: the descriptor holds the process that is checked now.
        if start_time is not None and folders.start_time(pid) != start_time:
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def private_share(pid: int) -> int:
    """PSS in bytes: pages that several processes share count in parts. 0 where it is gone or not ours to see."""
    found = re.search(rb"^Pss:\s*(\d+) kB", _read(f"/proc/{pid}/smaps_rollup"), re.MULTILINE)
    return int(found.group(1)) * 1024 if found else 0


def _bears(pid: int, mark: bytes) -> bool:
    for line in _read(f"/proc/{pid}/mountinfo").splitlines():
        fields = line.split()
        if len(fields) > 4 and fields[4] == SOCKETS.encode() and mark in line:
            return True
    folder = b"/r/" + mark
    return folder in _read(f"/proc/{pid}/environ") or b'"incarnation": "' + mark in _read(f"/proc/{pid}/cmdline")


def _all() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _parent(pid: int) -> int | None:
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return int(fields[1]) if fields else None


def _cpu_seconds(pid: int) -> float:
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS if fields else 0.0


def _read(path: str) -> bytes:
    with suppress(OSError), open(path, "rb") as file:
        return file.read()
    return b""
