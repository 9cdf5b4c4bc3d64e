"""YAML as we read it: core schema, merges, marks, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import yaml as pyyaml
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import SpecError
from orchestrator.spec import pureyaml, yaml
from orchestrator.spec.yaml import Document


def value(text: str) -> Any:
    return Document(text, "sandbox.yaml").value()


def refused(text: str) -> SpecError:
    with pytest.raises(SpecError) as caught:
        value(text)
    return caught.value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("Off", "Off"),
        ("true", True),
        ("False", False),
        ("tRue", "tRue"),
        ("null", None),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-12", -12),
        ("007", 7),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("0b1", "0b1"),
        ("12:30:45", "12:30:45"),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("-.5", -0.5),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("2024-01-01", "2024-01-01"),
        ("'12'", "12"),
        ('"true"', "true"),
        ("|\n  12\n", "12\n"),
        ("!!str 12", "12"),
        ("!!int '12'", 12),
        ("=", "="),
        ("[1, a, {b: c}]", [1, "a", {"b": "c"}]),
    ],
)
def test_a_scalar_is_what_the_core_schema_says(text: str, expected: object) -> None:
    assert value(f"k: {text}") == {"k": expected}


def test_a_number_remembers_how_it_was_written() -> None:
    found = value("[3.10, 007]")
    assert (found[0].text, found[1].text) == ("3.10", "007")


def test_keys_are_text_as_written() -> None:
    assert value("1: a\nno: b\n3.10: c\n") == {"1": "a", "no": "b", "3.10": "c"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}", {"p": 1, "q": 3}),
        ("a: &x {p: 1}\nb: {q: 3, <<: *x}", {"p": 1, "q": 3}),
        ("a: &x {p: 1}\nc: &y {p: 2, r: 3}\nb: {<<: [*x, *y]}", {"p": 1, "r": 3}),
        ("a: &x {p: 1}\nc: &y {<<: *x, q: 2}\nb: {<<: *y}", {"p": 1, "q": 2}),
        ("b: {'<<': 1}", {"<<": 1}),
    ],
)
def test_merge_keys_work_as_in_compose(text: str, expected: object) -> None:
    assert value(text)["b"] == expected


@pytest.mark.parametrize(
    ("text", "reference", "message", "at"),
    [
        ("a: [\n b", "yaml-syntax", "did not find expected ',' or ']'", "sandbox.yaml:3"),
        ("a:\n\tb: 1", "yaml-syntax", "found character that cannot start any token", "sandbox.yaml:2"),
        ("--- a\n--- b", "yaml-syntax", "holds a second document", "sandbox.yaml:2"),
        ("a: 1\nb: \0", "yaml-syntax", "control characters are not allowed", "sandbox.yaml:2"),
        ("a: *x", "yaml-syntax", "found undefined alias", "sandbox.yaml:1"),
        ("a: &x\n  b: *x", "yaml-syntax", "an alias contains itself", "sandbox.yaml:1"),
        ("? [a]\n: b", "yaml-syntax", "a key must be plain text, not a list or mapping", "sandbox.yaml:1"),
        ("a: 1\nb: {<<: 1}", "yaml-syntax", "<<: merges a mapping or a list of mappings", "sandbox.yaml:2"),
        ("a: !custom b", "yaml-syntax", "the tag !custom is not known here", "sandbox.yaml:1"),
        ("a: !!set {b}", "yaml-syntax", "the tag !!set is not known here", "sandbox.yaml:1"),
        ("a: !!bool 1", "yaml-syntax", "the tag !!bool is not known here", "sandbox.yaml:1"),
        ("a: 1\nb: 2\na: 3", "duplicate-key", "a: is written twice in one mapping", "sandbox.yaml:3"),
        ("1: 1\n'1': 2", "duplicate-key", "1: is written twice in one mapping", "sandbox.yaml:2"),
        ("x: &x {}\na:\n  <<: *x\n  <<: *x", "duplicate-key", "<<: is written twice in one mapping", "sandbox.yaml:4"),
        ("a: !!int b", "wrong-type", "a: 'b' cannot be read as a number", "sandbox.yaml:1"),
        (f"a: {'9' * 5000}", "wrong-type", f"a: '{'9' * 40}' cannot be read as a number", "sandbox.yaml:1"),
    ],
)
def test_what_is_refused_says_what_and_where(text: str, reference: str, message: str, at: str) -> None:
    error = refused(text)
    assert (error.reference, error.message, error.at) == (reference, message, at)
    assert error.hint


def test_a_few_aliases_cannot_fill_the_memory() -> None:
    layers = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 9))
    assert refused(f"l0: &l0 [x]\n{layers}").message == "holds more than 100000 values"


def test_deep_nesting_is_refused_and_no_crash() -> None:
    assert refused("[" * 5000).reference == "yaml-syntax"
    assert refused("[" * 900 + "]" * 900).message == "holds more than 100 levels"
    chain = "\n".join(f"k{n}: &k{n} {{<<: *k{n - 1}}}" for n in range(1, 3000))
    assert value(f"k0: &k0 {{}}\n{chain}")["k2999"] == {}


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ((), 1),
        (("models",), 2),
        (("models", "a"), 3),
        ("models.a.ports", 5),
        (("models", "a", "ports", 1), 7),
        (("models", "a", "absent"), 3),
        (("models", "b", "path"), 4),
        (("absent",), 1),
    ],
)
def test_every_key_path_has_its_line(path: Any, line: int) -> None:
    text = "# first\nmodels:\n  a: &a\n    path: x\n    ports:\n      - 1\n      - 2\n  b:\n    <<: *a\n"
    expected = 2 if path in ((), ("absent",)) else line
    assert Document(text, "f").where(path) == f"f:{expected}"


def test_text_is_handed_to_the_reader_with_its_path_and_keys_are_not() -> None:
    seen = []

    def read(text: str, path: yaml.KeyPath, at: str) -> str:
        seen.append((text, path, at))
        return text.upper()

    assert Document("$k: [a, 1, true]", "f").value(read) == {"$k": ["A", 1, True]}
    assert seen == [("a", ("$k", 0), "f:1")]


@given(st.text(alphabet=st.sampled_from(list("ab:-[]{},&*<'\"|>#!\n 01.~\t?$")), max_size=40))
def test_no_text_makes_it_crash(text: str) -> None:
    try:
        value(text)
    except SpecError as error:
        assert error.reference in {"yaml-syntax", "duplicate-key", "wrong-type"}  # noqa: PT017 - most texts are fine


@pytest.mark.parametrize("text", ["a: 1\nb: [x, 'y']\n", "a: [\n", "- &a b\n- *a\n", "a:\n\tb: 1"])
def test_the_parser_without_libyaml_reads_the_same(text: str) -> None:
    def outcome(compose: Callable[[], Any]) -> Any:
        try:
            return pyyaml.serialize(compose())
        except pyyaml.YAMLError as error:
            return type(error).__name__

    class Pure(pureyaml.Parser, pyyaml.resolver.BaseResolver):
        def __init__(self) -> None:
            pureyaml.Parser.__init__(self, text)
            pyyaml.resolver.BaseResolver.__init__(self)

    assert outcome(Pure().get_single_node) == outcome(lambda: pyyaml.compose(text, Loader=pyyaml.CBaseLoader))
