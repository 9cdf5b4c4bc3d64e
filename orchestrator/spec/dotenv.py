r"""Reads the text of an env file (`.env`, env_file:) as Compose does. Pure; knows no file.

`NAME=value`, `export NAME=value`, comments; `'…'` is taken as it is, `"…"` knows \n \t \r \" \\ \$, both may span
lines; unquoted and "…" values are interpolated. `NAME` alone passes the variable through.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from orchestrator.errors import SpecError
from orchestrator.spec.interpolate import interpolate

_LINE = re.compile(r"[ \t]*(?:export[ \t]+)?(?P<name>[^\s=#'\"]+)[ \t]*(?P<equals>=)?[ \t]*")
_BLANK = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|\Z)")
_SINGLE = re.compile(r"'([^']*)'")
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_REST = re.compile(r"[^\n]*")
_COMMENT = re.compile(r"(?:^|[ \t])#.*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\Z")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$$"}


def parse(text: str, variables: Mapping[str, str], file: str) -> dict[str, str]:
    """Names and values in the order of the file. `variables` win over the file's own when a value names one.

    Raises SpecError("env-file") with `file:line`.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        if blank := _BLANK.match(text, at):
            at = blank.end()
            continue
        place = f"{file}:{text.count(chr(10), 0, at) + 1}"
        line = _LINE.match(text, at)
        if line is None or not _NAME.match(line["name"]):
            raise SpecError("env-file", "is not of the form NAME=value", hint="write NAME=value", at=place)
        if line["equals"] is None:
            at = _end_of_line(text, line.end(), place)
            if line["name"] in variables:
                found[line["name"]] = variables[line["name"]]
            continue
        found[line["name"]], at = _value(text, line.end(), {**found, **variables}, place)
    return found


def _value(text: str, at: int, variables: Mapping[str, str], place: str) -> tuple[str, int]:
    quote = text[at : at + 1]
    if quote not in {"'", '"'}:
        rest = _REST.match(text, at)
        assert rest is not None  # noqa: S101 - the pattern matches every text
        return _interpolated(_COMMENT.sub("", rest.group()).rstrip(), variables, place), rest.end()
    quoted = (_SINGLE if quote == "'" else _DOUBLE).match(text, at)
    if quoted is None:
        raise SpecError(
            "env-file", f"a value opens with {quote} and never closes", hint=f"close it with {quote}", at=place
        )
    end = _end_of_line(text, quoted.end(), place)
    if quote == "'":
        return quoted[1], end
    unescaped = re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[0]), quoted[1], flags=re.DOTALL)
    return _interpolated(unescaped, variables, place), end


def _end_of_line(text: str, at: int, place: str) -> int:
    blank = _BLANK.match(text, at)
    if blank is None:
        hint = "put the whole value in quotes"
        raise SpecError("env-file", "has text after the end of its value", hint=hint, at=place)
    return blank.end()


def _interpolated(text: str, variables: Mapping[str, str], place: str) -> str:
    try:
        return interpolate(text, variables).text
    except SpecError as error:
        raise SpecError("env-file", error.message, hint=error.hint, at=place) from error
