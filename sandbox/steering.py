"""Under which environment variables each preloaded module was imported, and whether a worker's import finds the same.

A variable that a model sets before an import may steer that import, so a module that was imported without it must not
be used. What a library itself sets while it is imported is no steering: a child gets it when it imports that library.
"""

from __future__ import annotations

import builtins
import importlib
import os
import sys
from typing import Any, Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional, Set

from sandbox import blas

# What a zygote sets for itself: thread counts are restored by call, the other steers how CUDA is asked for.
CUDA_CHECK = "PYTORCH_NVML_BASED_CUDA_CHECK"
_OWN = frozenset((*blas.VARIABLES, CUDA_CHECK))

Changes = Dict[str, Optional[str]]


class Steered(BaseException):
    """A preloaded module was imported under other variables. Not an Exception: a model's own `except` is not meant."""

    def __init__(self, module: str, reason: str) -> None:
        super().__init__(reason)
        self.module = module
        self.reason = reason


class _Step(NamedTuple):
    """One import. sets: what the model sets before it. effects: what it set itself. asked: names that it used."""

    sets: Changes
    effects: Changes
    asked: Set[str]


class Steering:
    """Filled by a zygote (`set`, `bring`), asked in its children (`begin`, `check`, `absorb`)."""

    def __init__(self) -> None:
        self.stale: Optional[Steered] = None
        self._sets: Changes = {}
        self._steps: List[_Step] = []
        self._step_of: Dict[str, int] = {}
        self._seen: Set[str] = set()
        self._baseline: Mapping[str, str] = {}
        self._threads: Callable[[], None] = _nothing

    # In a zygote

    def set(self, name: str, value: str) -> None:
        """Have the imports that follow see this variable."""
        if name not in _OWN:
            os.environ[name] = value
        self._sets[name] = value

    def bring(self, name: str) -> None:
        """Import a module, and remember how. Raises what that raises; what was imported until then counts."""
        known, before, asked = set(sys.modules), dict(os.environ), set()
        original = builtins.__import__

        def noting(name: str, *args: Any, **kwargs: Any) -> Any:
            asked.add(name)
            return original(name, *args, **kwargs)

        builtins.__import__ = noting
        try:
            importlib.import_module(name)
        finally:
            builtins.__import__ = original
            for module in set(sys.modules) - known:
                self._step_of[module] = len(self._steps)
            self._steps.append(_Step(dict(self._sets), difference(before, os.environ), asked))

    # In a child

    def begin(self, threads: Callable[[], None]) -> None:
        """The model's code is about to run: what it changes from here on is its own doing.

        threads: gives libraries that were loaded pinned to one thread what os.environ asks for.
        """
        self._baseline = dict(os.environ)
        self._threads = threads

    def check(self, names: Iterable[str]) -> None:
        """An import of these modules: raises Steered where one was preloaded under other variables."""
        for name in names:
            parts = name.split(".")
            for count in range(1, len(parts) + 1):
                module = ".".join(parts[:count])
                if module not in self._seen:
                    self._seen.add(module)
                    if module in self._step_of:
                        self._look(module)

    def absorb(self, before: Mapping[str, str]) -> None:
        """A library that was imported just now has changed the environment: no doing of the model's."""
        made = difference(before, os.environ)
        if made:
            self._baseline = applied(self._baseline, made)

    def _look(self, module: str) -> None:
        step = self._steps[self._step_of[module]]
        changed = difference(self._baseline, os.environ)
        if not _OWN.isdisjoint(changed):
            self._threads()
        now = {name: value for name, value in changed.items() if name not in _OWN}
        then = {name: value for name, value in step.sets.items() if name not in _OWN}
        # A variable that the model "sets" to what its environment says anyway steers nothing.
        then = {name: value for name, value in then.items() if self._baseline.get(name) != value}
        if now != then:
            self.stale = Steered(module, _told(module, now, then))
            raise self.stale
        self._take_effects(module, set())

    def _take_effects(self, module: str, done: Set[int]) -> None:
        index = self._step_of.get(module)
        if index is None or index in done:
            return
        done.add(index)
        for asked in self._steps[index].asked:
            self._take_effects(asked, done)
        effects = {name: value for name, value in self._steps[index].effects.items() if name not in _OWN}
        apply(effects)
        self._baseline = applied(self._baseline, effects)


def difference(before: Mapping[str, str], now: Mapping[str, str]) -> Changes:
    """What was set, and what was removed (None)."""
    changed: Changes = {name: value for name, value in now.items() if before.get(name) != value}
    changed.update((name, None) for name in before if name not in now)
    return changed


def apply(changes: Changes) -> None:
    """Change this process's environment, but for what a zygote sets for itself."""
    for name, value in changes.items():
        if name in _OWN:
            continue
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def applied(environment: Mapping[str, str], changes: Changes) -> Dict[str, str]:
    merged = {**environment, **changes}
    return {name: value for name, value in merged.items() if value is not None}


def watching(steering: Steering) -> Callable[[str], Any]:
    """importlib.import_module, checked: it does not go through `__import__`."""
    original = importlib.import_module

    def import_module(name: str, package: Optional[str] = None) -> Any:
        if not name.startswith("."):
            steering.check([name])
        return original(name, package)

    return import_module


def _nothing() -> None:
    """Where no library was pinned."""


def _told(module: str, now: Changes, then: Changes) -> str:
    """One sentence with the first variable that differs; a value may be a secret, so names only."""
    name = min(key for key in {**now, **then} if now.get(key, _OWN) != then.get(key, _OWN))
    return f"{module} was preloaded under another value of the environment variable {name}"
