"""All models' generations of one project: their workshops, and the file contents that they share.

Everything here blocks on the disk: call it from a thread.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence

from orchestrator.control.manifest import parse
from orchestrator.control.objects import Objects
from orchestrator.control.scan import Scanner
from orchestrator.control.trees import Trees
from orchestrator.control.workshop import ReadConfig, Workshop
from orchestrator.plan.types import ModelDesired
from orchestrator.store import Store


class Generations:
    """All models' generations of one project. state: its `.sandbox` folder.

    allowed: the real folders that a model's symbolic links may lead into (`allow` replaces them).
    read_config: `spec.resolve.model_config`; what is wrong raises a SandboxError that names file and line.
    """

    def __init__(self, state: str, store: Store, *, allowed: Sequence[str], read_config: ReadConfig) -> None:
        self._project = os.path.dirname(state)
        self._folder = os.path.join(state, "generations")
        self._store = store
        self._allowed = tuple(os.path.realpath(path) for path in allowed)
        self._read_config = read_config
        self._objects = Objects(os.path.join(state, "objects"))
        self._workshops: dict[str, Workshop] = {}
        self._lock = threading.Lock()

    def allow(self, roots: Sequence[str]) -> None:
        """Let symbolic links lead into these real folders from now on: the project and `allow_outside`."""
        with self._lock:
            self._allowed = tuple(roots)
            for workshop in self._workshops.values():
                workshop.scanner.allowed = self._allowed

    def workshop(self, model: ModelDesired) -> Workshop:
        """The workshop of a model: the same one for a name, as long as its path stays."""
        with self._lock:
            known = self._workshops.get(model.name)
            if known is not None and known.source == model.path:
                known.desired = model
                return known
            trees = known.trees if known else Trees(os.path.join(self._folder, model.name), self._objects)
            scanner = Scanner(model.name, model.path, self._allowed, self._objects)
            made = Workshop(
                model,
                scanner=scanner,
                trees=trees,
                store=self._store,
                objects=self._objects,
                read_config=self._read_config,
                project=self._project,
            )
            if known is not None:
                made.held = known.held  # its workers run on
            self._workshops[model.name] = made
            return made

    def forget(self, model: str) -> None:
        """Take the trees of a model that was removed away. What it had stays kept: it may only be out of a profile."""
        with self._lock:
            known = self._workshops.pop(model, None)
        trees = known.trees if known else Trees(os.path.join(self._folder, model), self._objects)
        trees.remove()

    def collect(self) -> int:
        """Remove file contents that no kept generation has; return how many. Slow: not before a reload."""
        with self._lock:
            workshops = list(self._workshops.values())
        named = {sha for workshop in workshops for sha in workshop.seen()}
        for content in {row.content for row in self._store.generations()}:
            named.add(content)
            named.update(entry.sha for entry in parse(self._objects.read(content)).values())
        return self._objects.collect(named, time.time())
