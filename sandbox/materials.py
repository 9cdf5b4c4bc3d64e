"""What a preloaded object was made from, and whether a later generation still has the same.

Python files count where they were read; every other file of the model directory counts, since a native reader is not
seen reading. `data/` and volumes are told apart by path, size, time and inode, never read.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Tuple

Listing = Dict[str, Tuple[int, ...]]


class Materials(NamedTuple):
    """config.yaml as text; path → SHA-256; every .py path; what `data/` and the volumes have, by file."""

    config: str
    files: Mapping[str, str]
    python: List[str]
    folders: Mapping[str, Listing]


def listings(assignment: Mapping[str, Any]) -> Mapping[str, Listing]:
    """What the data folder and the volumes hold now. Taken before preload.py runs: a change meanwhile must show."""
    roots = {"data": assignment.get("data"), **{path: path for path in assignment.get("volumes") or ()}}
    return {name: _listing(root) for name, root in roots.items() if root}


def gather(assignment: Mapping[str, Any], read: Iterable[str], folders: Mapping[str, Listing]) -> Materials:
    """read: the .py files that were imported or opened, relative."""
    tree, read = assignment["tree"], set(read)
    paths = list(_files(tree))
    files = {path: _digest(tree, path) for path in paths if path in read or not path.endswith(".py")}
    return Materials(_config(assignment), files, _python(paths), folders)


def changed(made: Materials, assignment: Mapping[str, Any]) -> str:
    """What is no longer as it was, in words, or ""."""
    if made.config != _config(assignment):
        return "config.yaml changed"
    tree = assignment["tree"]
    paths = list(_files(tree))
    others = {path for path in paths if path in made.files or not path.endswith(".py")}
    for path in sorted(others | made.files.keys()):
        if path not in others or made.files.get(path) != _digest(tree, path):
            return f"{path} changed"
    if made.python != _python(paths):
        return "a Python file came or went"
    now = listings(assignment)
    for name in sorted(now.keys() | made.folders.keys()):
        before, after = made.folders.get(name, {}), now.get(name, {})
        different = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
        if different:
            return f"{name}/{different[0]} changed"
    return ""


def _config(assignment: Mapping[str, Any]) -> str:
    return json.dumps(assignment.get("config") or {}, sort_keys=True, default=str)


def _files(tree: str) -> Iterator[str]:
    """Every file of the snapshot, relative. `data` in it is a link, and is not followed."""
    for folder, folders, names in os.walk(tree):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            if not os.path.islink(path):
                yield os.path.relpath(path, tree)


def _python(paths: Iterable[str]) -> List[str]:
    return sorted(path for path in paths if path.endswith(".py"))


def _digest(tree: str, path: str) -> str:
    digest = hashlib.sha256()
    try:
        with open(os.path.join(tree, path), "rb") as file:
            for chunk in iter(lambda: file.read(1 << 20), b""):
                digest.update(chunk)
    except OSError as error:
        return f"unreadable: {error.strerror}"
    return digest.hexdigest()


def _listing(root: str) -> Listing:
    found: Listing = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            try:
                seen = os.stat(path)
            except OSError:
                seen = os.lstat(path)
            found[os.path.relpath(path, root)] = (seen.st_size, seen.st_mtime_ns, seen.st_ino)
    if os.path.isfile(root):
        seen = os.stat(root)
        found["."] = (seen.st_size, seen.st_mtime_ns, seen.st_ino)
    return found
