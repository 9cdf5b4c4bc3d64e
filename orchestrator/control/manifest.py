"""What a model directory contains, as a value: path → hash, size, executable. It reads no file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from orchestrator.errors import SandboxError


class Entry(NamedTuple):
    """One file: the SHA-256 of its bytes (64 hex), its size in bytes, and whether it may be executed."""

    sha: str
    size: int
    executable: bool


Manifest = Mapping[str, Entry]


def line(path: str, entry: Entry) -> bytes:
    """A file's line in a written manifest. Lines end in NUL: a file name may hold anything else."""
    return f"{entry.sha} {entry.size} {'x' if entry.executable else '-'} ".encode() + os.fsencode(path) + b"\0"


def written(lines: Mapping[str, bytes]) -> bytes:
    """A whole manifest from its lines by path. The SHA-256 of this text is the content hash of a generation."""
    return b"".join([lines[path] for path in sorted(lines)])


def content_hash(text: bytes) -> str:
    """The identity of a content: 64 hex."""
    return hashlib.sha256(text).hexdigest()


def parse(text: bytes) -> dict[str, Entry]:
    """The manifest that was written as `text`. Raises SandboxError("store") where it is none."""
    entries: dict[str, Entry] = {}
    for record in text.split(b"\0")[:-1]:
        fields = record.split(b" ", 3)
        if len(fields) != 4 or not fields[1].isdigit():
            raise SandboxError("store", f"not a manifest: {record[:80]!r}")
        sha, size, mode, path = fields
        entries[os.fsdecode(path)] = Entry(sha.decode("ascii", "replace"), int(size), mode == b"x")
    return entries


def unlike(old: Manifest, new: Manifest) -> tuple[str, ...]:
    """The paths that differ between two manifests, sorted."""
    # Entries that a scan did not touch are the same objects: identity settles thousands of them quickly.
    changed = [path for path, entry in new.items() if (known := old.get(path)) is not entry and known != entry]
    return tuple(sorted([*changed, *(old.keys() - new.keys())]))


def beneath(paths: Iterable[str], folders: frozenset[str]) -> list[str]:
    """Those of `paths` that are one of `folders` or lie in one."""
    if not folders:
        return []
    return [path for path in paths if path in folders or any(parent in folders for parent in _parents(path))]


def _parents(path: str) -> Iterable[str]:
    end = path.rfind("/")
    while end > 0:
        yield path[:end]
        end = path.rfind("/", 0, end)
