"""Which packages good workers imported, by environment: what the zygotes of later replicas import as well.

What a replica's zygote does with it is its agent's business. The names come from agents, which models can reach.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from orchestrator.control.stderr import note
from orchestrator.errors import SandboxError
from orchestrator.store import Store

MOST_NAMES = 1000
LONGEST_NAME = 200


class Learned:
    """Kept in the project's store, by lock hash and model: nothing is ever told across lock hashes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[tuple[str, str], tuple[str, ...]] = {}

    def of(self, lock_hash: str, model: str) -> tuple[str, ...]:
        """The model's own list; where it has none, the newest of any model with the same environment."""
        lists = self._lists(lock_hash)
        return tuple(lists.get(model) or next(iter(lists.values()), ()))

    def replace(self, lock_hash: str, model: str, imports: object) -> None:
        """Enter what a worker imported that inherited nothing: it is all that there is to import."""
        names = bounded(_modules(imports))
        if self._known.get((lock_hash, model)) == names:
            return
        self._known[lock_hash, model] = names
        try:
            self._store.keep_imports(lock_hash, model, names)
        except SandboxError as error:  # it saves time, and nothing else
            note(f"imports not stored: {error}")

    def add(self, lock_hash: str, model: str, imports: object) -> None:
        """Enter what a forked worker imported: it cannot tell what it found imported and did not name."""
        before = self._known.get((lock_hash, model))
        if before is None:
            before = tuple(self._lists(lock_hash).get(model, ()))
        self.replace(lock_hash, model, [*before, *_modules(imports)])

    def _lists(self, lock_hash: str) -> dict[str, list[str]]:
        try:
            return self._store.imports(lock_hash)
        except SandboxError as error:
            note(f"imports not read: {error}")
            return {}


def bounded(names: Iterable[str]) -> tuple[str, ...]:
    """Each once, the shallow first: where there are too many, those that bring most of the others stay."""
    return tuple(sorted(set(names), key=lambda name: (name.count("."), name))[:MOST_NAMES])


def _modules(names: object) -> Sequence[str]:
    given = names if isinstance(names, list) else []
    return [name for name in given if isinstance(name, str) and len(name) <= LONGEST_NAME and _is_module(name)]


def _is_module(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))
