"""What must outlive an agent: its live workers and which is active, in active.json of the sockets folder."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, List, Optional, Tuple

from sandbox import proc

NAME = "active.json"
Key = Tuple[int, int]  # generation, attempt


class Roster:
    """The file in an open folder. Times in it are CLOCK_MONOTONIC, the same for every process of this boot."""

    def __init__(self, directory: int) -> None:
        self._directory = directory
        self._written: Optional[Tuple[Optional[Key], List[Dict[str, Any]]]] = None

    def read(self) -> Tuple[Optional[Key], List[Dict[str, Any]]]:
        """The active key and the recorded workers that still live; (None, []) where nothing can be read."""
        try:
            with open(os.open(NAME, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self._directory), "rb") as file:
                record = json.load(file)
            active = record["active"] and (record["active"]["generation"], record["active"]["attempt"])
            workers = [worker for worker in record["workers"] if proc.start_time(worker["pid"]) == worker["start"]]
        except (OSError, ValueError, KeyError, TypeError):
            return None, []
        return active, workers

    def write(self, active: Optional[Key], workers: List[Dict[str, Any]]) -> None:
        """Replace the file. workers: {"generation", "attempt", "pid", "deadline"}; their start time is added.

        A full disk leaves the old one: only a restart of the agent would miss something.
        """
        if self._written == (active, workers):
            return
        record = {
            "active": active and {"generation": active[0], "attempt": active[1]},
            "workers": [{**worker, "start": proc.start_time(worker["pid"])} for worker in workers],
        }
        aside = f".{NAME}"
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
            with open(os.open(aside, flags, 0o644, dir_fd=self._directory), "w") as file:
                json.dump(record, file)
            os.rename(aside, NAME, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        except OSError:
            return
        self._written = (active, workers)

    def remove(self) -> None:
        try:
            os.unlink(NAME, dir_fd=self._directory)
        except FileNotFoundError:
            return
