"""Importing the user's files from a snapshot: never from bytecode, and bearing the path that the user knows.

Timestamp bytecode runs old code when two saves of equal size fall into one second, so none is read or written for the
user's own files. Code objects, tracebacks and `inspect.getsource` show the user's path with the snapshot's lines.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib
import importlib.machinery
import importlib.util
import itertools
import linecache
import os
import sys
from collections.abc import Iterable
from types import CodeType, ModuleType
from typing import Any, Iterator, List, Optional, Set

from sandbox import wire
from sandbox.failure import Source
from sandbox.steering import Steering, watching

_THIRD_PARTY = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


class UserLoader(importlib.machinery.SourceFileLoader):
    """Loads one file of the model directory."""

    source: Source

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code

    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> CodeType:  # type: ignore[override] # typeshed: static
        relative = self.source.relative(path)
        shown = f"{self.source.shown}/{relative}" if relative else path
        text = importlib.util.decode_source(bytes(data))
        # Without a modification time linecache never looks at the disk again, where newer lines may stand by now.
        linecache.cache[shown] = (len(text), None, text.splitlines(keepends=True), shown)
        code: CodeType = compile(data, shown, "exec", dont_inherit=True, optimize=_optimize)
        return code


def prepare(source: Source) -> None:
    """Put the snapshot first on the path, its files loaded by UserLoader, and make it the working directory."""
    tree = source.tree
    loader = type("UserLoader", (UserLoader,), {"source": source})
    find = importlib.machinery.FileFinder.path_hook(
        (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES),
        (loader, importlib.machinery.SOURCE_SUFFIXES),
    )

    def hook(path: str) -> Any:
        if _beneath(tree, path):
            return find(path)
        raise ImportError(f"{path} is not in the model directory")

    sys.path_hooks.insert(0, hook)
    sys.path.insert(0, tree)
    _forget(tree)
    os.chdir(tree)
    _forget_namesakes(tree)


@contextlib.contextmanager
def visiting(source: Source) -> Iterator[None]:
    """As `prepare`, for a while: afterwards no file of the user's is imported."""
    path, hooks, folder = list(sys.path), list(sys.path_hooks), os.getcwd()
    prepare(source)
    try:
        yield
    finally:
        sys.path[:], sys.path_hooks[:] = path, hooks
        os.chdir(folder)
        _forget(source.tree)
        for name in users_modules(source.tree):
            del sys.modules[name]


def users_modules(tree: str) -> Set[str]:
    """Names of the imported modules that are files or folders of this snapshot."""
    return {name for name, module in list(sys.modules.items()) if any(_beneath(tree, path) for path in _paths(module))}


class Imports:
    """Which third-party modules a next zygote should import: dotted names. A context manager around import and load.

    They are those that the user's own import statements name, whether or not they were loaded before, and those that
    came into `sys.modules` meanwhile: unpickling a model imports a library that no statement names. In a fork of a
    zygote that has them already nothing comes, so whoever learns from this adds to what it knows.
    """

    def __init__(self, tree: str, steering: Optional[Steering] = None) -> None:
        self._tree = tree
        self._steering = steering or Steering()
        self._names: Set[str] = set()
        self._last = ""
        self._count = 0
        self._original: Any = None

    def __enter__(self) -> Imports:  # noqa: PYI034 - typing.Self is newer than Python 3.9
        self._original = original = builtins.__import__
        names, steering = self._names, self._steering
        self._last, self._count = next(reversed(sys.modules)), len(sys.modules)
        inside = [False]

        def recorded(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:  # noqa: A002
            if level or inside[0]:
                return original(name, globals, locals, fromlist, level)
            steering.check([name, *(f"{name}.{item}" for item in fromlist or ())])
            if not (globals and isinstance(globals.get("__loader__"), UserLoader)) or self._is_users(name):
                return original(name, globals, locals, fromlist, level)
            environment, inside[0] = dict(os.environ), True
            try:
                module = original(name, globals, locals, fromlist, level)
            finally:
                inside[0] = False
            steering.absorb(environment)
            names.add(name)
            names.update(f"{name}.{item}" for item in fromlist or () if f"{name}.{item}" in sys.modules)
            return module

        self._recorded = recorded
        self._patched = importlib.import_module
        builtins.__import__ = recorded
        self._watching: Any = watching(steering)
        setattr(importlib, "import_module", self._watching)  # noqa: B010 - mypy knows it as a function
        return self

    def __exit__(self, *_: object) -> None:
        if builtins.__import__ is self._recorded:
            builtins.__import__ = self._original
        if importlib.import_module is self._watching:
            importlib.import_module = self._patched

    def _is_users(self, name: str) -> bool:
        """Whether this name is found in the model directory, which is first on the path."""
        path = os.path.join(self._tree, name.partition(".")[0])
        return os.path.isfile(path + ".py") or os.path.isdir(path)

    def third_party(self) -> List[str]:
        """The dotted names of installed packages among them, the shallow ones first: they bring most of the others."""
        come = {name for name in self._come() if _named(name, sys.modules.get(name))}
        return wire.by_depth(name for name in self._names | come if _is_third_party(sys.modules.get(name)))

    def _come(self) -> List[str]:
        """The modules that are new, found from the end: in a fork, each name that is touched is a page to be copied.

        Where the last of the old ones was dropped, or a thread imports right now, some may be missed: that costs time
        at a later reload, and nothing else.
        """
        if self._last in sys.modules:
            with contextlib.suppress(RuntimeError):  # it changed while we looked
                return list(itertools.takewhile(lambda name: name != self._last, reversed(sys.modules)))
        return list(sys.modules)[self._count :]


def _named(name: str, module: Any) -> bool:
    """Whether importing that name gives that module: aliases and made-up modules are left out."""
    return getattr(getattr(module, "__spec__", None), "name", None) == name


def _is_third_party(module: Any) -> bool:
    return any(part in path + os.sep for path in _paths(module) for part in _THIRD_PARTY)


def _paths(module: Any) -> List[str]:
    """Where a module lies. One that makes up whatever it is asked for (torch.classes) lies nowhere."""
    folders = getattr(module, "__path__", None)
    paths = [getattr(module, "__file__", None), *(folders if isinstance(folders, Iterable) else ())]
    return [path for path in paths if isinstance(path, str)]


def _beneath(tree: str, path: str) -> bool:
    return path == tree or path.startswith(tree + "/")


def _forget(tree: str) -> None:
    for path in [path for path in sys.path_importer_cache if _beneath(tree, path)]:
        del sys.path_importer_cache[path]


def _forget_namesakes(tree: str) -> None:
    """A file of the user's wins over an installed package of its name, also where a zygote had imported that."""
    for entry in os.listdir(tree):
        name = entry.removesuffix(".py")
        loaded: Any = sys.modules.get(name)
        if isinstance(loaded, ModuleType) and _is_third_party(loaded):
            for known in [known for known in sys.modules if known == name or known.startswith(name + ".")]:
                del sys.modules[known]
