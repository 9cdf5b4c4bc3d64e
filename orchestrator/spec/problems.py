"""What is wrong with a file, gathered so that one run shows all of it; pydantic's words are translated here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from orchestrator.errors import SpecError, near
from orchestrator.spec.scalars import describe
from orchestrator.spec.schema import ELSEWHERE, keys_at
from orchestrator.spec.yaml import KeyPath

Where = Callable[[Sequence[str | int]], str]
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, at a key path. at: where, if not where the key path stands."""

    path: KeyPath
    reference: str
    message: str
    hint: str = ""
    at: str = ""


class SpecErrors(SpecError):  # noqa: N818 - several of them
    """Several problems at once; the first gives reference, hint and place, the message has a line for each."""

    def __init__(self, errors: Sequence[SpecError]) -> None:
        first = errors[0]
        lines = [first.message, *(_line(error) for error in errors[1:_SHOWN])]
        if len(errors) > _SHOWN:
            lines.append(f"and {len(errors) - _SHOWN} more")
        super().__init__(first.reference, "\n".join(lines), hint=first.hint, at=first.at)
        self.errors = tuple(errors)


def refuse(problems: Sequence[Problem], where: Where) -> None:
    """Raise what is wrong, in the order of the file; return where nothing is."""
    errors = [
        SpecError(
            problem.reference,
            f"{'.'.join(map(str, problem.path))}: {problem.message}" if problem.path else problem.message,
            hint=problem.hint,
            at=problem.at or where(problem.path),
        )
        for problem in problems
    ]
    errors.sort(key=_place)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise SpecErrors(errors)


def of_error(path: KeyPath, error: SpecError) -> Problem:
    """An error without a key path, met at one. Its own place, if it has one, is kept."""
    return Problem(path, error.reference, error.message, error.hint, error.at)


def of_validation(error: ValidationError, section: type[BaseModel]) -> list[Problem]:
    """Pydantic's errors in our words."""
    return [_translate(details, section) for details in error.errors(include_url=False)]


def _translate(details: ErrorDetails, section: type[BaseModel]) -> Problem:
    path = tuple(part for part in details["loc"] if part != "[key]")
    value: Any = details["input"]
    context = details.get("ctx", {})
    match details["type"]:
        case "spec":
            return Problem(path, context["reference"], context["message"], context["hint"])
        case "extra_forbidden":
            word, known = str(path[-1]), keys_at(section, path[:-1])
            hint = ELSEWHERE.get(word) or near(word, known) or f"known here: {', '.join(known)}"
            return Problem(path, "unknown-key", "unknown key", hint)
        case "missing":
            example = " DIRECTORY" if path[0] == "models" and path[2:] == ("path",) else ""
            return Problem(path, "missing-key", "is missing", f"add {path[-1]}:{example}")
        case "literal_error":
            allowed = context["expected"].replace("'", "")
            if not isinstance(value, str):
                return Problem(path, "wrong-type", f"must be {allowed}, not {describe(value)}", f"write {allowed}")
            words = allowed.replace(" or ", ", ").split(", ")
            return Problem(
                path, "bad-value", f"must be {allowed}, not {value!r}", near(value, words) or f"write {allowed}"
            )
        case "model_type" | "model_attributes_type" | "dict_type":
            return Problem(
                path, "wrong-type", f"must be a mapping, not {describe(value)}", "write key: value lines below it"
            )
        case "tuple_type" | "list_type":
            return Problem(
                path, "wrong-type", f"must be a list, not {describe(value)}", "write [a, b], or - a lines below it"
            )
        case _:
            return Problem(path, "wrong-type", f"cannot be {describe(value)}", details["msg"])


def _line(error: SpecError) -> str:
    return f"{error}{f' ({error.hint})' if error.hint else ''}"


def _place(error: SpecError) -> tuple[str, int]:
    file, _, line = error.at.rpartition(":")
    return (file, int(line)) if line.isdigit() else (error.at, 0)
