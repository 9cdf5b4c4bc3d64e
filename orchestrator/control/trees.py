"""A model's pool of trees: the folders that workers run from, brought to a manifest by their differences.

It knows no generation number: whoever asks says which trees are in use, and those never change.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import shutil
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Self

from orchestrator.control.manifest import Entry, Manifest, unlike
from orchestrator.control.objects import CHUNK, Objects, disk_full
from orchestrator.errors import SandboxError

FILE_MODE = 0o444
FOLDER_MODE = 0o555
OPEN_MODE = 0o755


class TreesInUse(Exception):  # noqa: N818 - no failure: a state that passes
    """Every tree of the pool has a worker: a new generation must wait until one ended."""


@dataclass(frozen=True, slots=True)
class Link:
    """The symbolic link to the live data folder: its name in the tree and where it leads."""

    name: str
    target: str


@dataclass(slots=True)
class _Content:
    """What a tree holds. entries: None where only a look at the disk can tell."""

    entries: Manifest | None = None
    used: int = 0


class Trees:
    """The pool `generations/<model>/tree-N`."""

    def __init__(self, folder: str, objects: Objects) -> None:
        self.folder = folder
        self._objects = objects
        self._clock = itertools.count(1)
        with disk_full(folder):
            os.makedirs(folder, exist_ok=True)
        os.chmod(folder, OPEN_MODE)  # another user's workers go through it, whatever our umask says
        self._trees = {name: _Content() for name in os.listdir(folder) if name.startswith("tree-")}

    def path(self, tree: str) -> str:
        """A tree's folder."""
        return os.path.join(self.folder, tree)

    def known(self) -> Collection[str]:
        """The trees whose content needs no look at the disk."""
        return [name for name, content in self._trees.items() if content.entries is not None]

    def bring(self, entries: Manifest, link: Link | None, in_use: Collection[str], size: int) -> str:
        """Make a tree that is not in use hold exactly `entries` and the link; return its name.

        size: how many trees there may be.

        Raises TreesInUse, and SandboxError("disk-full" | "store"); a tree that failed half-way is not handed out.
        """
        tree = self._free(entries, in_use, size)
        content = self._trees[tree]
        root = self.path(tree)
        old = content.entries if content.entries is not None else self._look(root)
        content.entries = None
        with disk_full(self.folder), _Writable(root) as folders:
            paths = unlike(old, entries)
            for path in paths:
                if path in old:
                    folders.open(os.path.dirname(path))
                    os.unlink(os.path.join(root, path)) if path not in entries else None
            folders.prune(path for path in paths if path not in entries)
            for path in paths:
                if path in entries:
                    self._write(root, path, entries[path], folders)
            _relink(root, link, folders)
        content.entries = dict(entries)
        content.used = next(self._clock)
        return tree

    def verify(self, tree: str, entries: Manifest, link: Link | None) -> bool:
        """Whether a tree holds exactly these bytes, by reading all of them."""
        root = self.path(tree)
        if not os.path.isdir(root):
            return False
        found = _found(root)
        self._trees.setdefault(tree, _Content()).entries = found
        return found == entries and _links(root) == ({} if link is None else {link.name: link.target})

    def remove(self) -> None:
        """Take the whole pool away."""
        _remove(self.folder)
        self._trees.clear()

    def _free(self, entries: Manifest, in_use: Collection[str], size: int) -> str:
        """The free tree with the least to do: one of known content, then a new one, then one of unknown content."""
        free = [name for name in self._trees if name not in in_use]
        known = [name for name in free if self._trees[name].entries is not None]
        if known:
            return max(known, key=lambda name: (self._trees[name].entries == entries, self._trees[name].used))
        if len(self._trees) < size:
            number = next(n for n in itertools.count(1) if f"tree-{n}" not in self._trees)
            self._trees[f"tree-{number}"] = _Content()
            return f"tree-{number}"
        if not free:
            raise TreesInUse(self.folder)
        return free[0]

    def _look(self, root: str) -> Manifest:
        """What a tree of an earlier run, or one that failed half-way, really holds."""
        if os.path.isdir(root):
            with contextlib.suppress(OSError):
                return _found(root)
            _remove(root)
        with disk_full(self.folder):
            os.makedirs(root, exist_ok=True)
        return {}

    def _write(self, root: str, path: str, entry: Entry, folders: _Writable) -> None:
        folders.open(os.path.dirname(path))
        target = os.path.join(root, path)
        aside = os.path.join(os.path.dirname(target), ".sandbox-new-file")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)
        self._objects.copy(entry.sha, aside, FILE_MODE | (0o111 if entry.executable else 0))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(
                target
            )  # ext4 writes a file to the disk at once, for milliseconds, when it is renamed over another
        os.rename(aside, target)


class _Writable:
    """The folders of a tree that are open for writing now; read-only again at the end, whatever happened."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._opened: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for path in self._opened:
            with contextlib.suppress(FileNotFoundError):
                os.chmod(path, FOLDER_MODE)

    def open(self, folder: str) -> None:
        """Make a folder of the tree, and those above it that are missing, and let files be written in it."""
        path = os.path.join(self._root, folder) if folder else self._root
        if path in self._opened:
            return
        if not os.path.isdir(path):
            if folder:
                self.open(os.path.dirname(folder))
            os.mkdir(path)
        os.chmod(path, OPEN_MODE)
        self._opened.add(path)

    def prune(self, removed: Iterator[str]) -> None:
        """Remove the folders that lost their last file."""
        folders = {os.path.dirname(path) for path in removed} - {""}
        while folders:
            folder = max(folders, key=len)
            folders.discard(folder)
            with contextlib.suppress(OSError):  # not empty: it stays
                self.open(os.path.dirname(folder))
                os.rmdir(os.path.join(self._root, folder))
                self._opened.discard(os.path.join(self._root, folder))
                folders |= {os.path.dirname(folder)} - {""}


def _relink(root: str, link: Link | None, folders: _Writable) -> None:
    wanted = {} if link is None else {link.name: link.target}
    present = _links(root)
    if present == wanted:
        return
    folders.open("")
    for name in present:
        os.unlink(os.path.join(root, name))
    for name, target in wanted.items():
        os.symlink(target, os.path.join(root, name))


def _links(root: str) -> dict[str, str]:
    """Links stand in the root only: user files are copied through theirs."""
    return {entry.name: os.readlink(entry.path) for entry in os.scandir(root) if entry.is_symlink()}


def _found(root: str) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.islink(path) and folder == root:
                continue
            status = os.stat(path, follow_symlinks=False)
            sha = _hash(path) if stat.S_ISREG(status.st_mode) else ""
            entries[os.path.relpath(path, root)] = Entry(sha, status.st_size, bool(status.st_mode & 0o100))
    return entries


def _hash(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _remove(folder: str) -> None:
    """As rmtree, for folders that are read-only."""
    for path, _, _ in os.walk(folder):
        os.chmod(path, OPEN_MODE)
    shutil.rmtree(folder, ignore_errors=True)
    if os.path.lexists(folder):
        raise SandboxError("store", f"{folder} cannot be removed")
