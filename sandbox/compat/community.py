"""The base class of the community format (`from app.models.base import AnythingBaseModel`). No request knowledge."""

from __future__ import annotations

import pathlib
from typing import Any, Dict, Type

from sandbox.model import Model, context_of


class CommunityModel(Model):
    """What a model of that format inherits: attributes and hooks, all of which it may override."""

    def __init__(self) -> None:
        """Take no arguments: everything is set by then, and a subclass calls `super().__init__()`."""

    @staticmethod
    def data_folder(model_dir: pathlib.Path) -> pathlib.Path:
        """`vocab_data/` where that folder exists, else `data/`."""
        vocabulary = model_dir / "vocab_data"
        return vocabulary if vocabulary.is_dir() else model_dir / "data"

    @property
    def context(self) -> Dict[str, Any]:
        """A request's own dict, which starts with what `__init__` and `load` put there; outside of one, theirs."""
        return context_of(self)

    @context.setter
    def context(self, value: Dict[str, Any]) -> None:
        context = context_of(self)
        kept = dict(value)
        context.clear()
        context.update(kept)

    async def on_chat_start(self) -> None:
        """Called before each chat request."""

    async def on_chat_end(self) -> None:
        """Called after each chat request, however it ended."""

    async def on_chat_stop(self) -> None:
        """Called when the client left before the answer was complete."""

    async def on_chat_resume(self, thread: Any) -> None:
        """Part of the format; the sandbox keeps no threads, so nothing calls it."""


def base_named(name: str) -> Type[CommunityModel]:
    """The base class by whatever name ending in BaseModel its users know it."""
    if name.endswith("BaseModel"):
        return CommunityModel
    raise AttributeError(f"module 'app.models.base' has no attribute {name!r}")
