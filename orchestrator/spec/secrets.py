"""Secrets: from where sandbox.yaml says they are to their contents. Reads the files; keeps no content but in Secret."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.errors import SpecError, near
from orchestrator.plan.types import SECRETS, Secret
from orchestrator.spec.models import ModelSpec, SecretSpec
from orchestrator.spec.paths import Boundary
from orchestrator.spec.problems import Problem, of_error
from orchestrator.spec.yaml import KeyPath

_LARGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class Secrets:
    """What a model is given, and the files that were read (absolute)."""

    given: tuple[Secret, ...]
    files: tuple[str, ...]


def secrets(
    model: ModelSpec, declared: Mapping[str, SecretSpec], boundary: Boundary, outer: Mapping[str, str], path: KeyPath
) -> tuple[Secrets, list[Problem]]:
    """The secrets of a model and what is wrong with them. outer: the variables; path: the key path of the model."""
    given: dict[str, Secret] = {}
    files: list[str] = []
    problems: list[Problem] = []
    for index, asked in enumerate(model.secrets):
        at = (*path, "secrets", index)
        if asked.source not in declared:
            hint = near(asked.source, declared) or "declare it under `secrets:` at the top: {file: PATH}"
            problems.append(Problem(at, "bad-value", f"there is no secret {asked.source!r}", hint))
            continue
        target = posixpath.normpath(posixpath.join(SECRETS, asked.target or asked.source))
        if not target.startswith(f"{SECRETS}/"):
            message = f"{asked.target} does not lie in {SECRETS}"
            problems.append(Problem((*at, "target"), "bad-value", message, "write a name without folders"))
            continue
        origin = declared[asked.source]
        try:
            content = _content(origin, boundary, outer, files)
        except SpecError as error:
            key = "file" if origin.environment is None else "environment"
            problems.append(of_error(("secrets", asked.source, key), error))
            continue
        given[target] = Secret(asked.source, target, content, asked.mode)
    return Secrets(tuple(given.values()), tuple(files)), problems


def _content(declared: SecretSpec, boundary: Boundary, outer: Mapping[str, str], files: list[str]) -> bytes:
    if declared.environment is not None:
        value = outer.get(declared.environment)
        if value is None:
            hint = f"set {declared.environment} in the environment or in the file .env beside sandbox.yaml"
            raise SpecError("interpolation", f"the variable {declared.environment} is not set", hint=hint)
        return value.encode("utf-8", "surrogateescape")
    file = boundary.absolute(declared.file or "")
    files.append(file)
    try:
        with open(file, "rb") as opened:
            content = opened.read(_LARGEST + 1)
    except OSError as error:
        message = f"{declared.file} cannot be read: {os.strerror(error.errno or 0)}"
        raise SpecError("path-missing", message, hint=f"create {file}, or correct the path") from error
    if len(content) > _LARGEST:
        raise SpecError("bad-value", f"{declared.file} holds more than 1M", hint="mount it as a volume")
    return content
