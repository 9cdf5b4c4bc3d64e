"""The project's memory: generations, events and counters in one SQLite file. It knows no model, no file, no process."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from orchestrator.errors import SandboxError

GenerationState = Literal["made", "active", "failed", "retired"]

# The newest events that are kept; older ones go as new ones come.
EVENTS_KEPT = 10_000
# The newest lists of imports that are kept.
IMPORTS_KEPT = 500
# Bytes: what SQLite's journal and its index take at least.
LEAST_ROOM = 64 * 1024

# One script per version; the file's `user_version` counts those that ran. Never edit one that was released: add one.
MIGRATIONS = (
    """
    CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE generations (
        model TEXT NOT NULL, number INTEGER NOT NULL, content TEXT NOT NULL, data TEXT NOT NULL, tree TEXT NOT NULL,
        config TEXT NOT NULL, changed TEXT NOT NULL, created REAL NOT NULL, state TEXT NOT NULL,
        pinned INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (model, number)
    ) WITHOUT ROWID;
    CREATE TABLE events (
        id INTEGER PRIMARY KEY AUTOINCREMENT, time TEXT NOT NULL, model TEXT, event TEXT NOT NULL,
        message TEXT NOT NULL, data TEXT NOT NULL
    );
    CREATE INDEX events_time ON events (time);
    """,
    """
    ALTER TABLE generations ADD COLUMN origin INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE generations ADD COLUMN directory TEXT NOT NULL DEFAULT '';
    """,
    """
    CREATE TABLE notes (kind TEXT NOT NULL, model TEXT NOT NULL, PRIMARY KEY (kind, model)) WITHOUT ROWID;
    """,
    """
    CREATE TABLE imports (
        lock_hash TEXT NOT NULL, model TEXT NOT NULL, names TEXT NOT NULL, learned REAL NOT NULL,
        PRIMARY KEY (lock_hash, model)
    ) WITHOUT ROWID;
    """,
)


@dataclass(frozen=True, slots=True)
class GenerationRow:
    """One generation as it is remembered. content: 64 hex, the name of its manifest in the object store. data: 64 hex
    over path, size and mtime of the data folder, "" where there is none. created: Unix seconds.

    origin: the generation that a rollback went back to, 0 for a save. directory: the content (64 hex) that the model
    directory had at the rollback, as long as it differs; "" where `content` is what the directory had.
    """

    model: str
    number: int
    content: str
    data: str
    tree: str
    config: Mapping[str, Any] = field(default_factory=dict)
    changed: tuple[str, ...] = ()
    created: float = 0.0
    state: GenerationState = "made"
    pinned: bool = False
    origin: int = 0
    directory: str = ""


Event = dict[str, Any]


class Store:
    """The one connection to `store.db`, safe to use from every thread. Every failure is a SandboxError("store"), or
    "disk-full" where that is the cause.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.RLock()
        with self._mapped():
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
        try:
            with self._mapped():
                self._open()
        except SandboxError:
            self._connection.close()
            raise

    def close(self) -> None:
        """Let go of the file. The store cannot be used afterwards."""
        with self._lock:
            self._connection.close()

    def next_generation(self, model: str) -> int:
        """The next number of a model. A number is given once, whether or not a generation comes of it."""
        return self.count(f"generation/{model}")

    def count(self, name: str, by: int = 1) -> int:
        """Raise a counter and return its new value. A counter begins at 0 and never falls."""
        query = (
            "INSERT INTO counters (name, value) VALUES (?, ?) "
            "ON CONFLICT (name) DO UPDATE SET value = value + excluded.value RETURNING value"
        )
        with self._transaction() as connection:
            return int(connection.execute(query, (name, by)).fetchone()[0])

    def note(self, kind: str, model: str) -> None:
        """Remember of a model that something is so."""
        with self._transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO notes (kind, model) VALUES (?, ?)", (kind, model))

    def noted(self, kind: str, model: str) -> bool:
        """Whether it was noted."""
        with self._transaction() as connection:
            query = "SELECT 1 FROM notes WHERE kind = ? AND model = ?"
            return connection.execute(query, (kind, model)).fetchone() is not None

    def forget(self, kind: str, model: str | None = None) -> None:
        """Remember it no longer, of a model or of any."""
        with self._transaction() as connection:
            query = "DELETE FROM notes WHERE kind = ? AND model = coalesce(?, model)"
            connection.execute(query, (kind, model))

    def keep_imports(self, lock_hash: str, model: str, names: Sequence[str]) -> None:
        """Remember which modules a model's workers imported in this environment, in place of what was known."""
        values = (lock_hash, model, json.dumps(names), time.time())
        oldest = "SELECT lock_hash, model FROM imports ORDER BY learned DESC LIMIT -1 OFFSET ?"
        with self._transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO imports VALUES (?, ?, ?, ?)", values)
            connection.execute(f"DELETE FROM imports WHERE (lock_hash, model) IN ({oldest})", (IMPORTS_KEPT,))  # noqa: S608 - the text holds no value

    def imports(self, lock_hash: str) -> dict[str, list[str]]:
        """What is remembered of this environment, by model, the newest first."""
        query = "SELECT model, names FROM imports WHERE lock_hash = ? ORDER BY learned DESC"
        with self._transaction() as connection:
            return {model: json.loads(names) for model, names in connection.execute(query, (lock_hash,))}

    def add_generation(self, row: GenerationRow) -> None:
        """Remember a generation; `created` is set to now where it is 0."""
        values = (
            row.model,
            row.number,
            row.content,
            row.data,
            row.tree,
            json.dumps(row.config),
            json.dumps(row.changed),
            row.created or time.time(),
            row.state,
            int(row.pinned),
            row.origin,
            row.directory,
        )
        with self._transaction() as connection:
            connection.execute("INSERT INTO generations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)

    def generation(self, model: str, number: int) -> GenerationRow | None:
        """One generation, or None where it was never made or was pruned."""
        found = self._generations("WHERE model = ? AND number = ?", (model, number))
        return found[0] if found else None

    def latest(self, model: str, state: GenerationState | None = None) -> GenerationRow | None:
        """The newest generation of a model (in that state), or None."""
        where, values = ("AND state = ?", (model, state)) if state else ("", (model,))
        found = self._generations(f"WHERE model = ? {where} ORDER BY number DESC LIMIT 1", values)
        return found[0] if found else None

    def generations(self, model: str | None = None) -> Sequence[GenerationRow]:
        """The generations of a model (of all), newest first."""
        where, values = ("WHERE model = ?", (model,)) if model is not None else ("", ())
        return self._generations(f"{where} ORDER BY model, number DESC", values)

    def mark(self, model: str, number: int, state: GenerationState) -> None:
        """Set a generation's state. "active" retires the one that was active before."""
        with self._transaction() as connection:
            if state == "active":
                connection.execute(
                    "UPDATE generations SET state = 'retired' WHERE model = ? AND state = 'active' AND number != ?",
                    (model, number),
                )
            connection.execute(
                "UPDATE generations SET state = ? WHERE model = ? AND number = ?", (state, model, number)
            )

    def place(self, model: str, number: int, tree: str) -> None:
        """Note that a generation now lives in another tree of the pool."""
        with self._transaction() as connection:
            connection.execute("UPDATE generations SET tree = ? WHERE model = ? AND number = ?", (tree, model, number))

    def follow_directory(self, model: str) -> None:
        """Forget that the directory differed at a rollback: what it has counts as an edit from now on."""
        with self._transaction() as connection:
            connection.execute("UPDATE generations SET directory = '' WHERE model = ?", (model,))

    def pin(self, model: str, number: int, pinned: bool) -> None:
        """A pinned generation is never pruned."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE generations SET pinned = ? WHERE model = ? AND number = ?", (int(pinned), model, number)
            )

    def remove_generations(self, model: str, numbers: Collection[int]) -> None:
        """Forget generations. Their numbers stay used."""
        with self._transaction() as connection:
            connection.executemany(
                "DELETE FROM generations WHERE model = ? AND number = ?", [(model, number) for number in numbers]
            )

    def add_event(
        self, at: str, model: str | None, event: str, message: str, data: Mapping[str, Any] | None = None
    ) -> int:
        """Remember an event of the moment `at` (ISO 8601, UTC, milliseconds, `Z`) and return its number."""
        query = "INSERT INTO events (time, model, event, message, data) VALUES (?, ?, ?, ?, ?)"
        with self._transaction() as connection:
            cursor = connection.execute(query, (at, model, event, message, json.dumps(data or {})))
            number = int(cursor.lastrowid or 0)
            connection.execute("DELETE FROM events WHERE id <= ?", (number - EVENTS_KEPT,))
        return number

    def events(self, since: str | None = None, models: Collection[str] = (), limit: int = 1000) -> list[Event]:
        """The newest `limit` events from `since` (ISO 8601) on, of these models (none named: all), oldest first.

        Each has time, model, event, message and data. Raises SandboxError("usage") for an unreadable `since`.
        """
        wanted, values = [], list[Any]()
        if since is not None:
            wanted.append("time >= ?")
            values.append(_moment(since))
        if models:
            wanted.append(f"model IN ({', '.join('?' * len(models))})")
            values.extend(models)
        where = f"WHERE {' AND '.join(wanted)}" if wanted else ""
        query = f"SELECT time, model, event, message, data FROM events {where} ORDER BY id DESC LIMIT ?"  # noqa: S608 - the text holds no value
        with self._transaction() as connection:
            rows = connection.execute(query, (*values, limit)).fetchall()
        return [
            {"time": time, "model": model, "event": event, "message": message, "data": json.loads(data)}
            for time, model, event, message, data in reversed(rows)
        ]

    def _generations(self, where: str, values: Sequence[Any]) -> list[GenerationRow]:
        columns = "model, number, content, data, tree, config, changed, created, state, pinned, origin, directory"
        query = f"SELECT {columns} FROM generations {where}"  # noqa: S608 - the text holds no value
        with self._transaction() as connection:
            rows = connection.execute(query, values).fetchall()
        return [
            GenerationRow(
                *(model, number, content, data, tree),
                config=json.loads(config),
                changed=tuple(json.loads(changed)),
                created=created,
                state=state,
                pinned=bool(pinned),
                origin=origin,
                directory=directory,
            )
            for model, number, content, data, tree, config, changed, created, state, pinned, origin, directory in rows
        ]

    def _open(self) -> None:
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "busy_timeout = 5000"):
            self._connection.execute(f"PRAGMA {pragma}")
        version = int(self._connection.execute("PRAGMA user_version").fetchone()[0])
        if version > len(MIGRATIONS):
            raise SandboxError(
                "store",
                f"{self.path} was written by a newer Model Sandbox (format {version}, known: {len(MIGRATIONS)})",
                hint="upgrade, or move the file away: generation numbers and history start over",
            )
        for number in range(version, len(MIGRATIONS)):
            script = f"BEGIN IMMEDIATE; {MIGRATIONS[number]} PRAGMA user_version = {number + 1}; COMMIT;"
            self._connection.executescript(script)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._mapped():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                if self._connection.in_transaction:  # a full disk has ended it already
                    self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def _no_room(self) -> bool:
        """Whether the disk is full: of its journal's shared memory SQLite then says no more than "disk I/O error"."""
        try:
            room = os.statvfs(os.path.dirname(self.path))
        except OSError:
            return False
        return room.f_bavail * room.f_frsize < LEAST_ROOM

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        """Foreign exceptions in, SandboxErrors out."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            full = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL
            if full or getattr(error, "errno", 0) in {errno.ENOSPC, errno.EDQUOT} or self._no_room():
                hint = "free some space; sandbox doctor says where it writes"
                raise SandboxError("disk-full", f"no space left to write {self.path}", hint=hint) from error
            raise SandboxError(
                "store",
                f"{self.path} cannot be used: {error}",
                hint="move the file away: generation numbers and history start over",
            ) from error


def _moment(text: str) -> str:
    """A moment in the one form that is stored, so that texts compare as times do."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise SandboxError("usage", f"{text!r} is no time", hint="as in 2026-11-20T12:00:00Z") from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
