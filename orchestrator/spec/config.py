"""A model directory's config.yaml: any mapping of JSON types, of which only `isolation` and `entry` are ours."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from orchestrator.spec.problems import Problem, of_validation, refuse
from orchestrator.spec.reading import read_text
from orchestrator.spec.scalars import Cpus, Flag, Memory, Python, Text, describe
from orchestrator.spec.yaml import Document, KeyPath

FILE = "config.yaml"


class _Lenient(BaseModel):
    """config.yaml belongs to the model's author: what we do not know is theirs."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _unset(cls, value: Any) -> Any:
        return (
            {key: child for key, child in value.items() if child is not None} if isinstance(value, Mapping) else value
        )


class IsolationResources(_Lenient):
    """Limits; sandbox.yaml wins over them."""

    memory: Memory | None = None
    cpu: Cpus | None = None


class Isolation(_Lenient):
    """How the model's author wants it to run; sandbox.yaml wins."""

    enabled: Flag = True
    python_version: Python | None = None
    resources: IsolationResources = IsolationResources()


class _Config(_Lenient):
    entry: Text | None = None
    isolation: Isolation = Isolation()


def read(path: str, shown: str = FILE) -> tuple[dict[str, Any], Isolation]:
    """config.yaml of the model directory `path` as JSON types, {} where there is none. `shown`: its name for people.

    Raises SpecError with file:line.
    """
    file = os.path.join(path, FILE)
    if not os.path.exists(file):
        return {}, Isolation()
    document = Document(read_text(file, shown, "yaml-syntax"), shown)
    tree = document.value()
    if tree is None:
        return {}, Isolation()
    if not isinstance(tree, dict):
        wrong = Problem(
            (), "wrong-type", f"config.yaml must be a mapping, not {describe(tree)}", "write key: value lines"
        )
        refuse([wrong], document.where)
    problems: list[Problem] = []
    config = _plain(tree, (), problems)
    isolation = Isolation()
    try:
        isolation = _Config.model_validate(tree).isolation
    except ValidationError as error:
        problems += of_validation(error, _Config)
    refuse(problems, document.where)
    return config, isolation


def _plain(value: Any, path: KeyPath, problems: list[Problem]) -> Any:
    """Without the memory of how a number was written; what JSON cannot say is a problem."""
    match value:
        case bool() | None | str():
            return value
        case int():
            return int(value)
        case float():
            if not math.isfinite(value):
                problems.append(Problem(path, "bad-value", f"{value} is no JSON number", "put it in quotes"))
            return float(value)
        case dict():
            return {key: _plain(child, (*path, key), problems) for key, child in value.items()}
        case _:
            return [_plain(child, (*path, index), problems) for index, child in enumerate(value)]
