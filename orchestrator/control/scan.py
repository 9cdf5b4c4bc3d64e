"""Reads a model directory as it is now: user files into the object store, the data folder as path, size and mtime.

It remembers what it read, so that after a save it touches the saved paths only. It knows no generation.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from orchestrator.control.filters import ignored, ignored_name
from orchestrator.control.manifest import Entry, beneath, line
from orchestrator.control.objects import Objects
from orchestrator.errors import SandboxError

# The folders that are reached by path and never copied; the first that exists is the model's.
DATA_FOLDERS = ("vocab_data", "data")
# Larger files are streamed, not held.
LARGE = 4 << 20
# A file that keeps moving is read this often, then taken as it is: its next event brings the rest.
ATTEMPTS = 5
# A file changed this shortly before it was read may change again without its time changing (FAT counts in 2 s).
RACY_NS = 2_000_000_000


class _Seen(NamedTuple):
    """What a file's status was when it was read. read_ns: Unix nanoseconds of the read."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    mode: int
    read_ns: int

    def still(self, status: os.stat_result) -> bool:
        same = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_mode) == self[:5]
        return same and self.read_ns - max(self.mtime_ns, self.ctime_ns) > RACY_NS


def data_folder(source: str) -> str | None:
    """The model's live data folder (absolute), or None where it has none."""
    for name in DATA_FOLDERS:
        path = os.path.join(source, name)
        if os.path.isdir(path):
            return path
    return None


