"""Finds in an object what would run a model's old code: instances, classes, functions and modules of its directory.

What native containers hold without telling the collector is not seen; numpy's arrays of objects are looked into.
"""

from __future__ import annotations

import functools
import gc
import types
from typing import Any, List, Optional, Set

from sandbox.failure import Source

# Cannot refer to anything, and there may be millions.
_ATOMS = frozenset((int, float, complex, str, bytes, bytearray, bool, type(None), range, slice, type(...)))
_CODE = ("__code__", "gi_code", "cr_code", "ag_code")


def find(value: Any, modules: Set[str], source: Source) -> Optional[str]:
    """The first such thing in words, or None. modules: names of the modules that came from the model directory."""
    search = _Search(modules, source)
    waiting, seen = [value], set()
    while waiting:
        item = waiting.pop()
        kind = type(item)
        if kind in _ATOMS or id(item) in seen:
            continue
        seen.add(id(item))
        found = search.name(item)
        if found is not None:
            return found
        waiting.extend(_within(item))
    return None


class _Search:
    def __init__(self, modules: Set[str], source: Source) -> None:
        self._modules = modules
        self._source = source

    def name(self, item: Any) -> Optional[str]:
        if isinstance(item, types.ModuleType):
            return f"the module {item.__name__}" if item.__name__ in self._modules else None
        if isinstance(item, type):
            return f"the class {item.__qualname__} of {_home(item)}" if self._is_users(item) else None
        kind = type(item)
        if self._is_users(kind):
            return f"an object of the class {kind.__qualname__} of {_home(kind)}"
        if isinstance(item, types.CodeType):
            return self._code(item, item.co_name)
        for attribute in _CODE:
            code = getattr(item, attribute, None) if kind.__module__ == "builtins" else None
            if isinstance(code, types.CodeType):
                return self._code(code, getattr(item, "__qualname__", code.co_name))
        return None

    def _is_users(self, kind: type) -> bool:
        return any(getattr(each, "__module__", None) in self._modules for each in kind.__mro__)

    def _code(self, code: types.CodeType, name: str) -> Optional[str]:
        file = self._source.relative(code.co_filename)
        return None if file is None else f"the function {name} of {file}"


def _home(kind: type) -> str:
    return f"{kind.__module__.replace('.', '/')}.py"


def _within(item: Any) -> List[Any]:
    """What an object refers to. Classes and modules of others are ends: what they know is not this object's."""
    if isinstance(item, (type, types.ModuleType, types.CodeType)):
        return []
    if isinstance(item, types.FunctionType):
        cells = [cell.cell_contents for cell in item.__closure__ or () if _filled(cell)]
        return [*cells, item.__defaults__, item.__kwdefaults__, item.__dict__]
    found = [each for each in gc.get_referents(item) if each is not type(item)]
    if isinstance(item, functools.partial):
        found += [item.func, item.args, item.keywords]
    if type(item).__module__ == "numpy" and getattr(getattr(item, "dtype", None), "hasobject", False):
        found.append(item.tolist())
    return found


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - raises where it is empty
    except ValueError:
        return False
    return True
