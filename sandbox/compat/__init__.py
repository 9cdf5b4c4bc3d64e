"""Import paths of other communities' model bases, so that their models run unchanged.

It answers `app`, `app.models` and `app.models.base` only, and only where nothing else has that name: the finder stands
last, so a model directory with an `app` package of its own keeps it.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from typing import Any, Optional

_PACKAGES = ("app", "app.models")
_BASE = "app.models.base"


class CommunityFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds and makes the modules that a community model imports its base class from."""

    def find_spec(
        self, fullname: str, _path: Any = None, _target: Any = None
    ) -> Optional[importlib.machinery.ModuleSpec]:
        if fullname in _PACKAGES:
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        if fullname == _BASE:
            return importlib.machinery.ModuleSpec(fullname, self)
        return None

    def create_module(self, _spec: importlib.machinery.ModuleSpec) -> Optional[types.ModuleType]:
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        if module.__name__ == _BASE:
            from sandbox.compat import community

            module.__dict__["__getattr__"] = community.base_named


def install() -> None:
    """Make the community's import paths importable in this process."""
    if not any(isinstance(finder, CommunityFinder) for finder in sys.meta_path):
        sys.meta_path.append(CommunityFinder())
