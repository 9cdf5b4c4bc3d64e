"""A file's values, each with the place where it was written, so that what is merged can still say which line it was.

It knows no YAML and no key of ours. `at` is for people: `sandbox.yaml:12`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, assert_never

# `!reset` takes away what earlier files say of a key, `!override` stands instead of it.
Tag = Literal["", "!reset", "!override"]


@dataclass(frozen=True, slots=True)
class Leaf:
    """Text, a number, true, false or None."""

    value: Any
    at: str
    tag: Tag = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A mapping. keys: the place of each key."""

    entries: dict[str, Node]
    keys: dict[str, str]
    at: str
    tag: Tag = ""

    def with_entries(self, entries: dict[str, Node], keys: dict[str, str]) -> Table:
        """The same mapping with these entries; a key without a place of its own has its value's."""
        return replace(self, entries=entries, keys={name: keys.get(name, node.at) for name, node in entries.items()})

    def having(self, name: str, node: Node) -> Table:
        """With one entry instead of, or after, those that are there."""
        return self.with_entries({**self.entries, name: node}, self.keys)

    def without(self, name: str) -> Table:
        """Without one entry."""
        return self.with_entries({key: node for key, node in self.entries.items() if key != name}, self.keys)


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    items: tuple[Node, ...]
    at: str
    tag: Tag = ""


Node = Leaf | Table | Items


def plain(node: Node) -> Any:
    """Without the places."""
    match node:
        case Leaf():
            return node.value
        case Table():
            return {name: plain(child) for name, child in node.entries.items()}
        case Items():
            return [plain(child) for child in node.items]
        case _:
            assert_never(node)


def where(node: Node, path: Sequence[str | int] | str) -> str:
    """The place of a key path (a sequence, or text with dots); its nearest ancestor's where it is absent.

    An item of a list is found by its number, or by its text (`depends_on.digits` where the file lists names).
    """
    parts: Sequence[str | int] = path.split(".") if isinstance(path, str) else path
    at = node.at
    for part in parts:
        match node:
            case Table() if str(part) in node.entries:
                at, node = node.keys[str(part)], node.entries[str(part)]
            case Items():
                found = _item(node, str(part))
                if found is None:
                    break
                node, at = found, found.at
            case _:
                break
    return at


def _item(node: Items, part: str) -> Node | None:
    if part.isdigit() and int(part) < len(node.items):
        return node.items[int(part)]
    return next((item for item in node.items if isinstance(item, Leaf) and item.value == part), None)


def stripped(node: Node) -> Node:
    """Without what is reset, and without tags."""
    match node:
        case Leaf():
            return replace(node, tag="") if node.tag else node
        case Table():
            kept = {name: stripped(child) for name, child in node.entries.items() if child.tag != "!reset"}
            return replace(node.with_entries(kept, node.keys), tag="")
        case Items():
            kept_items = tuple(stripped(child) for child in node.items if child.tag != "!reset")
            return replace(node, items=kept_items, tag="")
        case _:
            assert_never(node)
