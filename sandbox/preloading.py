"""Runs preload.py: from a snapshot to what later generations see as `self.preloaded`. No sockets, no fork."""

from __future__ import annotations

import importlib
import inspect
import logging
import os
import pathlib
import sys
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Set

from sandbox import blas, foreign, loader, materials, proc, steering
from sandbox.failure import Source, describe
from sandbox.steering import Steering
from sandbox.steps import PRELOAD


class Preloaded(NamedTuple):
    """environment: what preload.py changed of the environment: it runs before main.py, which sees the same."""

    value: Any
    made_from: materials.Materials
    environment: steering.Changes


class PreloadError(Exception):
    """preload.py failed or was refused. error: {type, message, file, line, traceback}."""

    def __init__(self, error: Dict[str, Any]) -> None:
        super().__init__(f"{error['type']}: {error['message']}")
        self.error = error


class Context:
    """What `preload(ctx)` gets: the model's name, config (all of config.yaml), model_dir, data_dir and logger."""

    def __init__(self, assignment: Mapping[str, Any]) -> None:
        tree = pathlib.Path(assignment["tree"])
        vocabulary = tree / "vocab_data"
        self.name: str = assignment["model"]
        self.config: Dict[str, Any] = assignment.get("config") or {}
        self.model_dir = tree
        self.data_dir = vocabulary if vocabulary.is_dir() else tree / "data"
        self.logger = logging.getLogger(self.name)


def run(assignment: Mapping[str, Any], known: Optional[Steering], *, to_fork: bool) -> Preloaded:
    """Run it. known: how this process came by its modules. to_fork: children will be forked from this process.

    Raises PreloadError. Where a module was preloaded under other variables `known` has it (Steering.stale).
    """
    source = Source(assignment["source"], assignment["tree"])
    before = dict(os.environ)
    reads = _Reads(source)
    folders = materials.listings(assignment)
    try:
        with loader.visiting(source), loader.Imports(source.tree, known), reads:
            function = _function()
            if to_fork:
                blas.pin()
            value = _call(function, Context(assignment))
            users = loader.users_modules(source.tree)
    except PreloadError:
        raise
    except BaseException as error:
        raise PreloadError(describe(error, source)) from error
    found = foreign.find(value, users, source)
    if found is not None:
        message = f"what preload() returns contains {found}: it would run old code after an edit; {_HINT}"
        raise PreloadError(_refusal(message))
    if to_fork and proc.tasks() != 1:
        raise PreloadError(
            _refusal(
                f"{proc.tasks()} threads run after preload(): what is forked from it would hang; end them there, "
                "or set reload.mode: spawn"
            )
        )
    return Preloaded(value, materials.gather(assignment, reads.paths, folders), steering.difference(before, os.environ))


_HINT = "return data (arrays, dicts, objects of installed packages) and wrap it in main.py"


def _function() -> Any:
    module = importlib.import_module("preload")
    function = getattr(module, "preload", None)
    if not callable(function):
        raise PreloadError(_refusal("preload.py has no function preload(ctx)"))
    return function


def _call(function: Any, context: Context) -> Any:
    value = function(context)
    if inspect.iscoroutine(value):
        value.close()
        message = "preload() must be a plain function, not async: no event loop may be left in what is forked"
        raise PreloadError(_refusal(message))
    return value


def _refusal(message: str) -> Dict[str, Any]:
    return {"type": "PreloadRefused", "message": message, "file": PRELOAD, "line": None, "traceback": ""}


class _Reads:
    """The .py files of the model directory that were opened meanwhile, imported or not. A context manager."""

    def __init__(self, source: Source) -> None:
        self.paths: Set[str] = set()
        self._source = source
        self._on: List[bool] = []

    def __enter__(self) -> None:
        self._on.append(True)
        sys.addaudithook(self._hear)

    def __exit__(self, *_: object) -> None:
        self._on.clear()

    def _hear(self, event: str, arguments: Any) -> None:
        if event != "open" or not self._on or not isinstance(arguments[0], (str, bytes)):
            return
        path = os.path.abspath(os.fsdecode(arguments[0]))
        relative = self._source.relative(path) if path.endswith(".py") else None
        if relative is not None:
            self.paths.add(relative)
