"""Compose's `${…}` in one text value. Pure: variables come in, text and the names that were not set go out.

Grammar (https://github.com/compose-spec/compose-spec/blob/main/12-interpolation.md): `$V`, `${V}`, `${V:-default}`,
`${V-default}`, `${V:?message}`, `${V?message}`, `${V:+instead}`, `${V+instead}`, nested at will; `$$` is a dollar, and
so is a `$` before anything else. With a colon an empty value counts as unset. As in Compose, what is required within a
default is required even where the default is not taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, cast

from orchestrator.errors import SpecError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATOR = re.compile(r":-|-|:\?|\?|:\+|\+")
_DEEPEST = 40  # nested ${…}; more is a mistake, and must not exhaust the stack
_ESCAPE = "write $$ for a dollar sign, or ${NAME}, ${NAME:-default}, ${NAME:?message}, ${NAME:+instead}"

Operator = Literal["", ":-", "-", ":?", "?", ":+", "+"]


@dataclass(frozen=True, slots=True)
class Interpolated:
    """The text, and the variables that were not set and for which it therefore holds nothing."""

    text: str
    unset: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Variable:
    name: str
    operator: Operator
    operand: tuple[str | _Variable, ...]


_Parts = tuple[str | _Variable, ...]


def interpolate(text: str, variables: Mapping[str, str]) -> Interpolated:
    """Replace every variable of `text`. Raises SpecError("interpolation"), without a place."""
    if "$" not in text:
        return Interpolated(text)
    unset: list[str] = []
    return Interpolated(_text(_Grammar(text).parts(0), variables, unset), tuple(dict.fromkeys(unset)))


@dataclass(frozen=True, slots=True)
class Use:
    """A variable where a text uses it. default and instead: as written, "" where there is none."""

    name: str
    required: bool = False
    default: str = ""
    instead: str = ""


def uses(text: str) -> tuple[Use, ...]:
    """Every variable of `text`, those within others' defaults too. Raises SpecError("interpolation")."""
    return tuple(_uses(_Grammar(text).parts(0))) if "$" in text else ()


def _uses(parts: _Parts) -> Iterator[Use]:
    for part in parts:
        if isinstance(part, _Variable):
            kind, operand = part.operator.lstrip(":"), "".join(map(_written, part.operand))
            default, instead = operand if kind == "-" else "", operand if kind == "+" else ""
            yield Use(part.name, kind == "?", default, instead)
            yield from _uses(part.operand)


def _written(part: str | _Variable) -> str:
    if isinstance(part, str):
        return part.replace("$", "$$")
    return f"${{{part.name}{part.operator}{''.join(map(_written, part.operand))}}}"


class _Grammar:
    """A recursive descent over one text; `at` is the next character."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def parts(self, depth: int) -> _Parts:
        """Up to the end, or with depth > 0 past the brace that closes what is open. Braces within count."""
        found: list[str | _Variable] = []
        braces = 0
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == "$":
                found.append(self.dollar(depth))
                continue
            self.at += 1
            if depth and char == "}":
                if not braces:
                    return tuple(found)
                braces -= 1
            elif depth and char == "{":
                braces += 1
            found.append(char)
        if depth:
            raise self.refused("${ is never closed", "close it with }")
        return tuple(found)

    def dollar(self, depth: int) -> str | _Variable:
        self.at += 1
        if self.text.startswith("$", self.at):
            self.at += 1
            return "$"
        if self.text.startswith("{", self.at):
            self.at += 1
            return self.braced(depth + 1)
        if _NAME.match(self.text, self.at) is None:
            return "$"
        return _Variable(self.name("$"), "", ())

    def braced(self, depth: int) -> _Variable:
        if depth > _DEEPEST:
            raise self.refused(f"more than {_DEEPEST} nested ${{…}}", "use fewer")
        name = self.name("${")
        if self.text.startswith("}", self.at):
            self.at += 1
            return _Variable(name, "", ())
        operator = _OPERATOR.match(self.text, self.at)
        if operator is None:
            raise self.refused(f"${{{name} is followed by {self.text[self.at : self.at + 1]!r}", _ESCAPE)
        self.at = operator.end()
        return _Variable(name, cast("Operator", operator.group()), self.parts(depth))

    def name(self, after: str) -> str:
        found = _NAME.match(self.text, self.at)
        if found is None:
            raise self.refused(f"no variable name after {after}", _ESCAPE)
        self.at = found.end()
        return found.group()

    def refused(self, why: str, hint: str) -> SpecError:
        shown = self.text if len(self.text) <= 60 else f"{self.text[:60]}…"
        return SpecError("interpolation", f"{why} in {shown!r}", hint=hint)


def _text(parts: _Parts, variables: Mapping[str, str], unset: list[str]) -> str:
    return "".join(part if isinstance(part, str) else _value(part, variables, unset) for part in parts)


def _value(variable: _Variable, variables: Mapping[str, str], unset: list[str]) -> str:
    value = variables.get(variable.name)
    present = bool(value) if variable.operator.startswith(":") else value is not None
    taken = present == (variable.operator.endswith("+"))
    operand = _text(variable.operand, variables, unset if taken else [])
    match variable.operator.lstrip(":"):
        case "-":
            return cast("str", value) if present else operand
        case "+":
            return operand if present else ""
        case "?" if not present:
            message = operand
            state = "empty" if value is not None else "not set"
            raise SpecError(
                "interpolation",
                f"the variable {variable.name} is {state}{f': {message}' if message else ''}",
                hint=f"set {variable.name} in the environment or in the file .env beside sandbox.yaml",
            )
        case _:
            if value is None:
                unset.append(variable.name)
            return value or ""
