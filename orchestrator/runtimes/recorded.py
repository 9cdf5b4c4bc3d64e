"""A process replica as a file in its folder: `replica.json`, from which it is found again by any later control.

It knows the file's form; it starts and ends nothing. A recorded pid counts only with its boot id and start time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from orchestrator import folders
from orchestrator.ports import ReplicaRecord
from orchestrator.runtimes.census import Census
from orchestrator.runtimes.cgroups import Group, Hierarchy

NAME = "replica.json"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Recorded:
    """One replica's file. start_time: of the agent, in clock ticks since boot; None before it was started.

    watch: bytes of memory that nobody but our own watching enforces; None where a cgroup does, or nothing is asked.
    """

    record: ReplicaRecord
    boot_id: str
    start_time: int | None
    group: Group | None
    watch: int | None

    @property
    def census(self) -> Census:
        """Who belongs to it."""
        return Census(self.record.incarnation, self.group)

    @property
    def alive(self) -> bool:
        """Whether its agent runs now."""
        pid = self.record.pid
        known = pid is not None and self.start_time is not None and self.boot_id == folders.boot_id()
        return known and pid is not None and folders.start_time(pid) == self.start_time

    def seen(self) -> ReplicaRecord:
        """The record with what is true now."""
        return replace(self.record, alive=True) if self.alive else replace(self.record, alive=False, pid=None)

    def write(self) -> None:
        """Put it into the replica's folder, in one step."""
        group = None
        if self.group is not None:
            trees = [[each.version, each.base, sorted(each.controllers)] for each in self.group.hierarchies]
            group = {"name": self.group.name, "hierarchies": trees}
        value = {
            "version": _VERSION,
            "boot_id": self.boot_id,
            "start_time": self.start_time,
            "group": group,
            "watch": self.watch,
            **asdict(replace(self.record, paths=dict(self.record.paths))),
        }
        folders.write_json(os.path.join(self.record.folder, NAME), value)


def read(folder: str) -> Recorded | None:
    """What a replica's folder says; None where it says nothing that can be read."""
    value = folders.read_json(os.path.join(folder, NAME))
    if value is None or value.get("version") != _VERSION:
        return None
    try:
        return _parsed(value)
    except (KeyError, TypeError, ValueError):
        return None


def every(state: str) -> Iterator[Recorded]:
    """All replicas under a sandbox's state folder."""
    above = os.path.join(state, "r")
    try:
        names = sorted(os.listdir(above))
    except FileNotFoundError:
        return
    for name in names:
        found = read(os.path.join(above, name))
        if found is not None:
            yield found


def _parsed(value: dict[str, Any]) -> Recorded:
    record = ReplicaRecord(
        model=value["model"],
        index=int(value["index"]),
        incarnation=value["incarnation"],
        runtime="process",
        replica_hash=value["replica_hash"],
        lock_hash=value["lock_hash"],
        folder=value["folder"],
        sockets=value["sockets"],
        uid=int(value["uid"]),
        alive=bool(value["alive"]),
        python=value["python"],
        pid=value["pid"],
        not_enforced=tuple(value["not_enforced"]),
        paths=dict(value["paths"]),
    )
    group = value["group"]
    if group is not None:
        trees = (Hierarchy(version, base, frozenset(names)) for version, base, names in group["hierarchies"])
        group = Group(group["name"], tuple(trees))
    return Recorded(record, value["boot_id"], value["start_time"], group, value["watch"])
