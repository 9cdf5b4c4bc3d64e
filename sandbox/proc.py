"""What the kernel says of processes: children, memory, OOM kills. Readings only; it keeps nothing."""

from __future__ import annotations

import ctypes
import os
from typing import Dict, List, Optional

_PR_SET_CHILD_SUBREAPER = 36
_ROOT = "/sys/fs/cgroup"


def become_subreaper() -> None:
    """Have orphaned descendants become children of this process. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def children() -> List[int]:
    """Direct children of this process, zombies too."""
    own = os.getpid()
    try:
        with open(f"/proc/{own}/task/{own}/children", "rb") as file:
            return [int(pid) for pid in file.read().split()]
    except FileNotFoundError:
        # Kernels without CONFIG_PROC_CHILDREN.
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _parent(pid) == own]


def start_time(pid: int) -> Optional[int]:
    """Clock ticks since boot at which the process started; None when there is none. With the pid it is an identity."""
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def is_zombie(pid: int) -> bool:
    fields = _stat(pid)
    return bool(fields) and fields[0] == "Z"


def tasks() -> int:
    """Threads of this process."""
    return len(os.listdir("/proc/self/task"))


def set_oom_score(pid: int, score: int) -> None:
    """Best effort: raising is always allowed, lowering not everywhere, and the process may just have ended."""
    try:
        with open(f"/proc/{pid}/oom_score_adj", "w") as file:
            file.write(str(score))
    except OSError:
        return


def usage(pid: int) -> Optional[Dict[str, int]]:
    """{"rss", "private", "threads"}, memory in bytes; None when the process is gone. private: not shared by fork."""
    try:
        status = _table(f"/proc/{pid}/status")
    except OSError:
        return None
    try:
        rollup = _table(f"/proc/{pid}/smaps_rollup")
        private = _kilobytes(rollup, "Private_Clean") + _kilobytes(rollup, "Private_Dirty")
    except OSError:
        private = _kilobytes(status, "RssAnon")
    return {"rss": _kilobytes(status, "VmRSS"), "private": private, "threads": int(status.get("Threads", "0"))}


def anonymous(pid: int) -> Optional[int]:
    """Bytes of memory that no file stands behind, shared with a parent or not; None when the process is gone."""
    try:
        return _kilobytes(_table(f"/proc/{pid}/status"), "RssAnon")
    except OSError:
        return None


def memory(oom_file: Optional[str]) -> Optional[int]:
    """Bytes charged to a replica's cgroup, less file pages that can be dropped; None where it has none of its own.

    oom_file: a file of that cgroup (isolation.py). A container has one, and sees it as the root.
    """
    folders = [os.path.dirname(oom_file)] if oom_file else []
    if os.getpid() == 1:
        folders += [_ROOT, f"{_ROOT}/memory"]
    for folder in folders:
        for charged, droppable in (
            ("memory.current", "inactive_file"),
            ("memory.usage_in_bytes", "total_inactive_file"),
        ):
            try:
                with open(f"{folder}/{charged}") as file:
                    used = int(file.read())
                with open(f"{folder}/memory.stat") as file:
                    stat = dict(line.split(None, 1) for line in file if " " in line)
            except (OSError, ValueError):
                continue
            return max(0, used - int(stat.get(droppable, "0")))
    return None


def oom_kills() -> int:
    """Processes that the kernel killed for memory in this process's cgroup so far; 0 where it cannot be known."""
    for path in _oom_files():
        try:
            with open(path) as file:
                counts = dict(line.split(None, 1) for line in file if " " in line)
        except OSError:
            continue
        return int(counts.get("oom_kill", "0"))
    return 0


def _oom_files() -> List[str]:
    """Where cgroup v2 or v1 counts OOM kills, v2 first."""
    found: List[str] = []
    with open("/proc/self/cgroup") as lines:
        for line in lines:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            if not controllers:
                found.insert(0, f"/sys/fs/cgroup{path}/memory.events")
            elif "memory" in controllers.split(","):
                found.append(f"/sys/fs/cgroup/memory{path}/memory.oom_control")
    # A container may be told its path on the host, and see its own cgroup as the root all the same.
    found += [f"{_ROOT}/memory.events", f"{_ROOT}/memory/memory.oom_control"] if os.getpid() == 1 else []
    return found


def _stat(pid: int) -> List[str]:
    """Fields of /proc/PID/stat from the third on: the second may hold spaces and brackets."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


def _parent(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def _table(path: str) -> Dict[str, str]:
    with open(path, encoding="utf-8", errors="replace") as file:
        return {key: value.strip() for key, _, value in (line.partition(":") for line in file)}


def _kilobytes(table: Dict[str, str], key: str) -> int:
    return int(table.get(key, "0 kB").split()[0]) * 1024
