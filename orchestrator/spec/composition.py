"""The files of a project into one tree: each with what its models extend and what it includes, later over earlier.

The order is Compose's: variables first, then `extends` within a file, then `include`, then the merge of the files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import SpecError, near
from orchestrator.spec import rebase
from orchestrator.spec.merge import long_model, merge
from orchestrator.spec.nodes import Items, Leaf, Node, Table, plain, stripped
from orchestrator.spec.problems import of_error
from orchestrator.spec.reading import Reading

# What of an included file counts; the rest of a sandbox is for the file that includes it to say.
IMPORTED = ("models", "secrets")


@dataclass(frozen=True, slots=True)
class Composition:
    """One project, or one that another includes. base: what its relative paths start from. trail: files around it."""

    reading: Reading
    base: str
    variables: Mapping[str, str]
    trail: tuple[str, ...] = ()

    def tree(self, files: Sequence[str], *, at: str = "") -> Table:
        """The files merged. at: where another file names them. Raises SpecError."""
        merged: Node | None = None
        for file in files:
            if file in self.trail:
                raise _circle([*self.trail, file], self.reading, at)
            tree = self.reading.tree(file, self.variables, at=at)
            tree = self._included(self._extended(tree, file), file)
            merged = tree if merged is None else merge(merged, tree)
        found = stripped(merged) if merged is not None else None
        return found if isinstance(found, Table) else Table({}, {}, at)

    # extends

    def _extended(self, tree: Table, file: str) -> Table:
        models = tree.entries.get("models")
        if not isinstance(models, Table):
            return tree
        entries: dict[str, Node] = {}
        for name, model in models.entries.items():
            try:
                entries[name] = self._model(models, name, file, self.base, ())
            except SpecError as error:
                self.reading.problems.append(of_error(("models", name, "extends"), error))
                entries[name] = model.without("extends") if isinstance(model, Table) else model
        return tree.having("models", models.with_entries(entries, models.keys))

    def _model(self, models: Table, name: str, file: str, base: str, trail: tuple[str, ...]) -> Node:
        """A model with all that it extends. base: what `file`'s relative paths start from."""
        model = models.entries[name]
        if not isinstance(model, Table) or "extends" not in model.entries:
            return model
        asked = _Extends.of(model.entries["extends"])
        if asked is None:
            return model  # its form is wrong; the schema says how
        here = f"{self.reading.shown(file)}: {name}"
        if here in trail:
            raise SpecError(
                "dependency-cycle",
                f"goes in a circle: {' → '.join((*trail[trail.index(here) :], here))}",
                hint="remove one of these extends",
                at=asked.at,
            )
        trail = (*trail, here)
        if asked.file is None:
            others, theirs, path = models, base, file
        else:
            path = os.path.normpath(os.path.join(base, asked.file))
            others, theirs = self._models_of(path, asked.at), os.path.dirname(path)
        if asked.service not in others.entries:
            hint = near(asked.service, others.entries) or f"it has {', '.join(others.entries) or 'no models'}"
            message = f"there is no model {asked.service!r} in {self.reading.shown(path)}"
            raise SpecError("unknown-model", message, hint=hint, at=asked.at)
        parent = rebase.model(self._model(others, asked.service, path, theirs, trail), theirs, base)
        return merge(long_model(parent), model.without("extends"), ("models", name))

    def _models_of(self, path: str, at: str) -> Table:
        models = self.reading.tree(path, self.variables, at=at).entries.get("models")
        return models if isinstance(models, Table) else Table({}, {}, at)

    # include

    def _included(self, tree: Table, file: str) -> Table:
        listed = tree.entries.get("include")
        if not isinstance(listed, Items):
            return tree
        for index, item in enumerate(listed.items):
            include = _Include.of(item)
            if include is None:
                continue  # its form is wrong; the schema says how
            try:
                tree = self._import(tree, self._included_tree(include, file))
            except SpecError as error:
                self.reading.problems.append(of_error(("include", index), error))
        return tree

    def _included_tree(self, include: _Include, file: str) -> Table:
        files = [os.path.normpath(os.path.join(self.base, path)) for path in include.paths]
        base = os.path.normpath(os.path.join(self.base, include.directory or os.path.dirname(include.paths[0])))
        variables: Mapping[str, str] = self.variables
        if include.env_files is None:
            variables = self.reading.variables(os.path.join(base, ".env"), variables)
        for env_file in reversed(include.env_files or ()):  # a later file wins, and what is known already over all
            variables = self.reading.variables(os.path.join(self.base, env_file), variables, at=include.at)
        inner = Composition(self.reading, base, variables, (*self.trail, file))
        tree = inner.tree(files, at=include.at)
        self.reading.included.append(tree)
        return self._rebased(tree, base)

    def _rebased(self, tree: Table, base: str) -> Table:
        for key, change in (("models", rebase.model), ("secrets", rebase.secret)):
            section = tree.entries.get(key)
            if isinstance(section, Table):
                entries = {name: change(node, base, self.base) for name, node in section.entries.items()}
                tree = tree.having(key, section.with_entries(entries, section.keys))
        return tree

    def _import(self, tree: Table, included: Table) -> Table:
        """Raises SpecError("duplicate-key") where both say something else of one name."""
        for key in IMPORTED:
            theirs, ours = included.entries.get(key), tree.entries.get(key)
            if not isinstance(theirs, Table):
                continue
            if not isinstance(ours, Table):
                tree = tree.having(key, theirs)
                continue
            for name, node in theirs.entries.items():
                if name in ours.entries and plain(long_model(ours.entries[name])) != plain(long_model(node)):
                    raise SpecError(
                        "duplicate-key",
                        f"{key}.{name} is also at {node.at}, which is included here",
                        hint="change an included model in an override file, or extend it under another name",
                        at=ours.keys[name],
                    )
                if name not in ours.entries:
                    ours = Table({**ours.entries, name: node}, {**ours.keys, name: theirs.keys[name]}, ours.at)
            tree = tree.having(key, ours)
        return tree


