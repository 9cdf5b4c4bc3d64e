"""Control groups of replicas, version 1 and 2: where they can be made, limits, who is inside, what they use.

It knows the kernel's files; not what a replica is, nor which limit somebody wished for.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from orchestrator.plan.types import Limits
from orchestrator.ports import Usage

Controller = Literal["memory", "cpu", "pids", "cpuacct"]
LIMITING: tuple[Controller, ...] = ("memory", "cpu", "pids")
ROOT_NAME = "model-sandbox"
_PERIOD = 100_000  # microseconds; the kernel's default
_RACES = 100  # far more removals than can fall between two steps
_trials = itertools.count()


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted tree in which we may make groups. base: the folder under which ours are made."""

    version: Literal[1, 2]
    base: str
    controllers: frozenset[Controller]


@dataclass(frozen=True, slots=True)
class Group:
    """The cgroup of one replica: a folder of the same relative name in each hierarchy.

    Every read answers None or nothing where the group is gone; only `make` raises (OSError).
    """

    name: str
    hierarchies: tuple[Hierarchy, ...]

    def folder(self, controller: Controller) -> tuple[str, int] | None:
        """(folder, version) of the hierarchy with this controller."""
        for hierarchy in self.hierarchies:
            if controller in hierarchy.controllers:
                return os.path.join(hierarchy.base, self.name), hierarchy.version
        return None

    @property
    def folders(self) -> list[str]:
        """Every folder of the group, one in each hierarchy."""
        return [os.path.join(hierarchy.base, self.name) for hierarchy in self.hierarchies]

    @property
    def procs(self) -> list[str]:
        """The files into which a process writes its pid to join."""
        return [os.path.join(folder, "cgroup.procs") for folder in self.folders]

    @property
    def oom_file(self) -> str | None:
        """The file that counts kills for lack of memory: a line `oom_kill N` in both versions."""
        found = self.folder("memory")
        if found is None:
            return None
        return os.path.join(found[0], "memory.events" if found[1] == 2 else "memory.oom_control")

    def make(self, limits: Limits) -> None:
        """Make the folders and write the limits; again on an existing group is fine."""
        for hierarchy in self.hierarchies:
            self._make_folders(hierarchy)
        for controller, files in _limit_files(limits).items():
            found = self.folder(controller)
            if found is None:
                continue
            for file, value in files[found[1]]:
                _write(os.path.join(found[0], file), value)
        self._limit_swap(limits)

    def _make_folders(self, hierarchy: Hierarchy) -> None:
        # Whoever removes the last group below it removes a folder that we share, maybe between two of these steps.
        for attempt in range(_RACES):
            try:
                folder = hierarchy.base
                for part in self.name.split("/"):
                    if hierarchy.version == 2:
                        _delegate(folder, hierarchy.controllers)
                    folder = os.path.join(folder, part)
                    with suppress(FileExistsError):
                        os.mkdir(folder, 0o755)
            except FileNotFoundError:
                if attempt == _RACES - 1:
                    raise
            else:
                return

    def _limit_swap(self, limits: Limits) -> None:
        # Kernels without swap accounting have no such file, and then there is nothing to limit.
        found = self.folder("memory")
        if limits.memory is not None and found is not None:
            file, value = (
                ("memory.swap.max", "0") if found[1] == 2 else ("memory.memsw.limit_in_bytes", str(limits.memory))
            )
            with suppress(OSError):
                _write(os.path.join(found[0], file), value)

    def pids(self) -> set[int]:
        """Everything inside, groups below included."""
        found: set[int] = set()
        for folder in self.folders:
            for directory, _, _ in os.walk(folder):
                found.update(int(word) for word in _read(os.path.join(directory, "cgroup.procs")).split())
        return found

    def freeze_forks(self) -> None:
        """Let nothing inside make another process: so that killing all of them comes to an end."""
        found = self.folder("pids")
        if found is not None:
            with suppress(OSError):
                _write(os.path.join(found[0], "pids.max"), "0")

    def oom_kills(self) -> int:
        """How many processes inside the kernel killed for lack of memory."""
        found = re.search(r"^oom_kill (\d+)$", _read(self.oom_file or ""), re.MULTILINE)
        return int(found.group(1)) if found else 0

    def memory(self) -> int | None:
        """Bytes charged to the group without page cache (shared memory, which is counted as such, is not cache).

        Charges are exact; statistics may be some seconds old, so that young cache counts as memory for that long.
        """
        found = self.folder("memory")
        if found is None:
            return None
        folder, version = found
        charged = _read(os.path.join(folder, "memory.current" if version == 2 else "memory.usage_in_bytes")).strip()
        if not charged:
            return None
        stat = dict(re.findall(r"^(\w+) (\d+)$", _read(os.path.join(folder, "memory.stat")), re.MULTILINE))
        cache, shared = ("file", "shmem") if version == 2 else ("total_cache", "total_shmem")
        return max(0, int(charged) - max(0, int(stat.get(cache, 0)) - int(stat.get(shared, 0))))

    def cpu_seconds(self) -> float | None:
        """Processor time of all that ever ran inside."""
        accounting = self.folder("cpuacct")
        if accounting is not None:
            nanoseconds = _read(os.path.join(accounting[0], "cpuacct.usage")).strip()
            return int(nanoseconds) / 1e9 if nanoseconds else None
        found = self.folder("cpu")
        if found is None or found[1] == 1:
            return None
        microseconds = re.search(r"^usage_usec (\d+)$", _read(os.path.join(found[0], "cpu.stat")), re.MULTILINE)
        return int(microseconds.group(1)) / 1e6 if microseconds else None

    def usage(self) -> Usage | None:
        """None where the group does not account for all of it."""
        memory, cpu = self.memory(), self.cpu_seconds()
        return None if memory is None or cpu is None else Usage(cpu, memory, len(self.pids()))

    def remove(self) -> bool:
        """Remove the folders, and those above that are ours and empty; False while something is inside."""
        gone = True
        for hierarchy in self.hierarchies:
            folder = os.path.join(hierarchy.base, self.name)
            for directory, _, _ in os.walk(folder, topdown=False):
                with suppress(OSError):
                    os.rmdir(directory)
            gone = gone and not os.path.exists(folder)
            above = os.path.dirname(self.name)
            while above:
                with suppress(OSError):  # not empty: another replica's
                    os.rmdir(os.path.join(hierarchy.base, above))
                above = os.path.dirname(above)
        return gone


