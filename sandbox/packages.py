"""Which modules are installed packages of this environment, and not the standard library's or the user's."""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
from typing import Tuple


def folders() -> Tuple[str, ...]:
    """Where packages are installed, real paths, each with a slash at its end."""
    paths = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    paths += [path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages")]
    return tuple({os.path.realpath(path) + os.sep for path in paths})


def installed(name: str, places: Tuple[str, ...]) -> bool:
    """Whether this top-level name is found in one of `places`. May raise what a broken package's finder raises."""
    spec = importlib.util.find_spec(name)
    found = [] if spec is None else [*(spec.submodule_search_locations or []), spec.origin or ""]
    return any(os.path.realpath(place).startswith(places) for place in found)


def wanted(name: str) -> bool:
    """As `installed`, for a name that a file merely mentions: what cannot be told is not wanted."""
    try:
        return installed(name, folders())
    except (ImportError, ValueError, AttributeError):
        return False
