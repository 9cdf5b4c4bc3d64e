"""What an editor is told of a value: JSON schemas for the annotated types. It judges nothing itself.

A value with a variable is judged once it is filled in, so text with a dollar is always taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import GetJsonSchemaHandler, WithJsonSchema
from pydantic_core import CoreSchema

FILLED_IN: dict[str, Any] = {"type": "string", "pattern": "\\$"}


@dataclass(frozen=True, eq=False, slots=True)
class Also:
    """The short form of what has a long one."""

    form: dict[str, Any]

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [self.form, handler(core_schema)]}


def words(*forms: dict[str, Any], unit: str = "") -> WithJsonSchema:
    """A value of one of these forms. unit: how its default is written; see editor.py."""
    return WithJsonSchema({"anyOf": [*forms, FILLED_IN]} | ({"unit": unit} if unit else {}))


def written_as(pattern: str) -> dict[str, Any]:
    """Text of this form."""
    return {"type": "string", "pattern": pattern}


def number(least: int, most: int | None = None) -> WithJsonSchema:
    """A whole number, quoted or not."""
    form = {"type": "integer", "minimum": least} | ({} if most is None else {"maximum": most})
    return words(form, written_as("^[-+]?[0-9]{1,18}$"))


def size(least: int) -> WithJsonSchema:
    """Bytes."""
    form = {"type": "integer", "minimum": least}
    return words(form, written_as("^[0-9.]+ ?([KMGTPkmgtp][iI]?)?[bB]?$"), unit="size")


TEXT = WithJsonSchema({"type": "string", "minLength": 1})
DURATION = words({"const": 0}, written_as("^(0|([0-9.]+(us|µs|μs|ms|s|m|h))+)$"), unit="duration")
MODE = words({"type": "integer"}, written_as("^0o?[0-7]{1,4}$"), unit="mode")
LIST = WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]})
VARIABLES = WithJsonSchema(
    {
        "anyOf": [
            {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean", "null"]}},
            {"type": "array", "items": {"type": "string"}},
        ]
    }
)
OR_TEXT = Also({"type": "string", "minLength": 1})
OR_NAMES = Also({"type": "array", "items": {"type": "string"}})
