"""Lays a later file over an earlier one by Compose's rules. Pure: trees in, a tree out.

1. A key that only one of the two has is kept. A key without a value says nothing.
2. Mappings are merged key by key, lists are joined, any other value of the later file replaces the earlier one's.
3. `environment`, `depends_on`, `env_file` and the like have a short and a long form: the forms are made equal first.
4. Where the items of a list have an identity (a volume's target, an env file's path), a later item takes the place
   of an earlier one of the same identity.
5. `!reset` takes the key away, `!override` replaces it whole.

Rules: https://github.com/compose-spec/compose-spec/blob/main/13-merge.md
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from orchestrator.errors import SpecError
from orchestrator.spec.nodes import Items, Leaf, Node, Table
from orchestrator.spec.yaml import KeyPath

_KINDS = {Leaf: "a single value", Table: "a mapping", Items: "a list"}


def merge(base: Node, over: Node, path: KeyPath = ()) -> Node:
    """`over` laid over `base`. What is reset stays as such: it counts against what is still to be merged below it.

    Raises SpecError("wrong-type") where a mapping meets a value.
    """
    if over.tag or base.tag == "!reset":
        return over
    if _empty(over) and not _means_something_empty(path):
        return base
    if _empty(base):
        return over
    form = _FORMS.get(_pattern(path))
    if form is not None:
        base, over = form(base), form(over)
    match base, over:
        case Leaf(), Leaf():
            return over
        case Table(), Table():
            return _tables(base, over, path)
        case Items(), Items():
            return Items(_joined(base, over, _IDENTITIES.get(_pattern(path))), over.at)
        case _:
            raise SpecError(
                "wrong-type",
                f"{'.'.join(map(str, path))}: {_KINDS[type(over)]} cannot be laid over {_KINDS[type(base)]}",
                hint=f"write it as at {base.at}, or replace that with !override",
                at=over.at,
            )


def _tables(base: Table, over: Table, path: KeyPath) -> Table:
    entries = dict(base.entries)
    for name, child in over.entries.items():
        entries[name] = merge(entries[name], child, (*path, name)) if name in entries else child
    keys = {**base.keys, **over.keys}
    keys |= {name: base.keys[name] for name in base.entries if entries[name] is base.entries[name]}
    return Table(entries, keys, over.at)


def _joined(base: Items, over: Items, identity: Callable[[Node], str | None] | None) -> tuple[Node, ...]:
    if identity is None:
        return (*base.items, *over.items)
    found: dict[object, Node] = {}
    for item in (*base.items, *over.items):
        found[identity(item) or id(item)] = item
    return tuple(found.values())


def _empty(node: Node) -> bool:
    return isinstance(node, Leaf) and node.value is None


def _means_something_empty(path: KeyPath) -> bool:
    """`environment: {NAME: }` passes a variable through; it is no absent value."""
    return _pattern(path[:-1]) == "models.*.environment"


def _pattern(path: KeyPath) -> str:
    return ".".join(
        "*" if index == 1 and path[0] in {"models", "secrets"} else str(part) for index, part in enumerate(path)
    )


# The long form of what has a short one.


def long_model(node: Node) -> Node:
    """`hello: model_dirs/hello` as a mapping."""
    if isinstance(node, Leaf) and isinstance(node.value, str):
        return Table({"path": node}, {"path": node.at}, node.at, node.tag)
    return node


def _list(node: Node) -> Node:
    return Items((node,), node.at, node.tag) if isinstance(node, Leaf | Table) else node


def _variables(node: Node) -> Node:
    """`[NAME=value, OTHER]` as a mapping."""
    if not isinstance(node, Items):
        return node
    entries: dict[str, Node] = {}
    for item in node.items:
        if not isinstance(item, Leaf) or not isinstance(item.value, str):
            return node
        name, equals, value = item.value.partition("=")
        entries[name] = Leaf(value if equals else None, item.at)
    return Table(entries, {name: entry.at for name, entry in entries.items()}, node.at, node.tag)


def _dependencies(node: Node) -> Node:
    """`[hello]` as a mapping."""
    if not isinstance(node, Items):
        return node
    entries: dict[str, Node] = {}
    for item in node.items:
        if not isinstance(item, Leaf) or not isinstance(item.value, str):
            return node
        condition: dict[str, Node] = {
            "condition": Leaf("service_healthy", item.at),
            "required": Leaf(value=True, at=item.at),
        }
        entries[item.value] = Table(condition, dict.fromkeys(condition, item.at), item.at)
    return Table(entries, {name: entry.at for name, entry in entries.items()}, node.at, node.tag)


_FORMS: dict[str, Callable[[Node], Node]] = {
    "models.*": long_model,
    "models.*.environment": _variables,
    "models.*.env_file": _list,
    "models.*.tmpfs": _list,
    "models.*.depends_on": _dependencies,
}


# What makes two items of a list the same.


def _text(node: Node) -> str | None:
    return str(node.value) if isinstance(node, Leaf) else None


def _entry(*names: str) -> Callable[[Node], str | None]:
    """The first of these entries that the item has."""

    def identity(node: Node) -> str | None:
        match node:
            case Leaf():
                return str(node.value)
            case Table():
                return next(
                    (str(child.value) for name in names if isinstance(child := node.entries.get(name), Leaf)), None
                )
            case Items():
                return None
            case _:
                assert_never(node)

    return identity


def _target(node: Node) -> str | None:
    """Of a volume."""
    if isinstance(node, Leaf) and isinstance(node.value, str):
        parts = node.value.split(":")
        return parts[1] if len(parts) > 1 else parts[0]
    return _entry("target")(node)


def _secret(node: Node) -> str | None:
    """Where a secret is mounted."""
    name = _entry("target", "source")(node)
    return None if name is None else name.removeprefix("/run/secrets/")


def _tmpfs(node: Node) -> str | None:
    text = _text(node)
    return None if text is None else text.partition(":")[0]


_IDENTITIES: dict[str, Callable[[Node], str | None]] = {
    "allow_outside": _text,
    "gateway.hosts": _text,
    "gateway.origins": _text,
    "gateway.api_keys": _entry("name"),
    "models.*.env_file": _entry("path"),
    "models.*.profiles": _text,
    "models.*.secrets": _secret,
    "models.*.tmpfs": _tmpfs,
    "models.*.volumes": _target,
}
