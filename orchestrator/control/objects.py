"""File contents by their hash, each written once. It knows no model and no manifest."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import threading
from collections.abc import Collection, Iterator
from typing import BinaryIO

from orchestrator.errors import SandboxError

CHUNK = 1 << 20
# A file that nothing names yet may belong to a generation that is being made.
LONG_ENOUGH = 600.0


class Objects:
    """The folder `objects/ab/<62 hex>`. Files appear whole or not at all, are read-only and never change."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._serial = itertools.count()

    def add(self, data: bytes) -> str:
        """Keep these bytes; return their hash."""
        sha = hashlib.sha256(data).hexdigest()
        if not self._touched(sha):
            with self._aside() as (file, path):
                file.write(data)
                file.flush()
                self._install(path, sha)
        return sha

    def add_stream(self, source: BinaryIO) -> tuple[str, int]:
        """Keep what is left in an open file, whatever its size; return hash and size."""
        digest = hashlib.sha256()
        size = 0
        with self._aside() as (file, path):
            while chunk := source.read(CHUNK):
                digest.update(chunk)
                size += len(chunk)
                file.write(chunk)
            file.flush()
            self._install(path, digest.hexdigest())
        return digest.hexdigest(), size

    def read(self, sha: str) -> bytes:
        """The bytes of a small object. Raises SandboxError("store") where they are gone or are not what was kept."""
        with self._opened(sha) as file:
            data = file.read()
        if hashlib.sha256(data).hexdigest() != sha:
            raise self._damaged(sha)
        return data

    def copy(self, sha: str, target: str, mode: int) -> None:
        """Write an object's bytes as the new file `target`, checked on the way. A failure leaves no file."""
        digest = hashlib.sha256()
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        try:
            with open(descriptor, "wb", buffering=0) as out, self._opened(sha) as file:
                while chunk := file.read(CHUNK):
                    digest.update(chunk)
                    _write(out.fileno(), chunk)
                os.fchmod(out.fileno(), mode)  # whatever the umask says
        except BaseException:
            os.unlink(target)
            raise
        if digest.hexdigest() != sha:
            os.unlink(target)
            raise self._damaged(sha)

    def collect(self, named: Collection[str], now: float) -> int:
        """Remove the objects that nothing names and that are old enough; return how many. now: Unix seconds."""
        removed = 0
        for part in os.listdir(self.folder) if os.path.isdir(self.folder) else ():
            folder = os.path.join(self.folder, part)
            for name in os.listdir(folder) if os.path.isdir(folder) else ():
                if part + name not in named:
                    removed += self._removed(os.path.join(folder, name), now)
        return removed

    def _removed(self, path: str, now: float) -> bool:
        with self._lock:  # so that `_touched` cannot promise a file that goes at this moment
            if now - os.stat(path).st_mtime < LONG_ENOUGH:
                return False
            os.unlink(path)
            return True

    def _touched(self, sha: str) -> bool:
        """Whether the object exists; if so it counts as new."""
        with self._lock:
            try:
                os.utime(self._path(sha))
            except FileNotFoundError:
                return False
            return True

    def _path(self, sha: str) -> str:
        return os.path.join(self.folder, sha[:2], sha[2:])

    @contextlib.contextmanager
    def _opened(self, sha: str) -> Iterator[BinaryIO]:
        try:
            file = open(self._path(sha), "rb")  # noqa: SIM115 - closed below
        except FileNotFoundError as error:
            raise SandboxError("store", f"a kept file is gone: {self._path(sha)}", hint=_AGAIN) from error
        with file:
            yield file

    @contextlib.contextmanager
    def _aside(self) -> Iterator[tuple[BinaryIO, str]]:
        """A file that is gone afterwards unless it was installed."""
        folder = os.path.join(self.folder, "new")
        path = os.path.join(folder, f"{os.getpid()}-{next(self._serial)}")
        with disk_full(self.folder):
            os.makedirs(folder, exist_ok=True)
            try:
                with open(path, "wb") as file:
                    yield file, path
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)

    def _install(self, path: str, sha: str) -> None:
        os.chmod(path, 0o444)
        target = self._path(sha)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with self._lock:
            os.rename(path, target)

    def _damaged(self, sha: str) -> SandboxError:
        """The bytes are not what their name says: they go, so that the next save writes them anew."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(sha))
        return SandboxError("store", f"a kept file was changed: {self._path(sha)}", hint=_AGAIN)


_AGAIN = "`sandbox reload` makes a new generation from the model directory"


@contextlib.contextmanager
def disk_full(place: str) -> Iterator[None]:
    """Say "no space left" as one of our errors."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SandboxError("disk-full", f"no space left in {place}", hint="free some and save again") from error
        raise


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