def find() -> tuple[Hierarchy, ...]:
    """The hierarchies in which this process may make groups and move its children into them (tried, not guessed)."""
    usable: list[Hierarchy] = []
    taken: set[Controller] = set()
    for version, mount, controllers in _mounted():
        wanted = frozenset(controllers - taken)
        for base in _bases(version, mount) if wanted else ():
            hierarchy = Hierarchy(version, base, wanted)
            if _works(hierarchy):
                usable.append(hierarchy)
                taken |= wanted
                break
    return tuple(usable)


def group(hierarchies: Sequence[Hierarchy], sandbox_id: str, incarnation: str) -> Group:
    """The group of one incarnation; nothing is made yet."""
    return Group(f"{ROOT_NAME}/{sandbox_id}/{incarnation}", tuple(hierarchies))


def _mounted() -> Iterator[tuple[Literal[1, 2], str, frozenset[Controller]]]:
    """Version 1 first: what is bound to it is not in version 2."""
    second: list[str] = []
    for line in _read("/proc/self/mountinfo").splitlines():
        fields = line.split()
        kind, options = fields[fields.index("-") + 1], fields[-1].split(",")
        if kind == "cgroup":
            known = frozenset(name for name in (*LIMITING, "cpuacct") if name in options)
            if known:
                yield 1, fields[4], frozenset[Controller](known)
        elif kind == "cgroup2":
            second.append(fields[4])
    for mount in second:
        present = _read(os.path.join(mount, "cgroup.controllers")).split()
        known = frozenset(name for name in LIMITING if name in present)
        if known:
            yield 2, mount, frozenset[Controller](known)


def _bases(version: int, mount: str) -> Iterator[str]:
    """Where to try: the top, then from our own group upwards to what was delegated to this user."""
    yield mount
    for line in _read("/proc/self/cgroup").splitlines():
        number, names, path = line.split(":", 2)
        ours = number == "0" if version == 2 else os.path.basename(mount) in names.split(",")
        while ours and path != "/":
            yield mount + path
            path = os.path.dirname(path)


def _works(hierarchy: Hierarchy) -> bool:
    trial = Group(f"{ROOT_NAME}/trial-{os.getpid()}-{next(_trials)}", (hierarchy,))
    try:
        trial.make(Limits())
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as child:
            for file in trial.procs:
                _write(file, str(child.pid))
        return all(os.path.exists(os.path.join(trial.folders[0], _SIGN[name])) for name in hierarchy.controllers)
    except OSError:
        return False
    finally:
        trial.remove()


# A file that each controller puts into a group, in either version.
_SIGN: Mapping[Controller, str] = {
    "memory": "memory.stat",
    "cpu": "cpu.stat",
    "pids": "pids.max",
    "cpuacct": "cpuacct.usage",
}


def _limit_files(limits: Limits) -> dict[Controller, dict[int, list[tuple[str, str]]]]:
    """Per controller and version: the files and their text."""
    files: dict[Controller, dict[int, list[tuple[str, str]]]] = {
        "pids": {1: [("pids.max", str(limits.pids))], 2: [("pids.max", str(limits.pids))]}
    }
    if limits.memory is not None:
        text = str(limits.memory)
        files["memory"] = {1: [("memory.limit_in_bytes", text)], 2: [("memory.max", text)]}
    if limits.cpus is not None:
        quota = max(1000, int(limits.cpus * _PERIOD))
        files["cpu"] = {
            1: [("cpu.cfs_period_us", str(_PERIOD)), ("cpu.cfs_quota_us", str(quota))],
            2: [("cpu.max", f"{quota} {_PERIOD}")],
        }
    return files


def _delegate(folder: str, controllers: frozenset[Controller]) -> None:
    """Version 2: children have a controller only if their parent hands it down."""
    control = os.path.join(folder, "cgroup.subtree_control")
    missing = controllers - set(_read(control).split())
    if missing:
        _write(control, " ".join(f"+{name}" for name in sorted(missing)))


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
