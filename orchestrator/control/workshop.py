"""One model's generations: numbered contents of its directory, kept by content and run from a pool of trees.

It knows what was saved and where it lies; which worker runs it, it is told (`hold`, `release`).
Everything here blocks on the disk: call it from a thread. A workshop may be called from several.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.control.manifest import Manifest, content_hash, parse, unlike, written
from orchestrator.control.objects import Objects
from orchestrator.control.scan import DATA_FOLDERS, Scanner, data_folder
from orchestrator.control.trees import Link, Trees
from orchestrator.errors import SandboxError
from orchestrator.plan.types import Generation, ModelDesired
from orchestrator.store import GenerationRow, GenerationState, Store

# A folder with (perhaps) a config.yaml, and the file's name for people → its mapping.
ReadConfig = Callable[[str, str], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a model directory held at one moment; its files are in the object store.

    content: 64 hex, and the name of the manifest's object. data: 64 hex over the data folder's path, size, mtime ("":
    none). changed: what differs from the last generation, data files too, relative to the model directory.
    """

    model: str
    content: str
    data: str
    entries: Manifest = field(repr=False)
    data_name: str = "data"
    changed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rollback:
    """What going back made. origin: whose content it is. data_moved: the data folder is not what it was then."""

    generation: Generation
    origin: int
    data_moved: bool


