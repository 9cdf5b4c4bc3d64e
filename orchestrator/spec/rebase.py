"""Paths of another file, which are relative to that file's directory, made relative to ours. Pure."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from orchestrator.spec.nodes import Items, Leaf, Node, Table

_Change = Callable[[str], str]


def model(node: Node, theirs: str, ours: str) -> Node:
    """A model's paths."""
    if theirs == ours:
        return node

    def moved(path: str) -> str:
        return _moved(path, theirs, ours)

    if not isinstance(node, Table):
        return _text(node, moved)  # the short form
    entries = dict(node.entries)
    for key, change in (("path", _text), ("env_file", _env_file), ("volumes", _volumes)):
        if key in entries:
            entries[key] = change(entries[key], moved)
    return node.with_entries(entries, node.keys)


def secret(node: Node, theirs: str, ours: str) -> Node:
    """A secret's file."""
    if theirs == ours or not isinstance(node, Table) or "file" not in node.entries:
        return node
    return node.having("file", _text(node.entries["file"], lambda path: _moved(path, theirs, ours)))


def _moved(path: str, theirs: str, ours: str) -> str:
    if not path or os.path.isabs(path) or path == "~" or path.startswith("~/"):
        return path
    moved = os.path.relpath(os.path.join(theirs, path), ours)
    return moved if moved.startswith("..") else f"./{moved}"


def _text(node: Node, change: _Change) -> Node:
    if isinstance(node, Leaf) and isinstance(node.value, str):
        return replace(node, value=change(node.value))
    return node


def _env_file(node: Node, change: _Change) -> Node:
    if isinstance(node, Items):
        return replace(node, items=tuple(_env_file(item, change) for item in node.items))
    if isinstance(node, Table) and "path" in node.entries:
        return node.having("path", _text(node.entries["path"], change))
    return _text(node, change)


def _volumes(node: Node, change: _Change) -> Node:
    if not isinstance(node, Items):
        return node
    return replace(node, items=tuple(_volume(item, change) for item in node.items))


def _volume(node: Node, change: _Change) -> Node:
    if isinstance(node, Table) and "source" in node.entries:
        return node.having("source", _text(node.entries["source"], change))

    def source(volume: str) -> str:
        path, colon, rest = volume.partition(":")
        return f"{change(path)}{colon}{rest}" if path.startswith(".") else volume

    return _text(node, source)
