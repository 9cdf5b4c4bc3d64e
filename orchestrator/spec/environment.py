"""A model's environment variables: its env files, then `environment`, which wins. Reads the files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.errors import SpecError
from orchestrator.spec import dotenv
from orchestrator.spec.models import ModelSpec
from orchestrator.spec.paths import Boundary
from orchestrator.spec.problems import Problem, of_error
from orchestrator.spec.reading import read_text
from orchestrator.spec.yaml import KeyPath


@dataclass(frozen=True, slots=True)
class Variables:
    """What a model's processes get, and the env files (absolute), also those that are not there and need not be."""

    values: Mapping[str, str]
    files: tuple[str, ...]


def variables(
    model: ModelSpec, boundary: Boundary, outer: Mapping[str, str], path: KeyPath
) -> tuple[Variables, list[Problem]]:
    """Compose's order: later env files over earlier ones, `environment` over both; a name without a value is passed
    through from `outer`, and absent where that has none.
    """
    values: dict[str, str] = {}
    files: list[str] = []
    problems: list[Problem] = []
    single = len(model.env_file) == 1
    for index, each in enumerate(model.env_file):
        try:
            if not each.required and not os.path.exists(boundary.absolute(each.path)):
                files.append(boundary.absolute(each.path))  # it may come
                continue
            file = _env_file(each.path, boundary)
            values |= dotenv.parse(read_text(file, boundary.shown(file), "env-file"), outer, boundary.shown(file))
            files.append(file)
        except SpecError as error:
            problems.append(of_error((*path, "env_file") if single else (*path, "env_file", index), error))
    for name, value in model.environment.items():
        passed = outer.get(name) if value is None else value
        if passed is None:
            values.pop(name, None)
        else:
            values[name] = passed
    return Variables(values, tuple(files)), problems


def _env_file(name: str, boundary: Boundary) -> str:
    try:
        return boundary.inside(name)
    except SpecError as error:
        if error.reference == "path-missing":
            raise SpecError("env-file", error.message, hint=error.hint) from error
        raise
