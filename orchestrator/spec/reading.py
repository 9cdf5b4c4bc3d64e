"""Reads YAML files and env files into trees and variables, and remembers what it read and what was wrong with it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.errors import SpecError
from orchestrator.spec import dotenv
from orchestrator.spec.interpolate import Use, interpolate, uses
from orchestrator.spec.nodes import Leaf, Table
from orchestrator.spec.paths import contains
from orchestrator.spec.problems import Problem, of_error
from orchestrator.spec.yaml import Document, KeyPath


@dataclass(slots=True)
class Reading:
    """One reading of a project. It keeps going after a failure, so that all of them are reported.

    files: to be watched, absolute; one that is not there may come. named: those that a file names, and where it does.
    included: what each `include` came to, to be checked by itself. raw: leave `${…}` as it is written. uses: every
    variable that was met.
    """

    directory: str
    files: list[str] = field(default_factory=list)
    named: list[tuple[str, str]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    included: list[Table] = field(default_factory=list)
    raw: bool = False
    uses: list[Use] = field(default_factory=list)

    def tree(self, path: str, variables: Mapping[str, str], *, at: str = "") -> Table:
        """A file's values, interpolated. at: where another file names it. Raises SpecError."""
        shown = self.shown(path)
        self.files.append(path)
        if at:
            self.named.append((path, at))
            if not os.path.isfile(path):
                raise SpecError("path-missing", f"{shown} does not exist", hint="create it, or correct the path", at=at)
        document = Document(read_text(path, shown, "no-spec"), shown, merge_tags=True)
        tree = document.tree(lambda text, key, place: self._text(text, key, place, variables))
        if isinstance(tree, Leaf) and tree.value is None:
            return Table({}, {}, tree.at)
        if not isinstance(tree, Table):
            raise SpecError("wrong-type", "the file must be a mapping", hint="write key: value lines", at=tree.at)
        return tree

    def variables(self, path: str, outer: Mapping[str, str], *, at: str = "") -> dict[str, str]:
        """`outer` over what an env file says; that file must be there only where another names it (at)."""
        self.files.append(path)
        if at:
            self.named.append((path, at))
        elif not os.path.exists(path):
            return dict(outer)
        shown = self.shown(path)
        try:
            return {**dotenv.parse(read_text(path, shown, "env-file"), outer, shown), **outer}
        except SpecError as error:
            if at and not os.path.exists(path):
                raise SpecError(error.reference, f"{shown} does not exist", hint=f"create {shown}", at=at) from error
            raise

    def shown(self, path: str) -> str:
        """A path for people: relative to the project where it lies inside."""
        return os.path.relpath(path, self.directory) if contains(self.directory, path) else path

    def _text(self, text: str, path: KeyPath, at: str, variables: Mapping[str, str]) -> str:
        if any(isinstance(part, str) and part.startswith("x-") for part in path[:1]):
            return text  # x- keys at the top are often fragments for anchors; they are read where they are merged
        try:
            self.uses += uses(text)
            if self.raw:
                return text
            found = interpolate(text, variables)
        except SpecError as error:
            self.problems.append(of_error(path, SpecError(error.reference, error.message, hint=error.hint, at=at)))
            return text
        self.warnings += [f"{at}: {name} is not set, taken as empty" for name in found.unset]
        return found.text


def read_text(path: str, shown: str, reference: str) -> str:
    """A text file's content. Raises SpecError(reference) where it cannot be read; `shown` is its name for people."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except UnicodeDecodeError as error:
        with open(path, "rb") as file:
            line = file.read()[: error.start].count(b"\n") + 1
        reference = "yaml-syntax" if reference == "no-spec" else reference
        raise SpecError(reference, "is not UTF-8 text", hint="save it as UTF-8", at=f"{shown}:{line}") from error
    except OSError as error:
        hint = "check the name and its permissions"
        raise SpecError(reference, f"cannot be read: {error.strerror}", hint=hint, at=shown) from error
