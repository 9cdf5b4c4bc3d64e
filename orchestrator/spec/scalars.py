"""The kinds of value that sandbox.yaml knows, as annotated types; each says in words what it expects, and to editors.

Text is accepted where its form is right, quoted or not: a `${…}` always leaves text behind.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from orchestrator.errors import SpecError
from orchestrator.spec import told, units

MODEL_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}\Z")
SANDBOX_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\Z")
SMALLEST_MEMORY = 32 * 1024**2
PYTHONS = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
# What stands for a secret that is not shown.
MASK = "***"
_PROFILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z")
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}\.?)*\Z")
_ORIGIN = re.compile(r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?\Z")
_KEY = re.compile(r"[!-~]{1,512}\Z")
_HASHED = re.compile(r"sha256:([0-9A-Fa-f]{64})\Z")
_TRUE = frozenset({"true", "yes", "on", "y"})
_FALSE = frozenset({"false", "no", "off", "n"})


def refusal(reference: str, message: str, hint: str = "") -> PydanticCustomError:
    """What a validator raises; problems.py reads the three back."""
    return PydanticCustomError("spec", "{message}", {"reference": reference, "message": message, "hint": hint})


def describe(value: object) -> str:
    """A value of the wrong type, in words for people."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value}"
        case str():
            return repr(value if len(value) <= 40 else f"{value[:40]}…")
        case Mapping():
            return "a mapping"
        case _:
            return "a list"


