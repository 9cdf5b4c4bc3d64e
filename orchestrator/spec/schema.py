"""Which keys a section of ours knows, by key path: `models.*.queue.size`. Read off the pydantic classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel

# Compose's and others' words that have another name, or no place, here.
ELSEWHERE = {
    "services": "models are listed under `models:`",
    "version": "remove it; the file needs no version",
    "ports": "there is one port for all models: gateway.port",
    "expose": "there is one port for all models: gateway.port",
    "image": "models are directories, not images: write path: DIRECTORY",
    "build": "a model's image is made from its requirements.txt; write path: DIRECTORY",
    "command": "a model is started by us; it is found in main.py",
    "entrypoint": "a model is started by us; it is found in main.py",
    "networks": "write network: none, internal or bridge",
    "network_mode": "write network: none, internal or bridge",
    "mem_limit": "write resources: {memory: 512M}",
    "memory": "write resources: {memory: 512M}",
    "cpus": "write resources: {cpus: 1}",
    "pids_limit": "write resources: {pids: 256}",
    "limits": "write resources: {memory: 512M}",
    "reservations": "only limits are enforced here; write limits",
    "bind": "remove it; the host path must be there",
    "container_name": "remove it; the key under `models:` is the name",
    "working_dir": "remove it; a model runs in its own directory",
    "requirements": "list them in requirements.txt in the model's directory",
}


def keys(section: type[BaseModel]) -> Iterator[str]:
    """Every key path of `section`, sections before what they hold; `*` stands for a name or an item."""
    for name, field in section.model_fields.items():
        yield name
        for prefix, below in _sections(field.annotation, name):
            yield from (f"{prefix}.{key}" for key in keys(below))


def keys_at(section: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """The keys that the mapping at `path` may hold; none where it is no section of ours."""
    known = [key.split(".") for key in keys(section)]
    return [
        parts[-1]
        for parts in known
        if len(parts) == len(path) + 1 and all(part in {"*", str(at)} for part, at in zip(parts, path, strict=False))
    ]


def _sections(annotation: Any, prefix: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """The sections that a field's type leads to: itself, an optional one, or the values of a mapping or list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield prefix, annotation
        return
    repeats = getattr(annotation, "__origin__", None) in {dict, tuple}
    for argument in get_args(annotation):
        yield from _sections(argument, f"{prefix}.*" if repeats else prefix)
