"""Reads sandbox.yaml, what is laid over it, and the `.env` beside it into a Project: its paths not yet looked at."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from orchestrator import folders
from orchestrator.errors import SpecError
from orchestrator.spec import nodes
from orchestrator.spec.composition import IMPORTED, Composition
from orchestrator.spec.interpolate import Use
from orchestrator.spec.models import SandboxSpec
from orchestrator.spec.nodes import Node, Table
from orchestrator.spec.paths import Boundary
from orchestrator.spec.problems import Problem, of_validation, refuse
from orchestrator.spec.reading import Reading
from orchestrator.spec.rules import broken_rules
from orchestrator.spec.supported import not_supported

# Laid over sandbox.yaml where it is there and no other file was asked for.
OVERRIDES = ("sandbox.override.yaml", "sandbox.override.yml")


@dataclass(frozen=True, slots=True)
class Project:
    """A sandbox.yaml that was read and is valid in itself.

    directory: its real path. file: absolute. files: every file that was read or would be if it were there, absolute,
    to be watched. variables: the process environment over `.env`, what `${…}` sees. warnings: sentences for people (a
    variable that is not set).
    """

    directory: str
    name: str
    file: str
    spec: SandboxSpec
    files: tuple[str, ...]
    tree: Node = field(repr=False, compare=False)
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    warnings: tuple[str, ...] = ()

    def where(self, path: Sequence[str | int] | str) -> str:
        """`sandbox.yaml:12` for a key path: ("models", "hello", "path") or "models.hello.path"."""
        return nodes.where(self.tree, path)

    @property
    def sandbox_id(self) -> str:
        """12 hex of the directory's real path: two projects of one name never collide."""
        return folders.sandbox_id(self.directory)


def load(path: str, environ: Mapping[str, str], overrides: Sequence[str] | None = None) -> Project:
    """Read and check one sandbox.yaml. `environ`, the process environment, wins over `.env`.

    overrides: files laid over it, one after the other; None: sandbox.override.yaml, where it is there. Paths in all of
    them are relative to the first file's directory. Raises SpecError; where several things are wrong a
    problems.SpecErrors that lists them.
    """
    directory = os.path.realpath(os.path.dirname(os.path.abspath(path)))
    file = os.path.join(directory, os.path.basename(path))
    reading = Reading(directory)
    others = _automatic(directory, reading) if overrides is None else [os.path.realpath(other) for other in overrides]
    variables = reading.variables(os.path.join(directory, ".env"), environ)
    tree = Composition(reading, directory, variables).tree([file, *others])
    spec = _checked(tree, reading)
    _refuse_outside(reading, spec, variables)
    return Project(
        directory=directory,
        name=spec.name or _directory_name(directory),
        file=file,
        spec=spec,
        files=tuple(dict.fromkeys([file, *reading.files])),
        tree=tree,
        variables=variables,
        warnings=tuple(dict.fromkeys(reading.warnings)),
    )


def written(
    path: str, environ: Mapping[str, str], overrides: Sequence[str] | None = None
) -> tuple[dict[str, Any], tuple[Use, ...]]:
    """The merged files as they are written, with `${…}` in them, and every variable that they use. Only their YAML is
    checked: what a value means is not known before. Raises SpecError.
    """
    directory = os.path.realpath(os.path.dirname(os.path.abspath(path)))
    reading = Reading(directory, raw=True)
    others = _automatic(directory, reading) if overrides is None else [os.path.realpath(other) for other in overrides]
    variables = reading.variables(os.path.join(directory, ".env"), environ)
    file = os.path.join(directory, os.path.basename(path))
    tree = Composition(reading, directory, variables).tree([file, *others])
    refuse(reading.problems, lambda key: nodes.where(tree, key))
    return nodes.plain(tree), tuple(dict.fromkeys(reading.uses))


def _automatic(directory: str, reading: Reading) -> list[str]:
    candidates = [os.path.join(directory, name) for name in OVERRIDES]
    reading.files += candidates
    return [path for path in candidates if os.path.isfile(path)][:1]


def _checked(tree: Table, reading: Reading) -> SandboxSpec:
    for included in reading.included:
        reading.problems += _of_included(included)
    failed = {problem.path for problem in reading.problems}
    try:
        spec = SandboxSpec.model_validate(nodes.plain(tree))
    except ValidationError as error:
        # A value that could not be interpolated is reported once, not again for its form.
        invalid = [problem for problem in of_validation(error, SandboxSpec) if problem.path not in failed]
        refuse([*reading.problems, *invalid], lambda path: nodes.where(tree, path))
        raise
    refuse([*reading.problems, *broken_rules(spec), *not_supported(spec)], lambda path: nodes.where(tree, path))
    return spec


def _of_included(tree: Table) -> list[Problem]:
    """What is wrong with those keys of an included file that are not taken over; the others are checked with ours."""
    value: dict[str, Any] = nodes.plain(tree)
    rest = {key: child for key, child in value.items() if key not in IMPORTED or not isinstance(child, dict)}
    try:
        SandboxSpec.model_validate({"models": {}, **rest})
    except ValidationError as error:
        problems = of_validation(error, SandboxSpec)
        return [replace(problem, at=nodes.where(tree, problem.path)) for problem in problems]
    return []


def _refuse_outside(reading: Reading, spec: SandboxSpec, variables: Mapping[str, str]) -> None:
    """A file that another names lies in the project, or under allow_outside."""
    boundary = Boundary.of(reading.directory, spec.allow_outside, variables.get("HOME", ""))
    problems = []
    for path, at in reading.named:
        try:
            boundary.inside(path)
        except SpecError as error:
            problems.append(Problem((), error.reference, error.message, error.hint, at))
    refuse(problems, lambda _path: "")


def _directory_name(directory: str) -> str:
    """A directory's name as a sandbox's name, by Compose's rule: lower case, other characters dropped."""
    name = re.sub(r"[^a-z0-9_-]", "", os.path.basename(directory).lower()).lstrip("_-")
    return name[:63] or "sandbox"