def written(value: object) -> str | None:
    """A scalar as the file has it (`3.10` is not `3.1`), or None where it is no scalar."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(getattr(value, "text", value))
        case str():
            return value
        case _:
            return None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        hint = "put it in quotes" if written(value) else "write plain text"
        raise refusal("wrong-type", f"must be text, not {describe(value)}", hint)
    if not value or "\0" in value:
        raise refusal("bad-value", "must not be empty", "write a value or remove the key")
    return value


def _key_digest(value: Any) -> str:
    """Only the digest goes on from here; no message shows what was written."""
    text = value if isinstance(value, str) else ""
    hashed = _HASHED.fullmatch(text)
    if hashed is not None:
        return hashed[1].lower()
    if text.startswith("sha256:") or text == MASK or not _KEY.fullmatch(text):
        hint = "write text in quotes without spaces, best ${VARIABLE}, or sha256: and the 64 hex digits of its hash"
        raise refusal("bad-value", "is no key", hint)
    return hashlib.sha256(text.encode()).hexdigest()


def _whole(least: int, most: int | None = None) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        text = written(value)
        if isinstance(value, bool) or text is None or not re.fullmatch(r"[-+]?[0-9]{1,18}", text):
            raise refusal("wrong-type", f"must be a whole number, not {describe(value)}", f"write for example {least}")
        if int(text) < least or (most is not None and int(text) > most):
            allowed = f"at least {least}" if most is None else f"between {least} and {most}"
            raise refusal("bad-value", f"must be {allowed}, not {int(text)}", f"write a number {allowed}")
        return int(text)

    return read


def _flag(value: Any) -> bool:
    text = written(value)
    if text is not None and text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    raise refusal("wrong-type", f"must be true or false, not {describe(value)}", "write true or false")


def _unit(read_text: Callable[[str], Any], expected: str) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        text = written(value)
        if text is None or isinstance(value, bool):
            raise refusal("wrong-type", f"must be {expected}, not {describe(value)}", f"write {expected}")
        try:
            return read_text(text)
        except SpecError as error:
            raise refusal(error.reference, error.message, error.hint) from error

    return read


def _above_zero(read: Callable[[Any], float]) -> Callable[[Any], float]:
    def checked(value: Any) -> float:
        number = read(value)
        if number <= 0:
            raise refusal("bad-value", f"must be more than 0, not {written(value)}", "write a longer duration")
        return number

    return checked


def _memory(text: str) -> int:
    number = units.size(text)
    if number < SMALLEST_MEMORY:
        hint = "write 32M or more; a Python interpreter alone needs about 20M"
        raise SpecError("bad-value", f"{text} is less than the 32M that a model needs to start", hint=hint)
    return number


def _body(text: str) -> int:
    number = units.size(text)
    if number < 1:
        raise SpecError("bad-value", "must be at least one byte", hint="write for example 10M")
    return number


def _cpus(value: Any) -> float:
    text = written(value)
    try:
        number = float(text) if text is not None and not isinstance(value, bool) else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise refusal("wrong-type", f"must be a number of cores, not {describe(value)}", "write for example 0.5 or 2")
    if number <= 0:
        raise refusal("bad-value", f"must be more than 0, not {text}", "write for example 0.5 or 2")
    return number


def _python(value: Any) -> str:
    text = written(value)
    if text is None or isinstance(value, bool):
        raise refusal("wrong-type", f"must be a Python version, not {describe(value)}", 'write for example "3.11"')
    if text not in PYTHONS:
        short = next((known for known in reversed(PYTHONS) if text.startswith(f"{known}.")), None)
        hint = f'write "{short}": the newest of that line is used' if short else f"one of {', '.join(PYTHONS)}"
        raise refusal("bad-value", f"{text!r} is no Python version that models can run on", hint)
    return text


def _gpus(value: Any) -> str:
    text = written(value)
    if text is None or isinstance(value, bool) or not re.fullmatch(r"all|[0-9]{1,3}", text):
        raise refusal("wrong-type", f"must be all or a number, not {describe(value)}", "write all or for example 1")
    return text


def _host(value: Any) -> str:
    host = _text(value)
    try:
        return str(ip_address(host))
    except ValueError:
        if _HOST_NAME.match(host) and not host.replace(".", "").isdigit():
            return host
    raise refusal("bad-value", f"{host!r} is no address or host name", "write for example 127.0.0.1, ::1 or localhost")


def _origin(value: Any) -> str:
    if not _ORIGIN.match(_text(value)):
        raise refusal(
            "bad-value", f"{value!r} is no origin", "write for example https://app.example:8443, without a path"
        )
    return str(value).lower()


def _matching(form: re.Pattern[str], rule: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if not form.match(_text(value)):
            raise refusal("bad-name", f"{value!r} is no valid name", rule)
        return str(value)

    return read


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _environment(value: Any) -> dict[str, str | None]:
    """Compose's two forms, a mapping or a list of `NAME=value`; None passes the variable of that name through."""
    pairs: list[tuple[Any, Any]]
    match value:
        case Mapping():
            pairs = list(value.items())
        case str():
            raise refusal(
                "wrong-type", f"must be a mapping or a list, not {describe(value)}", "write NAME: value below it"
            )
        case Sequence():
            for item in value:
                if not isinstance(item, str):
                    raise refusal("wrong-type", f"holds {describe(item)} where NAME=value belongs", "write NAME=value")
            pairs = [(name, text if equals else None) for name, equals, text in (item.partition("=") for item in value)]
        case _:
            raise refusal(
                "wrong-type", f"must be a mapping or a list, not {describe(value)}", "write NAME: value below it"
            )
    found: dict[str, str | None] = {}
    for name, content in pairs:
        if not name or "=" in name or "\0" in name:
            raise refusal("bad-value", f"{name!r} cannot name a variable", "write NAME: value")
        text = written(content)
        if content is not None and (text is None or "\0" in text):
            raise refusal("wrong-type", f"{name} must be text, not {describe(content)}", "put the value in quotes")
        found[name] = text
    return found