class Workshop:
    """One model's generations. desired: the newest wish (its path, `keep` and `max_draining` are used).

    held: the generations that have workers, or are about to, each with its tree; those trees never change.
    """

    def __init__(
        self,
        desired: ModelDesired,
        *,
        scanner: Scanner,
        trees: Trees,
        store: Store,
        objects: Objects,
        read_config: ReadConfig,
        project: str,
    ) -> None:
        self.desired = desired
        self.model = desired.name
        self.source = desired.path
        self.trees = trees
        self.held: dict[int, str] = {}
        self.scanner = scanner
        self._store = store
        self._objects = objects
        self._read_config = read_config
        self._project = project
        self._lock = threading.RLock()
        self._last: tuple[Manifest, dict[str, tuple[int, int]]] | None = None

    def snapshot(self, changed: Collection[str] | None, *, force: bool = False) -> Snapshot | None:
        """What the model directory holds now, or None where it equals the last generation (unless forced).

        changed: relative paths of files or folders that may differ; None: everything may. Raises SandboxError:
        no-main (also "source missing"), path-outside, path-permission, disk-full, store.
        """
        with self._lock:
            scanner = self.scanner
            scanner.scan(changed)
            text = written(scanner.lines)
            content, data = content_hash(text), "" if self.desired.data_writable else scanner.data()
            row = self._store.latest(self.model)
            if row is not None and row.data == data and content in {row.content, row.directory} and not force:
                if row.directory and content == row.content:
                    self._store.follow_directory(self.model)  # it has what a rollback went back to
                return None
            self._objects.add(text)
            found = data_folder(self.source)
            return Snapshot(
                *(self.model, content, data, dict(scanner.entries)),
                data_name=os.path.basename(found) if found else "data",
                changed=self._changes(row),
            )

    def commit(self, snapshot: Snapshot, data_target: str | None) -> Generation:
        """Number a snapshot and bring a free tree to it. The generation is held until it is released.

        data_target: where the tree's data link leads (the path that the replica sees), or None for no link.
        Raises TreesInUse; SandboxError of config.yaml (file and line), disk-full, store.
        """
        with self._lock:
            link = None if data_target is None else Link(snapshot.data_name, data_target)
            tree = self._brought(snapshot.entries, link)
            config = self._config(tree)
            number = self._store.next_generation(self.model)
            row = GenerationRow(
                *(self.model, number, snapshot.content, snapshot.data, tree), config=config, changed=snapshot.changed
            )
            self._store.add_generation(row)
            self.held[number] = tree
            self._last = (snapshot.entries, self.scanner.data_files())
            return _generation(row, tree)

    def restore(self, number: int, data_target: str | None) -> Generation:
        """A kept generation in a tree again, every byte verified (rollback, respawn). It is held until released.

        Raises TreesInUse; SandboxError("no-generation") where it is not kept any more, "store" where it was damaged.
        """
        with self._lock:
            row = self._row(number)
            tree = self._restored(row, parse(self._objects.read(row.content)), data_target)
            if tree != row.tree:
                self._store.place(self.model, number, tree)
            self.held[number] = tree
            return _generation(row, tree)

    def roll_back(self, number: int | None, active: int | None, data_target: str | None) -> Rollback:
        """The content of a kept generation under a new number, every byte verified. It is held until released.

        number: None for the newest that was active and has another content than `active`, which answers now. What the
        directory has is no edit from here on, until it changes. Raises TreesInUse; SandboxError("no-generation"), and
        "store" where kept files are gone or damaged: then nothing has changed.
        """
        with self._lock:
            now = None if active is None else self._store.generation(self.model, active)
            row = self._earlier(now) if number is None else self._row(number)
            try:
                entries = parse(self._objects.read(row.content))
                tree = self._restored(row, entries, data_target)
            except SandboxError as error:
                if error.reference != "store":
                    raise
                message = f"model {self.model}: generation {row.number} cannot be restored: {error.message}"
                raise SandboxError("store", message, hint=f"the others: sandbox generations {self.model}") from error
            directory, data = self._directory()
            made = GenerationRow(
                *(self.model, self._store.next_generation(self.model), row.content, data, tree),
                config=row.config,
                changed=self._unlike(now, entries),
                origin=row.number,
                directory="" if directory == row.content else directory,
            )
            self._store.add_generation(made)
            self.held[made.number] = tree
            self._last = (entries, self.scanner.data_files())
            return Rollback(_generation(made, tree), row.number, data_moved=data != row.data)

    def kept(self) -> Sequence[GenerationRow]:
        """Every generation that can be gone back to, newest first."""
        return self._store.generations(self.model)

    def pin(self, number: int, pinned: bool) -> GenerationRow:
        """Keep a generation whatever comes, or no longer. Raises SandboxError("no-generation")."""
        row = self._row(number)
        self._store.pin(self.model, number, pinned)
        return replace(row, pinned=pinned)

    def mark(self, number: int, state: GenerationState) -> None:
        """Note what became of a generation; the one that was active is retired by the next."""
        self._store.mark(self.model, number, state)

    def follow_directory(self) -> None:
        """Let the next look at the directory undo a rollback."""
        self._store.follow_directory(self.model)

    def hold(self, number: int) -> Generation:
        """Take note that a generation has a worker (adopted after a restart). Raises SandboxError("no-generation")."""
        with self._lock:
            row = self._row(number)
            self.held.setdefault(number, row.tree)
            return _generation(row, self.held[number])

    def release(self, number: int) -> None:
        """Take note that no worker of a generation is left and none comes: its tree may change."""
        self.held.pop(number, None)  # one step, so that no scan that runs in a thread delays the event loop

    def latest(self, state: GenerationState | None = None) -> Generation | None:
        """The newest generation, whatever became of it (or in that state), or None."""
        row = self._store.latest(self.model, state)
        return None if row is None else _generation(row, row.tree)

    def spare(self) -> None:
        """Bring a second tree to the newest content, so that the next save costs only its difference."""
        with self._lock:
            row = self._store.latest(self.model)
            if row is None or self._last is None or set(self.trees.known()) - frozenset(self.held.copy().values()):
                return
            self._brought(self._last[0], None)

    def prune(self) -> None:
        """Forget generations beyond `keep`, oldest first, but for those that are held, active or pinned."""
        with self._lock:
            rows = self._store.generations(self.model)[max(1, self.desired.reload.keep) :]
            old = [r.number for r in rows if r.number not in self.held and r.state != "active" and not r.pinned]
            if old:
                self._store.remove_generations(self.model, old)

    def seen(self) -> set[str]:
        """The hashes of the files as they were last seen."""
        with self._lock:
            return {entry.sha for entry in self.scanner.entries.values()}

    def _brought(self, entries: Manifest, link: Link | None) -> str:
        try:
            return self.trees.bring(
                entries, link, frozenset(self.held.copy().values()), self.desired.reload.max_draining + 2
            )
        except SandboxError as error:
            if error.reference == "store":
                self.scanner.forget()  # a kept file is gone or damaged: the next snapshot reads and keeps all again
            raise

    def _restored(self, row: GenerationRow, entries: Manifest, data_target: str | None) -> str:
        """A tree that holds a generation, as a read of every byte says."""
        link = None if data_target is None else Link(self._data_name(), data_target)
        tree = self.held.get(row.number, row.tree)
        if self.trees.verify(tree, entries, link):
            return tree
        tree = self._brought(entries, link)
        if not self.trees.verify(tree, entries, link):  # a free tree was not what it was: now that is known
            tree = self._brought(entries, link)
        return tree

    def _row(self, number: int) -> GenerationRow:
        row = self._store.generation(self.model, number)
        if row is None:
            raise SandboxError(
                "no-generation",
                f"model {self.model}: generation {number} is not kept",
                hint=f"those that are: sandbox generations {self.model}",
            )
        return row

    def _earlier(self, now: GenerationRow | None) -> GenerationRow:
        for row in self.kept():
            was_active = row.state in {"active", "retired"}
            if was_active and (now is None or (row.number != now.number and row.content != now.content)):
                return row
        message = f"model {self.model}: no other content that was active is kept"
        raise SandboxError("no-generation", message, hint=f"those that are: sandbox generations {self.model}")

    def _directory(self) -> tuple[str, str]:
        """Content and data hash of the model directory; as last known where it cannot be read."""
        try:
            self.scanner.scan(None)
        except SandboxError:
            row = self._store.latest(self.model)
            return (row.directory or row.content, row.data) if row is not None else ("", "")
        data = "" if self.desired.data_writable else self.scanner.data()
        return content_hash(written(self.scanner.lines)), data

    def _unlike(self, now: GenerationRow | None, entries: Manifest) -> tuple[str, ...]:
        try:
            return unlike(parse(self._objects.read(now.content)) if now is not None else {}, entries)
        except SandboxError:
            return tuple(sorted(entries))  # what answers was damaged in the store: all the more reason to leave it

    def _config(self, tree: str) -> Mapping[str, Any]:
        """config.yaml as the snapshot has it (the user's may have moved on); errors name the user's own file."""
        shown = os.path.relpath(os.path.join(self.source, "config.yaml"), self._project)
        return self._read_config(self.trees.path(tree), shown)

    def _data_name(self) -> str:
        found = data_folder(self.source)
        return os.path.basename(found) if found else DATA_FOLDERS[-1]

    def _changes(self, row: GenerationRow | None) -> tuple[str, ...]:
        """What differs from the last generation. Its data files are known only while we run."""
        if row is None:
            return tuple(sorted(self.scanner.entries))
        data = self.scanner.data_files()
        if self._last is None:
            self._last = (parse(self._objects.read(row.content)), data)
        entries, old = self._last
        moved = (
            ()
            if self.desired.data_writable
            else sorted(k for k in old.keys() | data.keys() if old.get(k) != data.get(k))
        )
        return (*unlike(entries, self.scanner.entries), *moved)


def _generation(row: GenerationRow, tree: str) -> Generation:
    entry = row.config.get("entry")
    return Generation(
        *(row.model, row.number, row.content, tree),
        config=row.config,
        changed=row.changed,
        entry=entry if isinstance(entry, str) else None,
        origin=row.origin if row.directory else None,
    )