@dataclass(frozen=True, slots=True)
class _Extends:
    service: str
    file: str | None
    at: str

    @classmethod
    def of(cls, node: Node) -> _Extends | None:
        match plain(node):
            case str(name) if name:
                return cls(name, None, node.at)
            case {"service": str(name)} as found if len(found) == 1:
                return cls(name, None, node.at)
            case {"service": str(name), "file": str(file)} as found if len(found) == 2 and _names_a_path(file):
                return cls(name, file, node.at)
            case _:
                return None


@dataclass(frozen=True, slots=True)
class _Include:
    """env_files None: the `.env` of its directory, where there is one."""

    paths: tuple[str, ...]
    directory: str | None
    env_files: tuple[str, ...] | None
    at: str

    @classmethod
    def of(cls, node: Node) -> _Include | None:
        if isinstance(node, Leaf):
            alone = _texts(node.value)
            return None if alone is None else cls(alone, None, None, node.at)
        value = plain(node)
        if not isinstance(value, dict) or set(value) - {"path", "project_directory", "env_file"}:
            return None
        paths, env_files = _texts(value.get("path")), _texts(value.get("env_file"))
        directory = value.get("project_directory")
        well_formed = directory is None or _names_a_path(directory)
        if not paths or not well_formed or (env_files is None and value.get("env_file") is not None):
            return None
        return cls(paths, directory, env_files, node.at)


def _texts(value: object) -> tuple[str, ...] | None:
    """One path or a list of them, at least one."""
    items: list[Any] = value if isinstance(value, list) else [value]
    return tuple(items) if items and all(map(_names_a_path, items)) else None


def _names_a_path(value: object) -> bool:
    return isinstance(value, str) and bool(value) and "\0" not in value


def _circle(files: list[str], reading: Reading, at: str) -> SpecError:
    names = " → ".join(reading.shown(file) for file in files[files.index(files[-1]) :])
    return SpecError("dependency-cycle", f"include goes in a circle: {names}", hint="remove one of these", at=at)