def short_volume(value: Any) -> Any:
    """`HOST:TARGET[:ro|rw]` as a mapping."""
    if not isinstance(value, str):
        return value
    parts = value.split(":")
    if not 2 <= len(parts) <= 3 or not all(parts):
        hint = "write HOST:TARGET or HOST:TARGET:ro, for example ./weights:/weights:ro"
        raise refusal("volume", f"{value!r} is not of the form HOST:TARGET", hint)
    if parts[2:] not in ([], ["ro"], ["rw"]):
        raise refusal("volume", f"{parts[2]!r} is no mode of a volume", "write ro or rw")
    return {"source": parts[0], "target": parts[1], "read_only": parts[2:] == ["ro"]}


def _mode(value: Any) -> int:
    """Permission bits as everybody writes them: a zero and octal digits."""
    text = written(value)
    if text is None or not re.fullmatch(r"0o?[0-7]{1,4}", text):
        raise refusal("bad-value", f"must be permission bits, not {describe(value)}", "write for example 0400")
    return int(text.replace("o", ""), 8)


_DURATION_WORDS = "a duration such as 30s"
_duration = _unit(units.duration, _DURATION_WORDS)

Text = Annotated[str, BeforeValidator(_text), told.TEXT]
KeyDigest = Annotated[str, BeforeValidator(_key_digest), told.TEXT]
Flag = Annotated[bool, BeforeValidator(_flag), told.words({"type": "boolean"}, {"enum": sorted(_TRUE | _FALSE)})]
Count = Annotated[int, BeforeValidator(_whole(1)), told.number(1)]
CountOrNone = Annotated[int, BeforeValidator(_whole(0)), told.number(0)]
Port = Annotated[int, BeforeValidator(_whole(0, 65535)), told.number(0, 65535)]
Duration = Annotated[float, BeforeValidator(_duration), told.DURATION]
PositiveDuration = Annotated[float, BeforeValidator(_above_zero(_duration)), told.DURATION]
Memory = Annotated[int, BeforeValidator(_unit(_memory, "a size such as 512M")), told.size(SMALLEST_MEMORY)]
BodySize = Annotated[int, BeforeValidator(_unit(_body, "a size such as 10M")), told.size(1)]
Size = Annotated[int, BeforeValidator(_unit(_body, "a size such as 64M")), told.size(1)]
Mode = Annotated[int, BeforeValidator(_mode), told.MODE]
Rate = Annotated[
    tuple[int, float],
    BeforeValidator(_unit(units.rate, "a rate such as 100/minute")),
    told.words(told.written_as("^[0-9]{1,9}/.+$")),
]
Cpus = Annotated[
    float, BeforeValidator(_cpus), told.words({"type": "number", "exclusiveMinimum": 0}, told.written_as("^[0-9.]+$"))
]
Python = Annotated[
    str,
    BeforeValidator(_python),
    told.words({"enum": list(PYTHONS)}, {"enum": [float(version) for version in PYTHONS]}),
]
Gpus = Annotated[str, BeforeValidator(_gpus), told.words({"const": "all"}, {"type": "integer", "minimum": 0})]
Host = Annotated[str, BeforeValidator(_host), told.TEXT]
Origin = Annotated[str, BeforeValidator(_origin), told.words(told.written_as("^https?://"))]
Environment = Annotated[dict[str, str | None], BeforeValidator(_environment), told.VARIABLES]
OneOrMany = Annotated[tuple[Text, ...], BeforeValidator(_one_or_many), told.LIST]
ModelName = Annotated[
    str, BeforeValidator(_matching(MODEL_NAME, "use 1 to 41 of a-z, 0-9, _ and -, the first a letter or a digit"))
]
SandboxName = Annotated[
    str, BeforeValidator(_matching(SANDBOX_NAME, "use 1 to 63 of a-z, 0-9, _ and -, the first a letter or a digit"))
]
SecretName = Annotated[
    str, BeforeValidator(_matching(_PROFILE, "use letters, digits, _ . and -, the first a letter or a digit"))
]
ProfileName = Annotated[
    str, BeforeValidator(_matching(_PROFILE, "use letters, digits, _ . and -, the first a letter or a digit"))
]
