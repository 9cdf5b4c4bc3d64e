"""Reads YAML text into plain values, remembering where each stood; knows no key of ours.

YAML 1.2 core schema: `no`, `on` and dates are text, `0o17` is a number. Merge keys (`<<`) work as in Compose. A key
written twice, a tag that is not known and an alias that contains itself are refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, cast, get_args

from yaml.error import MarkedYAMLError, YAMLError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.reader import ReaderError
from yaml.resolver import BaseResolver

from orchestrator.errors import SpecError
from orchestrator.spec.nodes import Items, Leaf, Table, Tag, plain
from orchestrator.spec.nodes import Node as Value

try:  # libyaml reads a file of a hundred models ten times faster; wheels of PyYAML carry it
    from yaml.cyaml import CParser as _Parser  # type: ignore[attr-defined]
except ImportError:  # pragma: no cover - only where PyYAML was built without libyaml
    from orchestrator.spec.pureyaml import Parser as _Parser  # type: ignore[assignment]

KeyPath = tuple[str | int, ...]

# What a text value stands for; its key path and its place are for messages.
ReadText = Callable[[str, KeyPath, str], str]

_TAG = "tag:yaml.org,2002:"
_LARGEST = 100_000  # values after aliases are followed: a small file of nested aliases must not fill the memory
_DEEPEST = 100
_CORE = (
    ("null", re.compile(r"(?:null|Null|NULL|~|)\Z")),
    ("bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")),
    ("int", re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z")),
    (
        "float",
        re.compile(
            r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
        ),
    ),
    ("merge", re.compile(r"<<\Z")),
)


class YamlInt(int):
    """A whole number that remembers how it was written (`3.10` as a version, `007` as text)."""

    text: str


class YamlFloat(float):
    """A number that remembers how it was written."""

    text: str


class _Loader(_Parser, BaseResolver):
    """Composes nodes with marks; scalars get the tags of the core schema."""

    def __init__(self, text: str) -> None:
        _Parser.__init__(self, text)
        BaseResolver.__init__(self)

    def resolve(self, kind: type[Node], value: str | None, implicit: Any) -> str:
        if kind is MappingNode:
            return f"{_TAG}map"
        if kind is SequenceNode:
            return f"{_TAG}seq"
        if implicit[0]:  # plain: neither quoted nor a block
            return _core_tag(value or "")
        return f"{_TAG}str"


def _core_tag(text: str) -> str:
    """The tag of a plain scalar."""
    return next((f"{_TAG}{tag}" for tag, form in _CORE if form.match(text)), f"{_TAG}str")


class Document:
    """One YAML file. `file` is its name for people; where() answers for key paths even of an invalid file.

    merge_tags: whether `!reset` and `!override` are known in it.
    """

    def __init__(self, text: str, file: str, *, merge_tags: bool = False) -> None:
        self.file = file
        self.merge_tags = merge_tags
        self._entries: dict[int, dict[str, tuple[Node, Node]]] = {}
        try:
            self._root = _Loader(text).get_single_node()
        except MarkedYAMLError as error:
            raise self._syntax_error(error) from error
        except ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            raise SpecError(
                "yaml-syntax", f"{error.reason}", hint="save it as UTF-8 text", at=f"{file}:{line}"
            ) from error
        except (YAMLError, RecursionError) as error:
            raise SpecError("yaml-syntax", "is nested too deeply", hint="use fewer levels", at=file) from error

    def value(self, read: ReadText | None = None) -> Any:
        """The whole document; None where it is empty. `read` is given each text value, its key path and place."""
        return plain(self.tree(read))

    def tree(self, read: ReadText | None = None) -> Value:
        """The same with its places."""
        if self._root is None:
            return Leaf(None, self.at(None))
        try:
            return _Reading(self, read).value(self._root, ())
        except RecursionError as error:  # a chain of hundreds of merges, each of the one before
            raise SpecError("yaml-syntax", "is nested too deeply", hint="use fewer levels", at=self.file) from error

    def where(self, path: Sequence[str | int] | str) -> str:
        """`sandbox.yaml:12` for a key path (a sequence, or text with dots); its nearest ancestor where it is absent."""
        parts: Sequence[str | int] = path.split(".") if isinstance(path, str) else path
        node, mark = self._root, self._root
        for part in parts:
            match node:
                case MappingNode():
                    found = self._lenient(node).get(str(part))
                    if found is None:
                        break
                    mark, node = found
                case SequenceNode() if str(part).isdigit() and int(part) < len(node.value):
                    mark = node = node.value[int(part)]
                case _:
                    break
        return self.at(mark)

    def at(self, node: Node | None) -> str:
        """`sandbox.yaml:12` for a node."""
        return f"{self.file}:{1 if node is None else node.start_mark.line + 1}"

    def entries(self, node: MappingNode) -> dict[str, tuple[Node, Node]]:
        """A mapping's keys, merges followed, each with its key's and its value's node.

        Raises SpecError("duplicate-key", "yaml-syntax").
        """
        if id(node) not in self._entries:
            self._entries[id(node)] = {}  # what a merge that contains itself finds
            self._entries[id(node)] = self._read_entries(node)
        return self._entries[id(node)]

    def _lenient(self, node: MappingNode) -> dict[str, tuple[Node, Node]]:
        try:
            return self.entries(node)
        except (SpecError, RecursionError):
            return {str(key.value): (key, value) for key, value in node.value if isinstance(key, ScalarNode)}

    def _read_entries(self, node: MappingNode) -> dict[str, tuple[Node, Node]]:
        own: dict[str, tuple[Node, Node]] = {}
        merged: dict[str, tuple[Node, Node]] = {}
        merges = 0
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                raise SpecError(
                    "yaml-syntax",
                    "a key must be plain text, not a list or mapping",
                    hint="put a key that starts with [, { or ? in quotes",
                    at=self.at(key),
                )
            if key.tag == f"{_TAG}merge":
                merges += 1
                for source in self._merge_sources(value):
                    for name, entry in self.entries(source).items():
                        merged.setdefault(name, entry)
            if key.value in own or merges > 1:
                raise SpecError(
                    "duplicate-key",
                    f"{key.value}: is written twice in one mapping",
                    hint="remove one of the two; YAML would silently take the last",
                    at=self.at(key),
                )
            if key.tag != f"{_TAG}merge":
                own[key.value] = (key, value)
        return {**merged, **own}

    def _merge_sources(self, value: Node) -> list[MappingNode]:
        sources = value.value if isinstance(value, SequenceNode) else [value]
        for source in sources:
            if not isinstance(source, MappingNode):
                raise SpecError(
                    "yaml-syntax",
                    "<<: merges a mapping or a list of mappings",
                    hint="name an anchor: `<<: *defaults`",
                    at=self.at(source),
                )
        return list(sources)

    def _syntax_error(self, error: MarkedYAMLError) -> SpecError:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or "is not valid YAML"
        hint = "check quotes, brackets and indentation here and on the line above"
        if "cannot start any token" in problem:
            hint = "indent with spaces, never with tabs; quote a value that starts with @, ` or %"
        if "another document" in problem:
            problem, hint = "holds a second document", "remove the line `---`: one document per file"
        if "undefined alias" in problem:
            hint = "define the anchor (`&name`) above its use (`*name`)"
        return SpecError("yaml-syntax", problem, hint=hint, at=f"{self.file}:{mark.line + 1 if mark else 1}")


class _Reading:
    """One walk from nodes to values: counts them, and knows which node it is inside."""

    def __init__(self, document: Document, read: ReadText | None) -> None:
        self.document = document
        self.read = read
        self.count = 0
        self.inside: set[int] = set()

    def value(self, node: Node, path: KeyPath) -> Value:
        self.count += 1
        if self.count > _LARGEST:
            raise SpecError(
                "yaml-syntax", f"holds more than {_LARGEST} values", hint="use fewer aliases", at=self.document.at(node)
            )
        if len(path) > _DEEPEST:
            raise SpecError(
                "yaml-syntax", f"holds more than {_DEEPEST} levels", hint="use fewer levels", at=self.document.at(node)
            )
        at = self.document.at(node)
        tag = cast("Tag", node.tag) if self.document.merge_tags and node.tag in get_args(Tag) else ""
        if tag == "!reset":
            return Leaf(None, at, tag)
        if isinstance(node, ScalarNode):
            return Leaf(self.scalar(node, path, _core_tag(node.value) if tag else node.tag), at, tag)
        if id(node) in self.inside:
            raise SpecError(
                "yaml-syntax", "an alias contains itself", hint="remove the inner *alias", at=self.document.at(node)
            )
        if not tag and node.tag not in {f"{_TAG}map", f"{_TAG}seq"}:
            raise self.unknown_tag(node)
        self.inside.add(id(node))
        try:
            if isinstance(node, MappingNode):
                entries = self.document.entries(node).items()
                values = {name: self.value(child, (*path, name)) for name, (_, child) in entries}
                return Table(values, {name: self.document.at(key) for name, (key, _) in entries}, at, tag)
            return Items(tuple(self.value(child, (*path, index)) for index, child in enumerate(node.value)), at, tag)
        finally:
            self.inside.discard(id(node))

    def scalar(self, node: ScalarNode, path: KeyPath, tag: str) -> Any:
        text: str = node.value
        try:
            match tag.removeprefix(_TAG):
                case "str" | "merge":
                    return text if self.read is None else self.read(text, path, self.document.at(node))
                case "null":
                    return None
                case "bool" if text.lower() in {"true", "false"}:
                    return text.lower() == "true"
                case "int":
                    return _whole(text)
                case "float":
                    return _number(text)
                case _:
                    raise self.unknown_tag(node)
        except ValueError as error:
            raise SpecError(
                "wrong-type",
                f"{_dotted(path)}{text[:40]!r} cannot be read as a number",
                hint="put it in quotes",
                at=self.document.at(node),
            ) from error

    def unknown_tag(self, node: Node) -> SpecError:
        tag = node.tag.replace(_TAG, "!!")
        return SpecError(
            "yaml-syntax", f"the tag {tag} is not known here", hint="remove the tag", at=self.document.at(node)
        )


def _whole(text: str) -> YamlInt:
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    number = YamlInt(text if base == 10 else text[2:], base)
    number.text = text
    return number


def _number(text: str) -> YamlFloat:
    match text.lstrip("+-").lower():
        case ".inf":
            number = YamlFloat(-math.inf if text.startswith("-") else math.inf)
        case ".nan":
            number = YamlFloat(math.nan)
        case _:
            number = YamlFloat(text)
    number.text = text
    return number


def _dotted(path: KeyPath) -> str:
    return f"{'.'.join(map(str, path))}: " if path else ""
