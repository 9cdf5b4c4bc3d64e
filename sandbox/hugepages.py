"""Moves large memory that is in use to huge pages, before it is shared by forks. It knows not what lies in it.

A fork copies an entry of the page table for every 4 KiB: some 30 ms for a gigabyte, twice per child, and as much again
when the child ends. In pages of 2 MiB there are 512 times fewer.
"""

from __future__ import annotations

import ctypes
import re
import time
from typing import Iterator, Tuple

_MADV_COLLAPSE = 25  # Linux 6.1; older kernels refuse it
_HUGE = 2 * 1024 * 1024
_LEAST = 16 * 1024 * 1024
_CHUNK = 64 * 1024 * 1024
# Of a mapping that is used in part, the rest would come to be used.
_FULL = 0.9
# A gigabyte takes about a second; nobody waits longer for forks that are quicker.
_SECONDS = 5.0

_HEAD = re.compile(r"([0-9a-f]+)-([0-9a-f]+) rw-p [0-9a-f]+ \S+ 0 *(?:$|\[heap\]|\[anon)")


def gather() -> int:
    """Move what is worth it; returns how many bytes. What the kernel refuses stays as it is."""
    libc = ctypes.CDLL(None)
    deadline = time.monotonic() + _SECONDS
    moved = 0
    for start, end in list(_worthwhile()):
        for begin in range(start, end, _CHUNK):
            size = min(_CHUNK, end - begin)
            if time.monotonic() > deadline or libc.madvise(
                ctypes.c_void_p(begin), ctypes.c_size_t(size), _MADV_COLLAPSE
            ):
                return moved
            moved += size
    return moved


def _worthwhile() -> Iterator[Tuple[int, int]]:
    """Private anonymous mappings, (nearly) all in memory and not in huge pages yet, as (start, end) of whole ones."""
    start = end = resident = 0
    with open("/proc/self/smaps", encoding="utf-8", errors="replace") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key == "Rss":
                resident = int(value.split()[0]) * 1024
            elif key == "AnonHugePages" and end - start >= _LEAST:
                huge = int(value.split()[0]) * 1024
                if resident >= _FULL * (end - start) and huge < _FULL * (end - start):
                    yield (start + _HUGE - 1) // _HUGE * _HUGE, end // _HUGE * _HUGE
            elif "-" in key and " " in key:
                found = _HEAD.match(line)
                start, end = (int(found.group(1), 16), int(found.group(2), 16)) if found else (0, 0)
