"""What a model may build on: the base class and the result with extras. It knows nothing of how they are served."""

from __future__ import annotations

import contextvars
import logging
import os
import pathlib
import sys
from typing import Any, Dict, Optional

# The context of the request that is running here, or None outside of one. A dict, so that the threads and tasks that
# a request starts (each with a copy of the context variables) still share it.
request_context: contextvars.ContextVar[Optional[Dict[str, Any]]] = contextvars.ContextVar(
    "sandbox_request_context", default=None
)


class Prediction:
    """A result with its extras: `Prediction(7, confidence=0.93, details={"runner_up": 1})`.

    confidence: 0…1. In a chat, `details` may carry the model's own "usage" and "finish_reason".
    """

    __slots__ = ("confidence", "details", "value")

    def __init__(
        self, value: Any, confidence: Optional[float] = None, details: Optional[Dict[str, Any]] = None
    ) -> None:
        self.value = value
        self.confidence = confidence
        self.details = details

    def __repr__(self) -> str:
        return f"Prediction({self.value!r}, confidence={self.confidence!r}, details={self.details!r})"


class Contextual:
    """The context of a request: values that its hooks, its call and their threads share, and no other request sees."""

    def set_context(self, key: str, value: Any) -> None:
        """Remember `value` for the rest of this request (outside of a request: for as long as the model lives)."""
        context_of(self)[key] = value

    def get_context(self, key: Optional[str] = None, default: Any = None) -> Any:
        """The value under `key`, or `default`; without a key, the whole context as a dict."""
        context = context_of(self)
        return context if key is None else context.get(key, default)

    def clear_context(self) -> None:
        """Forget everything that this request remembered."""
        context_of(self).clear()


class Model(Contextual):
    """The base class that a model may have. `load` runs once per worker before it takes traffic, `predict` per call.

    config: all of config.yaml. model_dir: the generation's read-only snapshot. data_dir: the model's data folder.
    preloaded: what preload.py returned, or None. All are set before `__init__` runs.
    """

    config: Dict[str, Any]
    model_dir: pathlib.Path
    data_dir: pathlib.Path
    logger: logging.Logger
    preloaded: Any

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Model:  # noqa: PYI034 - typing.Self is newer than Python 3.9
        """Make the model usable by hand too (in its author's own tests), where nobody calls `place`."""
        instance = super().__new__(cls)
        module_file = getattr(sys.modules.get(cls.__module__), "__file__", None)
        folder = os.path.dirname(os.path.abspath(module_file)) if module_file else os.getcwd()
        place(instance, folder=folder, config={}, name=cls.__name__, preloaded=None)
        return instance


_preloaded: Any = None


def preloaded() -> Any:
    """What preload.py returned, or None: for models that are functions. A class has it as `self.preloaded`."""
    return _preloaded


def keep(value: Any) -> None:
    """Have `preloaded` return this."""
    global _preloaded  # noqa: PLW0603 - one model per process
    _preloaded = value


def place(instance: object, *, folder: str, config: Dict[str, Any], name: str, preloaded: Any) -> None:
    """Give a model its surroundings. A class with __slots__ or a read-only attribute keeps what it has."""
    model_dir = pathlib.Path(folder)
    data_folder = getattr(type(instance), "data_folder", None)
    values = {
        "config": config,
        "model_dir": model_dir,
        "data_dir": data_folder(model_dir) if callable(data_folder) else model_dir / "data",
        "logger": logging.getLogger(name),
        "preloaded": preloaded,
    }
    for attribute, value in values.items():
        try:
            setattr(instance, attribute, value)
        except AttributeError:
            continue  # the class does not want it: a plain class owes us nothing


def context_of(instance: object) -> Dict[str, Any]:
    """The context that counts here: the running request's, or outside of one the model's own, lasting one."""
    running = request_context.get()
    return lasting_context(instance) if running is None else running


def lasting_context(instance: object) -> Dict[str, Any]:
    """What the model's `__init__` and `load` put into its context: every request starts with a copy of it."""
    try:
        lasting: Dict[str, Any] = instance.__dict__.setdefault("_lasting_context", {})
    except AttributeError:  # a class with __slots__ keeps none
        return {}
    return lasting
