"""The page of `GET /docs`: what the gateway and its models answer, to be read and tried. It reads /openapi.json."""

from __future__ import annotations

import functools
from importlib.resources import files


@functools.cache
def page() -> bytes:
    """The page; it loads nothing from anywhere else."""
    return (files("orchestrator") / "templates" / "docs.html").read_bytes()
