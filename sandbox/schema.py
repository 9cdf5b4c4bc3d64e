"""From one type hint to a JSON schema (2020-12) and to a check of a JSON value. It knows no function and no model."""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import math
import types
import typing
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from sandbox import arrays

Check = Callable[[Any, str], Any]
"""(value, where) → the value as the model gets it. Raises MismatchError, whose text begins with `where`."""

_UNION_TYPES = (typing.Union, getattr(types, "UnionType", typing.Union))
_SEQUENCES = (list, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_ITERATORS = (
    collections.abc.Iterator,
    collections.abc.Generator,
    collections.abc.AsyncIterator,
    collections.abc.AsyncGenerator,
    collections.abc.AsyncIterable,
)
_DEEP = 24


class MismatchError(Exception):
    """A value that its type hint does not allow. `where` is the field's path: "pixels[3]"."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}")
        self.where = where


class Type(NamedTuple):
    """What a hint means. name: for error messages ("number", "array of integer"). dtype: of a numpy hint."""

    name: str
    schema: Dict[str, Any]
    check: Check
    dtype: Optional[arrays.Dtype] = None


def any_type() -> Type:
    """What a missing or unknown hint means: every JSON value."""
    return Type("any value", {}, lambda value, _where: value)


def read(hint: Any, depth: int = 0) -> Type:
    """The meaning of an evaluated type hint. What it does not know accepts every value."""
    simple = _SIMPLE.get(hint) if isinstance(hint, collections.abc.Hashable) else None
    if simple is not None:
        return simple
    if depth > _DEEP:
        return any_type()  # a type that contains itself: checked this deep, open below
    for form in (_numpy, _generic, _class):
        found = form(hint, depth + 1)
        if found is not None:
            return found
    return any_type()


def json_name(value: Any) -> str:
    """What JSON calls the value's type."""
    for kind, name in ((bool, "boolean"), (str, "string"), (int, "integer"), (float, "number"), (list, "array")):
        if isinstance(value, kind):
            return name
    return "null" if value is None else "object"


def _integer(value: Any, where: str) -> Any:
    if type(value) is int:
        return value
    if type(value) is float and value.is_integer():
        return int(value)
    raise MismatchError(where, f"expected integer, got {json_name(value)}")


def _number(value: Any, where: str) -> Any:
    if type(value) is float:
        if not math.isfinite(value):  # what JSON has no word for: 1e999
            raise MismatchError(where, "the number is too large")
        return value
    if type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise MismatchError(where, "the number is too large") from None
    raise MismatchError(where, f"expected number, got {json_name(value)}")


def _exactly(kind: type, name: str) -> Check:
    def check(value: Any, where: str) -> Any:
        if type(value) is kind:
            return value
        raise MismatchError(where, f"expected {name}, got {json_name(value)}")

    return check


_NULL = Type("null", {"type": "null"}, _exactly(type(None), "null"))
_SIMPLE: Dict[Any, Type] = {
    int: Type("integer", {"type": "integer"}, _integer),
    float: Type("number", {"type": "number"}, _number),
    str: Type("string", {"type": "string"}, _exactly(str, "string")),
    bool: Type("boolean", {"type": "boolean"}, _exactly(bool, "boolean")),
    None: _NULL,
    type(None): _NULL,
    list: Type("array", {"type": "array"}, _exactly(list, "array")),
    dict: Type("object", {"type": "object"}, _exactly(dict, "object")),
}


def _numpy(hint: Any, depth: int) -> Optional[Type]:
    """Arrays and scalars of numpy and scalars, made with the element type that the hint names."""
    del depth
    dtype = arrays.read(hint)
    if dtype is None:
        return None
    make = arrays.maker(dtype)
    name = "number" if dtype.scalar else "array"

    def check(value: Any, where: str) -> Any:
        try:
            return make(value)
        except (ValueError, TypeError, OverflowError) as error:
            raise MismatchError(where, f"expected {name} of {dtype.name or 'numbers'}: {error}") from None

    return Type(name, {"type": name}, check, dtype)


def _generic(hint: Any, depth: int) -> Optional[Type]:
    """list[int], Optional[str], Literal["a"], Annotated[int, …] and their like."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hasattr(hint, "__supertype__"):  # NewType
        return read(hint.__supertype__, depth)
    if hasattr(hint, "__metadata__"):  # Annotated
        return read(hint.__origin__, depth)
    if origin in _UNION_TYPES:
        return _union([read(argument, depth) for argument in arguments])
    if origin is typing.Literal:
        return _choice(list(arguments), {_key(value): value for value in arguments})
    if origin is tuple or hint is tuple or hint is typing.Tuple:
        return _tuple(arguments, depth)
    if origin in (set, frozenset) or hint in (set, frozenset):
        items = read(arguments[0], depth) if arguments else any_type()
        return _array(items, origin or hint, {"uniqueItems": True})
    if origin in _SEQUENCES or hint in _SEQUENCES:
        return _array(read(arguments[0], depth) if arguments else any_type(), None, {})
    if origin in _ITERATORS:
        return _array(read(arguments[0], depth) if arguments else any_type(), None, {})
    if origin in _MAPPINGS or hint in _MAPPINGS:
        return _mapping(read(arguments[1], depth) if len(arguments) == 2 else any_type())
    return None


def _class(hint: Any, depth: int) -> Optional[Type]:
    """Enums, TypedDicts, dataclasses, and classes that validate themselves (pydantic's `model_validate`)."""
    if not isinstance(hint, type):
        return None
    if issubclass(hint, enum.Enum):
        return _choice([member.value for member in hint], {_key(member.value): member for member in hint})
    if issubclass(hint, dict) and hasattr(hint, "__required_keys__"):
        hints = _hints(hint)
        return _object(hint.__name__, {key: read(hints[key], depth) for key in hints}, hint.__required_keys__, None)
    if dataclasses.is_dataclass(hint):
        hints = _hints(hint)
        fields = [field for field in dataclasses.fields(hint) if field.init]
        missing = dataclasses.MISSING
        required = {f.name for f in fields if f.default is missing and f.default_factory is missing}
        return _object(hint.__name__, {f.name: read(hints.get(f.name, Any), depth) for f in fields}, required, hint)
    validate, describe = getattr(hint, "model_validate", None), getattr(hint, "model_json_schema", None)
    if callable(validate) and callable(describe):
        return Type(hint.__name__, describe(), _validated(validate))
    return None


def _hints(owner: Any) -> Dict[str, Any]:
    try:
        return typing.get_type_hints(owner)
    except Exception:  # noqa: BLE001 - a hint that this Python cannot evaluate: open rather than unusable
        return dict.fromkeys(getattr(owner, "__annotations__", {}), Any)


def _union(members: Sequence[Type]) -> Type:
    name = " or ".join(dict.fromkeys(member.name for member in members))

    def check(value: Any, where: str) -> Any:
        # An exact match first: `Union[float, int]` given 3 means the integer.
        for member in _exact_first(members, value):
            try:
                return member.check(value, where)
            except MismatchError:
                continue
        raise MismatchError(where, f"expected {name}, got {json_name(value)}")

    return Type(name, {"anyOf": [member.schema for member in members]}, check)


def _exact_first(members: Sequence[Type], value: Any) -> List[Type]:
    kind = json_name(value)
    return sorted(members, key=lambda member: member.schema.get("type") != kind)


def _choice(shown: List[Any], values: Dict[Any, Any]) -> Type:
    name = "one of " + ", ".join(repr(value) for value in shown)

    def check(value: Any, where: str) -> Any:
        try:
            return values[_key(value)]
        except (KeyError, TypeError):
            raise MismatchError(where, f"expected {name}, got {value!r:.80}") from None

    return Type(name, {"enum": shown}, check)


def _key(value: Any) -> Tuple[type, Any]:
    """True and 1 are equal in Python and different in JSON."""
    return type(value), value


def _array(items: Type, make: Optional[Callable[[Any], Any]], extra: Dict[str, Any]) -> Type:
    check_item = items.check

    def check(value: Any, where: str) -> Any:
        if type(value) is not list:
            raise MismatchError(where, f"expected array, got {json_name(value)}")
        checked = [check_item(item, f"{where}[{index}]") for index, item in enumerate(value)]
        try:
            return checked if make is None else make(checked)
        except TypeError:
            raise MismatchError(where, "its items cannot be members of a set") from None

    schema = {"type": "array", "items": items.schema} if items.schema else {"type": "array"}
    return Type("array", {**schema, **extra}, check)


def _tuple(arguments: Tuple[Any, ...], depth: int) -> Type:
    if not arguments:
        return _array(any_type(), tuple, {})
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return _array(read(arguments[0], depth), tuple, {})
    items = [read(argument, depth) for argument in arguments if argument != ()]

    def check(value: Any, where: str) -> Any:
        if type(value) is not list:
            raise MismatchError(where, f"expected array, got {json_name(value)}")
        if len(value) != len(items):
            raise MismatchError(where, f"expected {len(items)} items, got {len(value)}")
        return tuple(item.check(value[index], f"{where}[{index}]") for index, item in enumerate(items))

    sizes = {"minItems": len(items), "maxItems": len(items)}
    return Type("array", {"type": "array", "prefixItems": [item.schema for item in items], **sizes}, check)


def _mapping(values: Type) -> Type:
    def check(value: Any, where: str) -> Any:
        if type(value) is not dict:
            raise MismatchError(where, f"expected object, got {json_name(value)}")
        return {key: values.check(item, f"{where}.{key}") for key, item in value.items()}

    schema = {"type": "object", "additionalProperties": values.schema} if values.schema else {"type": "object"}
    return Type("object", schema, check)


def _object(title: str, fields: Dict[str, Type], required: Any, make: Optional[Callable[..., Any]]) -> Type:
    def check(value: Any, where: str) -> Any:
        if type(value) is not dict:
            raise MismatchError(where, f"expected object, got {json_name(value)}")
        for name in value:
            if name not in fields:
                raise MismatchError(f"{where}.{name}", f"unknown field, known: {', '.join(fields) or 'none'}")
        for name, field in fields.items():
            if name in required and name not in value:
                raise MismatchError(f"{where}.{name}", f"missing, expected {field.name}")
        checked = {name: fields[name].check(item, f"{where}.{name}") for name, item in value.items()}
        try:
            return checked if make is None else make(**checked)
        except (ValueError, TypeError) as error:  # a dataclass's own __post_init__
            raise MismatchError(where, str(error)) from None

    schema: Dict[str, Any] = {
        "type": "object",
        "title": title,
        "properties": {name: field.schema for name, field in fields.items()},
        "additionalProperties": False,
    }
    if required:
        schema["required"] = [name for name in fields if name in required]
    return Type("object", schema, check)


def _validated(validate: Callable[[Any], Any]) -> Check:
    def check(value: Any, where: str) -> Any:
        try:
            return validate(value)
        except ValueError as error:  # pydantic's ValidationError is one
            raise MismatchError(where, str(error)) from None

    return check
