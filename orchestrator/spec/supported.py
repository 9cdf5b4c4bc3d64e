"""Keys that parse but whose effect is not built in this release: accepted at their default, refused otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from orchestrator.spec.models import SandboxSpec
from orchestrator.spec.problems import Problem
from orchestrator.spec.yaml import KeyPath

# Key paths as schema.keys writes them. Whoever builds one removes its line.
NOT_SUPPORTED: tuple[str, ...] = ("models.*.gpus", "models.*.healthcheck")


def not_supported(spec: SandboxSpec) -> list[Problem]:
    """A problem for each key of NOT_SUPPORTED that is set to other than its default."""
    found = [
        Problem(path, "not-supported", "is not supported yet", "remove it; this release knows only its default")
        for pattern in NOT_SUPPORTED
        for path in _set(spec, pattern.split("."), ())
    ]
    if spec.gateway.workers > 1:  # each would count for itself
        hint = "set gateway.workers to 1, or remove the limit"
        limits: list[KeyPath] = [("gateway", "rate_limit")] if spec.gateway.rate_limit is not None else []
        for index, key in enumerate(spec.gateway.api_keys):
            limits += [("gateway", "api_keys", index, "rate_limit")] if key.rate_limit is not None else []
        found += [Problem(path, "not-supported", "is not supported yet with workers", hint) for path in limits]
    return found


def _set(value: Any, pattern: list[str], path: KeyPath) -> Iterator[KeyPath]:
    part, rest = pattern[0], pattern[1:]
    if part == "*":
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, child in items:
            yield from _set(child, rest, (*path, name))
    elif isinstance(value, BaseModel):
        child = getattr(value, part)
        if rest:
            yield from _set(child, rest, (*path, part))
        elif child != type(value).model_fields[part].get_default():
            yield (*path, part)
