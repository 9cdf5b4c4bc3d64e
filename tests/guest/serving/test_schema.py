"""Type hints as JSON schema, and the check of inputs against them."""

# ruff: noqa: UP006, UP007, UP045 - the older spellings are what is tested

import dataclasses
import enum
import typing
from typing import Any, Literal, NotRequired, Optional, TypedDict, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox import schema
from sandbox.refusal import Refusal
from sandbox.signature import Signature


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Movie(TypedDict):
    title: str
    year: NotRequired[int]


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0


class Node(TypedDict):
    children: "list[Node]"


class Validated:
    @classmethod
    def model_validate(cls, value):
        if value != {"k": 1}:
            raise ValueError("k must be 1")
        return "validated"

    @classmethod
    def model_json_schema(cls):
        return {"type": "object", "title": "Validated"}


CASES = [
    (int, {"type": "integer"}, [(3, 3), (3.0, 3)], ["a", 1.5, True, None, [1]]),
    (float, {"type": "number"}, [(1.5, 1.5), (2, 2.0)], ["1", True, None]),
    (str, {"type": "string"}, [("a", "a")], [1, None]),
    (bool, {"type": "boolean"}, [(True, True)], [1, 0, "true"]),
    (None, {"type": "null"}, [(None, None)], [0]),
    (Any, {}, [(1, 1), (None, None), ([{}], [{}])], []),
    (list, {"type": "array"}, [([1, "a"], [1, "a"])], ["ab", {}]),
    (list[int], {"type": "array", "items": {"type": "integer"}}, [([], []), ([1, 2.0], [1, 2])], [["a"], 1]),
    (typing.List[float], {"type": "array", "items": {"type": "number"}}, [([1], [1.0])], [[None]]),
    (typing.Sequence[str], {"type": "array", "items": {"type": "string"}}, [(["a"], ["a"])], ["a"]),
    (set[int], {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, [([1, 1], {1})], [["a"]]),
    (
        tuple[int, str],
        {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "minItems": 2, "maxItems": 2},
        [([1, "a"], (1, "a"))],
        [[1], [1, 2], [1, "a", 2]],
    ),
    (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}, [([1, 2], (1, 2))], [["a"]]),
    (dict, {"type": "object"}, [({"a": 1}, {"a": 1})], [[]]),
    (
        typing.Dict[str, int],
        {"type": "object", "additionalProperties": {"type": "integer"}},
        [({"a": 1.0}, {"a": 1})],
        [{"a": "b"}],
    ),
    (Optional[int], {"anyOf": [{"type": "integer"}, {"type": "null"}]}, [(None, None), (1, 1)], ["a"]),
    (int | str, {"anyOf": [{"type": "integer"}, {"type": "string"}]}, [("a", "a"), (1, 1)], [None, 1.5]),
    (Union[float, int], {"anyOf": [{"type": "number"}, {"type": "integer"}]}, [(3, 3), (3.5, 3.5)], ["a"]),
    (Literal["a", 1], {"enum": ["a", 1]}, [("a", "a"), (1, 1)], ["b", True]),
    (Colour, {"enum": ["red", "blue"]}, [("red", Colour.RED)], ["green", ["red"]]),
    (
        Point,
        {
            "type": "object",
            "title": "Point",
            "properties": {"x": {"type": "number"}, "y": {"type": "number"}},
            "additionalProperties": False,
            "required": ["x"],
        },
        [({"x": 1}, Point(1.0))],
        [{"y": 1}, {"x": 1, "z": 2}, {"x": "a"}],
    ),
    (
        Movie,
        {
            "type": "object",
            "title": "Movie",
            "properties": {"title": {"type": "string"}, "year": {"type": "integer"}},
            "additionalProperties": False,
            "required": ["title"],
        },
        [({"title": "a"}, {"title": "a"})],
        [{"year": 1}],
    ),
    (typing.Annotated[int, "a comment"], {"type": "integer"}, [(1, 1)], ["a"]),
    (typing.NewType("UserId", int), {"type": "integer"}, [(1, 1)], ["a"]),
    (Validated, {"type": "object", "title": "Validated"}, [({"k": 1}, "validated")], [{"k": 2}]),
    (complex, {}, [("anything", "anything")], []),
]


@pytest.mark.parametrize(("hint", "described", "good", "bad"), CASES, ids=lambda case: str(case)[:30])
def test_a_hint_describes_and_checks(hint, described, good, bad):
    found = schema.read(hint)
    assert found.schema == described
    for value, expected in good:
        checked = found.check(value, "x")
        assert checked == expected
        assert type(checked) is type(expected)
    for value in bad:
        with pytest.raises(schema.MismatchError, match=r"^x"):
            found.check(value, "x")


def test_a_type_that_contains_itself_ends():
    assert schema.read(Node).check({"children": [{"children": []}]}, "x") == {"children": [{"children": []}]}


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"p": [1, "b"]}, "p[1]: expected number, got string"),
        ({"p": [1], "m": {"title": 1}}, "m.title: expected string, got integer"),
        ({"p": [1], "c": "green"}, "c: expected one of 'red', 'blue', got 'green'"),
        ({"p": [1], "o": "a"}, "o: expected integer or null, got string"),
        ({}, "p: missing, expected array"),
        ({"p": [], "q": 1}, "q: unknown parameter, known: p, m, c, o"),
    ],
)
def test_errors_name_the_field(inputs, message):
    def predict(p: list[float], m: Movie = None, c: Colour = Colour.RED, o: int | None = None): ...

    with pytest.raises(Refusal) as refused:
        Signature(predict).bind(inputs)
    assert refused.value.message.startswith(message)


def test_a_signature_is_a_schema_with_its_defaults():
    def predict(x: int, *, label: str = "a", factor=2.0, other: object = object()) -> list[str]: ...

    signature = Signature(predict)
    assert signature.input_schema == {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "x": {"type": "integer"},
            "label": {"type": "string", "default": "a"},
            "factor": {"default": 2.0},
            "other": {},
        },
        "required": ["x"],
        "additionalProperties": False,
    }
    assert signature.output_schema["items"] == {"type": "string"}
    assert signature.bind({"x": 1}) == ([], {"x": 1})


def test_a_hint_that_cannot_be_evaluated_leaves_the_others_in_force():
    def predict(x: "int", y: "NoSuchName"): ...  # noqa: F821

    signature = Signature(predict)
    assert signature.bind({"x": 1, "y": object}) == ([], {"x": 1, "y": object})
    with pytest.raises(Refusal, match=r"x: expected integer"):
        signature.bind({"x": "a", "y": 1})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from([case[0] for case in CASES]), JSON)
def test_a_check_accepts_or_names_the_field_and_nothing_else(hint, value):
    assert problem(schema.read(hint), value).startswith("x")


def problem(found, value):
    try:
        found.check(value, "x")
    except schema.MismatchError as mismatch:
        return str(mismatch)
    return "x is accepted"
