"""Reads sandbox.yaml and the `.env` beside it into a Project: valid in itself, its paths not yet looked at."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from orchestrator import folders
from orchestrator.errors import SpecError
from orchestrator.spec import dotenv
from orchestrator.spec.interpolate import interpolate
from orchestrator.spec.models import SandboxSpec
from orchestrator.spec.problems import Problem, of_error, of_validation, refuse
from orchestrator.spec.rules import broken_rules
from orchestrator.spec.supported import not_supported
from orchestrator.spec.yaml import Document, KeyPath


@dataclass(frozen=True, slots=True)
class Project:
    """A sandbox.yaml that was read and is valid in itself.

    directory: its real path. file: absolute. files: every file that was read, absolute, to be watched. variables: the
    process environment over `.env`, what `${…}` sees. warnings: sentences for people (a variable that is not set).
    """

    directory: str
    name: str
    file: str
    spec: SandboxSpec
    files: tuple[str, ...]
    document: Document = field(repr=False, compare=False)
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    warnings: tuple[str, ...] = ()

    def where(self, path: Sequence[str | int] | str) -> str:
        """`sandbox.yaml:12` for a key path: ("models", "hello", "path") or "models.hello.path"."""
        return self.document.where(path)

    @property
    def sandbox_id(self) -> str:
        """12 hex of the directory's real path: two projects of one name never collide."""
        return folders.sandbox_id(self.directory)


def load(path: str, environ: Mapping[str, str]) -> Project:
    """Read and check one sandbox.yaml. `environ`, the process environment, wins over `.env`.

    Raises SpecError; where several things are wrong a problems.SpecErrors that lists them.
    """
    directory = os.path.realpath(os.path.dirname(os.path.abspath(path)))
    shown = os.path.basename(path)
    files = [os.path.join(directory, shown)]
    dotenv_file = os.path.join(directory, ".env")
    variables = dict(environ)
    if os.path.exists(dotenv_file):
        files.append(dotenv_file)
        variables = {**dotenv.parse(read_text(dotenv_file, ".env", "env-file"), environ, ".env"), **environ}
    document = Document(read_text(path, shown, "no-spec"), shown)
    reading = _Reading(document, variables)
    tree = document.value(reading.text)
    spec = _checked(tree, reading, document)
    return Project(
        directory=directory,
        name=spec.name or _directory_name(directory),
        file=files[0],
        spec=spec,
        files=tuple(files),
        document=document,
        variables=variables,
        warnings=tuple(dict.fromkeys(reading.warnings)),
    )


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


class _Reading:
    """Interpolates as the document is walked; keeps going after a failure, so that all are reported."""

    def __init__(self, document: Document, variables: Mapping[str, str]) -> None:
        self.document = document
        self.variables = variables
        self.problems: list[Problem] = []
        self.warnings: list[str] = []

    def text(self, text: str, path: KeyPath) -> str:
        if any(isinstance(part, str) and part.startswith("x-") for part in path[:1]):
            return text  # x- keys at the top are often fragments for anchors; they are read where they are merged
        try:
            found = interpolate(text, self.variables)
        except SpecError as error:
            self.problems.append(of_error(path, error))
            return text
        self.warnings += [f"{self.document.where(path)}: {name} is not set, taken as empty" for name in found.unset]
        return found.text


def _checked(tree: Any, reading: _Reading, document: Document) -> SandboxSpec:
    failed = {problem.path for problem in reading.problems}
    try:
        spec = SandboxSpec.model_validate({} if tree is None else tree)
    except ValidationError as error:
        # A value that could not be interpolated is reported once, not again for its form.
        invalid = [problem for problem in of_validation(error, SandboxSpec) if problem.path not in failed]
        refuse([*reading.problems, *invalid], document.where)
        raise
    refuse([*reading.problems, *broken_rules(spec), *not_supported(spec)], document.where)
    return spec


def _directory_name(directory: str) -> str:
    """A directory's name as a sandbox's name, by Compose's rule: lower case, other characters dropped."""
    name = re.sub(r"[^a-z0-9_-]", "", os.path.basename(directory).lower()).lstrip("_-")
    return name[:63] or "sandbox"