class Scanner:
    """One model directory. After `scan`: `entries`, `lines` (of the written manifest) and `data` say what is there.

    allowed: the real folders that symbolic links may lead into.
    """

    def __init__(self, model: str, source: str, allowed: Sequence[str], objects: Objects) -> None:
        self.model = model
        self.source = source
        self.entries: dict[str, Entry] = {}
        self.lines: dict[str, bytes] = {}
        self.allowed = tuple(allowed)
        self._objects = objects
        self._seen: dict[str, _Seen] = {}
        self._data: dict[str, tuple[int, int]] = {}
        self._whole = False

    def forget(self) -> None:
        """Read everything again at the next scan."""
        self.entries, self.lines, self._seen, self._data = {}, {}, {}, {}
        self._whole = False

    def scan(self, changed: Collection[str] | None) -> None:
        """Bring `entries`, `lines` and `data` up to date: all, or the changed paths (folders: all in them) only.

        Raises SandboxError: no-main (also where the directory is gone), path-outside, path-permission, disk-full.
        """
        if changed is None or not self._whole:
            changed = [""]
        self._whole = False  # an exception below leaves paths unread
        if not os.path.isdir(self.source):
            raise SandboxError(
                "no-main",
                f"model {self.model}: source missing: {self.source}",
                hint="restore it, or take the model out of sandbox.yaml",
            )
        self._check(self.source, self.source)
        folder = self._data_name()
        if folder is not None:
            self._check(folder, os.path.join(self.source, folder))
        try:
            self._scan_files([path for path in changed if path != folder and not path.startswith(f"{folder}/")], folder)
            self._scan_data(changed, folder)
        except PermissionError as error:
            shown = os.path.relpath(error.filename, self.source)
            message = f"model {self.model}: {shown} cannot be read"
            raise SandboxError("path-permission", message, hint=f"chmod u+rX {error.filename}") from error
        self._whole = True
        if "main.py" not in self.entries:
            raise SandboxError(
                "no-main",
                f"model {self.model}: source missing: no main.py in {self.source}",
                hint="a model is a main.py",
            )

    def data(self) -> str:
        """A hash over path, size and mtime of the data folder's files; "" where it has none."""
        if not self._data:
            return ""
        text = "\0".join(f"{path}\0{size} {mtime}" for path, (size, mtime) in sorted(self._data.items()))
        return hashlib.sha256(os.fsencode(text)).hexdigest()

    def data_files(self) -> dict[str, tuple[int, int]]:
        """Size and mtime (ns) of each data file by its path in the model directory."""
        return dict(self._data)

    def _data_name(self) -> str | None:
        found = data_folder(self.source)
        return None if found is None else os.path.basename(found)

    def _scan_files(self, changed: Collection[str], folder: str | None) -> None:
        found = dict(self._walked(changed, folder))
        # What is, and was, a plain file has nothing beneath it: no walk over all entries for an ordinary save.
        whole = frozenset(path for path in changed if path and (path not in found or path not in self.entries))
        gone = list(self.entries) if "" in changed else beneath(self.entries, whole)
        for path in set(gone) - found.keys():
            del self.entries[path], self.lines[path], self._seen[path]
        # A saved path is read whatever its status says; a walked one only where its status moved.
        saved = frozenset(changed)
        for path, real in found.items():
            self._read(path, real, certain=path in saved)

    def _walked(self, changed: Collection[str], folder: str | None) -> Iterator[tuple[str, str]]:
        """The user files at or beneath the changed paths, each with its full path."""
        for path in changed:
            if path and ignored(path):
                continue
            full = os.path.join(self.source, path) if path else self.source
            if os.path.isdir(full):
                self._check(path, full)
                for each, name in _files(path, full, (os.path.realpath(full),), self._check):
                    if folder is None or (each != folder and not each.startswith(f"{folder}/")):
                        yield each, name
            elif os.path.lexists(full):
                self._check(path, full)
                yield path, full

    def _check(self, path: str, full: str) -> None:
        real = os.path.realpath(full)
        if not any(real == root or real.startswith(f"{root}/") for root in self.allowed):
            raise SandboxError(
                "path-outside",
                f"model {self.model}: {path} leads to {real}, outside the project",
                hint="move it into the project, or name its folder under allow_outside in sandbox.yaml",
            )

    def _read(self, path: str, full: str, *, certain: bool) -> None:
        try:
            status = os.stat(full)
            if not stat.S_ISREG(status.st_mode):
                return self._drop(path)
            seen = self._seen.get(path)
            if certain or seen is None or not seen.still(status):
                self._take(path, full)
        except (FileNotFoundError, NotADirectoryError):
            self._drop(path)  # gone since it was listed, or a link to nothing
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            self._drop(path)  # a link that leads to itself

    def _take(self, path: str, full: str) -> None:
        """Read a file until it did not move meanwhile."""
        for attempt in range(1, ATTEMPTS + 1):
            # O_NONBLOCK: what became a pipe since it was listed must not block.
            with open(os.open(full, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as file:
                before = os.fstat(file.fileno())
                if before.st_size > LARGE:
                    sha, size = self._objects.add_stream(file)
                    data = None
                else:
                    data = file.read()
                    sha, size = "", len(data)
                after = os.fstat(file.fileno())
            if (after.st_size, after.st_mtime_ns) == (size, before.st_mtime_ns) or attempt == ATTEMPTS:
                break
        if data is not None:
            sha = self._objects.add(data)
        entry = Entry(sha, size, bool(after.st_mode & stat.S_IXUSR))
        if self.entries.get(path) != entry:
            self.entries[path], self.lines[path] = entry, line(path, entry)
        self._seen[path] = _Seen(
            *(after.st_size, after.st_mtime_ns, after.st_ctime_ns, after.st_ino, after.st_mode), read_ns=time.time_ns()
        )

    def _drop(self, path: str) -> None:
        self.entries.pop(path, None)
        self.lines.pop(path, None)
        self._seen.pop(path, None)

    def _scan_data(self, changed: Collection[str], folder: str | None) -> None:
        if folder is None:
            self._data = {}
            return
        inside = [path for path in changed if path == folder or path.startswith(f"{folder}/")]
        if "" in changed or folder in inside or any(not path.startswith(f"{folder}/") for path in self._data):
            self._data, inside = {}, [folder]
        for path in beneath(self._data, frozenset(inside)):
            del self._data[path]
        for path in inside:
            full = os.path.join(self.source, path)
            real = os.path.realpath(full)
            walked = _files(path, full, (real,), None) if os.path.isdir(full) else iter([(path, full)])
            for each, name in walked:
                if not ignored_name(os.path.basename(each)):
                    self._take_data(each, name)

    def _take_data(self, path: str, full: str) -> None:
        try:
            status = os.stat(full)
        except OSError:
            return  # gone since it was listed, or a link that leads nowhere here
        if stat.S_ISREG(status.st_mode):
            self._data[path] = (status.st_size, status.st_mtime_ns)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself, or where we may not go: whoever opens it says which
        return False


def _files(path: str, full: str, above: tuple[str, ...], check: object) -> Iterator[tuple[str, str]]:
    """Every file beneath a folder, symbolic links followed but for those that lead back up."""
    try:
        listed = sorted(os.scandir(full), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return  # gone since it was listed
    for entry in listed:
        if ignored_name(entry.name):
            continue
        each = f"{path}/{entry.name}" if path else entry.name
        if entry.is_symlink() and callable(check):
            check(each, entry.path)
        if not _is_folder(entry):
            yield each, entry.path
            continue
        real = os.path.realpath(entry.path) if entry.is_symlink() else f"{above[-1]}/{entry.name}"
        if real not in above:
            yield from _files(each, entry.path, (*above, real), check)
