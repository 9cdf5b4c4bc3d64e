"""One watcher for all models: from the system's news to "these paths of that model were saved". It reads no content.

What it adds to the news: which model a path belongs to (through symbolic links, too), what is no save at all, when a
save is over (debounce.py), and folders that come, go, and come back.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field

from orchestrator.control.debounce import Debounce, for_data
from orchestrator.control.filters import ignored, ignored_name
from orchestrator.control.inotify import Inotify
from orchestrator.control.notify import Exhausted, Notice, Notifier, OnNotice
from orchestrator.control.polling import Polling
from orchestrator.control.portable import Portable
from orchestrator.control.remote import AlsoRemote
from orchestrator.control.scan import DATA_FOLDERS, data_folder
from orchestrator.control.stderr import note
from orchestrator.plan.types import ModelDesired, ReloadPolicy

# How often watched directories are looked at for having been replaced, which no event tells of in every case.
CHECK = 1.0


@dataclass(frozen=True, slots=True)
class Batch:
    """A save. model: None for the sandbox's own files. paths: relative to the model directory (the sandbox's files:
    absolute); None: anything may have changed. seen_at: when its first event came, by time.monotonic().
    """

    model: str | None
    paths: frozenset[str] | None
    seen_at: float

    def __or__(self, later: Batch) -> Batch:
        paths = None if self.paths is None or later.paths is None else self.paths | later.paths
        return Batch(self.model, paths, self.seen_at)


@dataclass(slots=True)
class _Source:
    """What is watched of one model. identity: device and inode of its directory; None while it is missing."""

    path: str
    quiet: float
    max_wait: float
    data: bool
    lock: str | None
    saves: Debounce
    identity: tuple[int, int] | None = None
    data_saves: Debounce = field(default_factory=for_data)


# Who wants to hear of a path: a model's name and the path in its directory, or None and the file itself.
_Place = tuple[str | None, str]


class Watcher:
    """Watch, then iterate over `batches`.

    tell: where a message for people goes (inotify is exhausted). best: the notifier to use unless it is Exhausted.

    Belongs to the event loop that it is first used on.
    """

    def __init__(
        self, tell: Callable[[str], None] | None = None, best: Callable[[OnNotice], Notifier] | None = None
    ) -> None:
        self._tell = tell or note
        self._best = best or (_linux if sys.platform == "linux" else Portable)
        self._notifier: Notifier | None = None
        self._sources: dict[str | None, _Source] = {}
        self._files: frozenset[str] = frozenset()
        self._folders: dict[str, set[_Place]] = {}
        self._exact: dict[str, set[_Place]] = {}
        self._armed: set[str] = set()
        self._ready: dict[str | None, Batch] = {}
        self._some = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._checks: asyncio.TimerHandle | None = None

    def watch(self, models: Mapping[str, ModelDesired | str], files: Iterable[str]) -> None:
        """Watch these models (or, with the default timing, these paths) and files instead of what was watched.

        No event is lost: a model that is new here, or whose path changed, is reported as "anything may have changed".
        """
        before = self._sources
        wanted: dict[str | None, _Source] = {name: _source(model) for name, model in models.items()}
        wanted[None] = _source(os.sep)
        self._files, files_before = frozenset(files), self._files
        for name, source in wanted.items():
            known = before.get(name)
            if known is not None and (known.path, known.data) == (source.path, source.data):
                known.quiet, known.max_wait = source.quiet, source.max_wait
                known.saves.quiet, known.saves.max_wait = source.quiet, source.max_wait
                wanted[name] = known
        self._sources = wanted
        wanted[None].lock = _git_lock(os.path.dirname(min(self._files, key=len, default=os.sep)))
        self._survey()
        for name, source in wanted.items():
            if name is not None and before.get(name) is not source:
                self._add(name, None)
        if before and self._files - files_before:
            self._add(None, None)
        if self._checks is None:
            self._check()

    async def batches(self) -> AsyncIterator[Batch]:
        """Saves as they settle, one at a time; those of a model that came while one was worked on arrive as one."""
        while True:
            await self._some.wait()
            if not self._ready:
                self._some.clear()
                continue
            yield self._ready.pop(next(iter(self._ready)))

    async def close(self) -> None:
        """Stop watching."""
        for timer in (self._timer, self._checks):
            if timer is not None:
                timer.cancel()
        if self._notifier is not None:
            notifier, self._notifier = self._notifier, None
            notifier.close()
            await notifier.closed()

    # What is watched

    def _survey(self) -> None:
        """Arm every folder anew. A folder is armed before it is listed, so that nothing appears unseen in between."""
        try:
            if self._notifier is None:
                self._notifier = self._best(self._hear)
            self._arm_all(self._notifier)
        except Exhausted as problem:
            self._tell(str(problem))
            if self._notifier is not None:
                self._notifier.close()
            self._notifier = Polling(self._hear)
            self._arm_all(self._notifier)

    def _arm_all(self, notifier: Notifier) -> None:
        self._folders, self._exact, self._armed = {}, {}, set()
        for file in self._files:
            self._exactly(notifier, file, (None, file))
        for name, source in self._sources.items():
            if name is not None:
                self._recognise(name, source)
                self._exactly(notifier, source.path, (name, ""))
                self._arm(notifier, os.path.realpath(source.path), (name, ""))
        notifier.keep(self._armed)

    def _recognise(self, name: str, source: _Source) -> None:
        """Another directory under the same path: whatever was written to it before it is armed goes untold."""
        identity = _identity(source.path)
        if identity != source.identity:
            source.identity = identity
            self._add(name, None)

    def _exactly(self, notifier: Notifier, path: str, place: _Place) -> None:
        """Hear of one path, and of what it leads to."""
        for each in {path, os.path.realpath(path)}:
            self._exact.setdefault(each, set()).add(place)
            self._arm_one(notifier, os.path.dirname(each))

    def _arm_one(self, notifier: Notifier, folder: str) -> None:
        if folder not in self._armed:
            notifier.arm(folder)
            self._armed.add(folder)

    def _arm(self, notifier: Notifier, folder: str, place: _Place) -> None:
        """Hear of a folder and all beneath it. folder: a real path."""
        known = self._folders.setdefault(folder, set())
        if place in known:
            return  # also the end of links that lead in a circle: …
        known.add(place)
        self._arm_one(notifier, folder)
        try:
            entries = list(os.scandir(folder))
        except OSError:
            return  # gone again, or not ours to read
        name, rest = place
        for entry in entries:
            path = f"{rest}/{entry.name}" if rest else entry.name
            if ignored_name(entry.name) or self._unwatched(name, path):
                continue
            if entry.is_symlink():
                self._arm_link(notifier, entry.path, (name, path))
            elif entry.is_dir():
                self._arm(notifier, entry.path, (name, path))

    def _arm_link(self, notifier: Notifier, link: str, place: _Place) -> None:
        real = os.path.realpath(link)
        if not os.path.isdir(real):
            self._exactly(notifier, real, place)
        elif not f"{link}/".startswith(f"{real}/"):  # … a link to a folder above it is not followed
            self._arm(notifier, real, place)

    def _unwatched(self, name: str | None, path: str) -> bool:
        """Data that the model itself writes is no edit."""
        source = self._sources[name]
        return not source.data and _in_data(source, path)

    # What is heard

    def _hear(self, notice: Notice) -> None:
        if notice.path is None:
            self._lost()
            return
        for name, path in (*self._exact.get(notice.path, ()), *self._owners(notice.path)):
            if name is not None and not path:
                self._check_source(name)
            elif name is None or not ignored(path):
                self._add(name, path, writing=notice.writing)
                self._follow(notice, (name, path))
        if notice.gone and notice.folder:
            self._lose(notice.path)

    def _owners(self, path: str) -> Iterable[_Place]:
        folder, _, base = path.rpartition("/")
        for name, rest in self._folders.get(folder, ()):
            yield name, f"{rest}/{base}" if rest else base

    def _follow(self, notice: Notice, place: _Place) -> None:
        """Arm what appeared: a folder, or a link."""
        name, path = place
        if name is None or notice.gone or notice.writing or notice.path is None or self._notifier is None:
            return
        if self._unwatched(name, path):
            return
        try:
            if notice.folder:
                self._arm(self._notifier, notice.path, place)
            elif os.path.islink(notice.path):
                self._arm_link(self._notifier, notice.path, place)
        except Exhausted:
            self._survey()
            self._lost()

    def _lose(self, folder: str) -> None:
        """A folder went. Where one of its name is there already (it may even have the same inode), what was written
        to that before it is armed goes untold: so all of it may have changed.
        """
        if not os.path.isdir(folder):
            self._drop(folder)
            return
        places = tuple(self._folders.get(folder, ()))
        self._survey()
        for name, path in places:
            if name in self._sources:
                self._add(name, path or None)

    def _drop(self, folder: str) -> None:
        """Let go of a folder that went, and of all beneath it (a renamed one comes back under its new name)."""
        if folder not in self._folders and folder not in self._armed:
            return
        gone = {each for each in self._armed if each == folder or each.startswith(f"{folder}/")}
        for each in gone:
            self._folders.pop(each, None)
        self._armed -= gone
        if self._notifier is not None:
            self._notifier.keep(self._armed)

    def _lost(self) -> None:
        """News was lost: arm all anew, and let everything be looked at."""
        self._survey()
        for name in self._sources:
            self._add(name, None)

    def _check(self) -> None:
        """Look whether a model directory was replaced behind our back (its parent renamed, a file system mounted)."""
        for name in self._sources:
            if name is not None:
                self._check_source(name)
        self._checks = asyncio.get_running_loop().call_later(CHECK, self._check)

    def _check_source(self, name: str) -> None:
        source = self._sources[name]
        if _identity(source.path) != source.identity:
            self._survey()

    # What is said

    def _add(self, name: str | None, path: str | None, *, writing: bool = False) -> None:
        source = self._sources[name]
        now = time.monotonic()
        if path is not None and name is not None and _in_data(source, path):
            if source.data:
                source.data_saves.add(path, now)
        else:
            source.saves.add(path, now, writing=writing)
        self._plan()

    def _plan(self) -> None:
        """Set the one timer to the next moment at which something is due."""
        dues = [lane.due for source in self._sources.values() for lane in (source.saves, source.data_saves)]
        due = min((each for each in dues if each is not None), default=None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due is not None:
            delay = max(0.0, due - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._due)

    def _due(self) -> None:
        now = time.monotonic()
        for name, source in self._sources.items():
            for lane in (source.saves, source.data_saves):
                due, first = lane.due, lane.first
                if due is None or first is None or due > now:
                    continue
                locked = source.lock is not None and os.path.lexists(source.lock)
                empty = any(_empty(os.path.join(source.path, path)) for path in lane.pending)
                paths = lane.take(now, locked=locked, empty=empty)
                if paths is not None:
                    self._say(Batch(name, paths or None, first))
        self._plan()

    def _say(self, batch: Batch) -> None:
        known = self._ready.get(batch.model)
        self._ready[batch.model] = batch if known is None else known | batch
        self._some.set()


def _linux(on_notice: OnNotice) -> Notifier:
    return AlsoRemote(on_notice, Inotify(on_notice))


def _source(model: ModelDesired | str) -> _Source:
    if isinstance(model, str):
        path, policy, data = model, ReloadPolicy(), True
    else:
        path, policy, data = model.path, model.reload, not model.data_writable
    saves = Debounce(policy.quiet, policy.max_wait)
    return _Source(path, policy.quiet, policy.max_wait, data, _git_lock(path), saves)


def _in_data(source: _Source, path: str) -> bool:
    top = path.partition("/")[0]
    if top not in DATA_FOLDERS:
        return False
    found = data_folder(source.path)
    return found is None or os.path.basename(found) == top


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _empty(path: str) -> bool:
    try:
        return os.stat(path).st_size == 0
    except OSError:
        return False


def _git_lock(path: str) -> str | None:
    """The index lock of the repository that a folder is in, or None."""
    folder = path
    while True:
        git = os.path.join(folder, ".git")
        if os.path.isdir(git):
            return os.path.join(git, "index.lock")
        if os.path.isfile(git):  # a worktree or submodule: "gitdir: PATH"
            with open(git, encoding="utf-8", errors="surrogateescape") as file:
                return os.path.join(folder, file.readline().removeprefix("gitdir:").strip(), "index.lock")
        above = os.path.dirname(folder)
        if above == folder:
            return None
        folder = above
