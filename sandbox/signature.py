"""A model function's parameters: their JSON schema, and checking a request's inputs into arguments."""

from __future__ import annotations

import inspect
import typing
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from sandbox import schema
from sandbox.refusal import Refusal, invalid

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_EMPTY = inspect.Parameter.empty

Arguments = Tuple[List[Any], Dict[str, Any]]


class Parameter(NamedTuple):
    name: str
    type: schema.Type
    required: bool
    positional: bool
    default: Any


class Signature:
    """What a function takes, read once. `bind` is on the path of every request."""

    def __init__(self, function: Callable[..., Any]) -> None:
        found = _signature(function)
        hints = _hints(function, found)
        self.open = any(p.kind is p.VAR_KEYWORD for p in found.parameters.values())
        self.parameters: Dict[str, Parameter] = {}
        for parameter in found.parameters.values():
            if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                self.parameters[parameter.name] = Parameter(
                    parameter.name,
                    schema.read(hints.get(parameter.name, Any)),
                    parameter.default is _EMPTY,
                    parameter.kind is parameter.POSITIONAL_ONLY,
                    parameter.default,
                )
        self._required = [p for p in self.parameters.values() if p.required]
        self._by_position = any(p.positional for p in self.parameters.values())
        self._checks = {name: p.type.check for name, p in self.parameters.items()}
        self.result = schema.read(hints["return"]) if "return" in hints else schema.any_type()

    def bind(self, inputs: Any, where: str = "") -> Arguments:
        """The arguments that `inputs`, a JSON object, stands for. Raises Refusal naming the field at fault."""
        if type(inputs) is not dict:
            raise invalid(f"{where or 'the body'}: expected an object of inputs, got {schema.json_name(inputs)}")
        checks, keywords = self._checks, {}
        for name, value in inputs.items():
            check = checks.get(name)
            if check is not None:
                keywords[name] = self._checked(check, value, name, where)
            elif self.open:
                keywords[name] = value
            else:
                raise self._unknown(name, where)
        for parameter in self._required:
            if parameter.name not in keywords:
                raise invalid(_at(where, parameter.name, f"missing, expected {parameter.type.name}"), parameter.name)
        return self._positions(keywords) if self._by_position else ([], keywords)

    def choose(self, values: Dict[str, Any]) -> Dict[str, Any]:
        """Of `values`, those that the function names (all of them, with **kwargs), checked."""
        chosen = {}
        for name, value in values.items():
            check = self._checks.get(name)
            if check is not None:
                chosen[name] = self._checked(check, value, name, "")
            elif self.open:
                chosen[name] = value
        return chosen

    def names(self, parameter: str) -> bool:
        """Whether the function has a parameter of this name."""
        return parameter in self.parameters

    @property
    def input_schema(self) -> Dict[str, Any]:
        properties = {}
        for parameter in self.parameters.values():
            described = dict(parameter.type.schema)
            if not parameter.required and _is_json(parameter.default):
                described["default"] = parameter.default
            properties[parameter.name] = described
        result: Dict[str, Any] = {"$schema": _DIALECT, "type": "object", "properties": properties}
        if self._required:
            result["required"] = [parameter.name for parameter in self._required]
        result["additionalProperties"] = self.open
        return result

    @property
    def output_schema(self) -> Dict[str, Any]:
        return {"$schema": _DIALECT, **self.result.schema}

    def _checked(self, check: schema.Check, value: Any, name: str, where: str) -> Any:
        try:
            return check(value, f"{where}.{name}" if where else name)
        except schema.MismatchError as mismatch:
            raise invalid(str(mismatch), name) from None

    def _unknown(self, name: str, where: str) -> Refusal:
        import difflib

        known = list(self.parameters)
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return invalid(_at(where, name, f"unknown parameter, known: {', '.join(known) or 'none'}{hint}"), name)

    def _positions(self, keywords: Dict[str, Any]) -> Arguments:
        """Positional-only parameters cannot be passed by name; one that is left out takes its default."""
        positional = [p for p in self.parameters.values() if p.positional]
        positions = [keywords.pop(p.name, p.default) for p in positional]
        return positions, keywords


def _at(where: str, name: str, problem: str) -> str:
    return f"{where}.{name}: {problem}" if where else f"{name}: {problem}"


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # a builtin or an extension's function that does not tell: anything goes
        anything = inspect.Parameter("inputs", inspect.Parameter.VAR_KEYWORD)
        return inspect.Signature([anything])


def _hints(function: Callable[..., Any], found: inspect.Signature) -> Dict[str, Any]:
    """The evaluated hints. One that this Python cannot evaluate is left out, and the others still count."""
    target: Any = function
    if not inspect.isroutine(target) and not isinstance(target, type):
        target = getattr(target, "__call__", target)  # noqa: B004 - an object that is called: its method has the hints
    try:
        return typing.get_type_hints(target)
    except Exception:  # noqa: BLE001 - any name or operator may stand in a hint; each is then tried alone
        names = getattr(inspect.unwrap(target), "__globals__", {})
        return {name: hint for name, hint in _each(found, names) if hint is not None}


def _each(found: inspect.Signature, names: Dict[str, Any]) -> List[Tuple[str, Optional[Any]]]:
    annotations = {p.name: p.annotation for p in found.parameters.values() if p.annotation is not _EMPTY}
    if found.return_annotation is not inspect.Signature.empty:
        annotations["return"] = found.return_annotation
    return [(name, _evaluated(annotation, names)) for name, annotation in annotations.items()]


def _evaluated(annotation: Any, names: Dict[str, Any]) -> Optional[Any]:
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, names)  # noqa: S307 - the model's own source, in the model's own process
    except Exception:  # noqa: BLE001 - a name that only a type checker has, or syntax newer than this Python: no hint
        return None


def _is_json(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_json(item) for item in value)
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_json(item) for key, item in value.items())
    return value is None or type(value) in (bool, int, str) or (type(value) is float and value - value == 0)
