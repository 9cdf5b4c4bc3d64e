"""Finding the model in the user's main.py. It imports main and looks; it calls nothing of the user's.

1. `entry: main:Digits` in config.yaml decides; a name that is not there is an error.
2. Otherwise the candidates are: the module's own functions (together one model), each class that builds on
   sandbox.Model or a community base, wherever in the directory it was written.
3. Where there are none: each class written in main.py that has one of the methods.
4. Where there is nothing else: an ASGI application of the name `app`.
5. A class that another candidate builds on does not count. Exactly one must remain.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from types import ModuleType
from typing import Any, Dict, List, NamedTuple, Optional

from sandbox.failure import Source
from sandbox.model import Model

FUNCTIONS = ("predict", "predict_batch", "chat", "embed")
METHODS = (*FUNCTIONS, "on_chat_messages")
_EXPECTED = (
    "expected a function predict, predict_batch, chat or embed, "
    "a class that builds on sandbox.Model, a class with a method predict, or an ASGI application app"
)


class NoMainError(Exception):
    """A model directory without main.py."""


class NoModelError(Exception):
    """main.py defines no model."""


class ManyModelsError(Exception):
    """main.py defines several models and entry does not choose."""


class Found(NamedTuple):
    """factory: the class to instantiate, or None where the module's functions are the model."""

    module: ModuleType
    factory: Optional[type]

    @property
    def description(self) -> str:
        """The docstring of the class, or else of the module."""
        own = self.factory.__doc__ if self.factory is not None and not _inherits_doc(self.factory) else None
        return inspect.cleandoc(own or self.module.__doc__ or "")


def find(source: Source, entry: Optional[str]) -> Found:
    """Import main and find the model. Raises what importing raises, and the three errors above."""
    if not os.path.isfile(os.path.join(source.tree, "main.py")):
        raise NoMainError("there is no main.py in the model directory; the model goes there")
    module_name, _, name = (entry or "main").partition(":")
    sys.modules.pop(module_name, None)
    module = importlib.import_module(module_name)
    if name:
        return _named(module, name)
    candidates = _candidates(module, source)
    if len(candidates) == 1:
        return next(iter(candidates.values()))
    if not candidates and application(Found(module, None), None) is not None:
        return Found(module, None)
    if not candidates:
        raise NoModelError(f"{module_name}.py defines no model: {_EXPECTED}{_near(module)}")
    names = ", ".join(candidates)
    example = next(name for name, found in candidates.items() if found.factory is not None)
    raise ManyModelsError(
        f"{module_name}.py defines several models: {names}; "
        f"choose one in config.yaml, for example `entry: {module_name}:{example}`"
    )


def _named(module: ModuleType, name: str) -> Found:
    target = getattr(module, name, None)
    if isinstance(target, type):
        if not _has_methods(target):
            raise NoModelError(f"entry names the class {name}, which has no method of {', '.join(METHODS)}")
        return Found(module, target)
    if name in FUNCTIONS and callable(target):
        return Found(module, None)
    present = ", ".join(name for name in vars(module) if not name.startswith("_")) or "nothing"
    raise NoModelError(f"entry names {name}, and {module.__name__}.py has no such class or function; it has {present}")


def _candidates(module: ModuleType, source: Source) -> Dict[str, Found]:
    classes = [value for name, value in vars(module).items() if isinstance(value, type) and not name.startswith("_")]
    usable = [kind for kind in dict.fromkeys(classes) if _has_methods(kind) and not inspect.isabstract(kind)]
    found: Dict[str, Found] = {}
    functions = [name for name in FUNCTIONS if _is_own_function(module, name, source)]
    if functions:
        found[f"the function{'s' if len(functions) > 1 else ''} {' and '.join(functions)}"] = Found(module, None)
    own = [kind for kind in usable if issubclass(kind, Model) and _is_users(kind, source)]
    if not found and not own:
        own = [kind for kind in usable if kind.__module__ == module.__name__]
    for kind in own:
        if not any(other is not kind and issubclass(other, kind) for other in own):
            found[kind.__name__] = Found(module, kind)
    return found


def _is_own_function(module: ModuleType, name: str, source: Source) -> bool:
    """Whether it was written in this directory; an imported `sklearn.predict` would be an accident."""
    value = vars(module).get(name)
    if value is None or isinstance(value, type) or not callable(value):
        return False
    if not inspect.isfunction(value):
        return True  # a functools.partial, an object that is called: somebody put it under this name
    home = sys.modules.get(value.__module__ or module.__name__)
    return home is None or source.relative(getattr(home, "__file__", None)) is not None


def _is_users(kind: type, source: Source) -> bool:
    home = sys.modules.get(kind.__module__)
    return source.relative(getattr(home, "__file__", None)) is not None


def _has_methods(kind: type) -> bool:
    return any(callable(getattr(kind, name, None)) for name in METHODS)


def _inherits_doc(kind: type) -> bool:
    return any(kind.__doc__ == base.__doc__ for base in kind.__mro__[1:] if base is not object)


def _near(module: ModuleType) -> str:
    """What main.py does have, where its author may have meant something else."""
    wanted: List[str] = []
    for name, value in vars(module).items():
        if isinstance(value, type) and issubclass(value, Model) and value.__module__ == module.__name__:
            wanted.append(f"class {name} has none of the methods {', '.join(METHODS)}")
        elif inspect.isfunction(value) and value.__module__ == module.__name__:
            wanted.append(f"function {name}")
    return f"; it has {'; '.join(wanted[:5])}" if wanted else ""


def application(found: Found, instance: Any) -> Any:
    """The ASGI application that the model exposes as `app`, its own attribute or its module's; or None."""
    for owner in (instance, found.module):
        app = getattr(owner, "app", None)
        if callable(app) and (inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(type(app).__call__)):
            return app
    return None


def hook(found: Found, instance: Any, name: str) -> Any:
    """The model's own `load`, `on_chat_start`…: a method of its instance, or a function of its module; or None."""
    owner = instance if found.factory is not None else found.module
    value = getattr(owner, name, None)
    return value if callable(value) else None
