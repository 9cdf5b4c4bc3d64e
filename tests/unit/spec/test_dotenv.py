"""Env files as Compose reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import SpecError
from orchestrator.spec.dotenv import parse

OUTER = {"OUT": "o", "A": "outer"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("# only a comment\n\n", {}),
        ("B=1", {"B": "1"}),
        ("B=1\r\nC=2\r\n", {"B": "1", "C": "2"}),
        ("\ufeffB=1", {"B": "1"}),
        ("  export B = 1  \n", {"B": "1"}),
        ("B=", {"B": ""}),
        ("B=a b # comment", {"B": "a b"}),
        ("B=a#b", {"B": "a#b"}),
        ("B=# comment", {"B": ""}),
        ("B='a # $OUT \\n'", {"B": "a # $OUT \\n"}),
        ('B="a # b" # comment', {"B": "a # b"}),
        ('B="x\\ny\\t\\"\\\\"', {"B": 'x\ny\t"\\'}),
        ('B="one\ntwo"\nC=3', {"B": "one\ntwo", "C": "3"}),
        ("B='one\ntwo'", {"B": "one\ntwo"}),
        ("B=$OUT", {"B": "o"}),
        ('B="${OUT}x"', {"B": "ox"}),
        ('B="\\$OUT"', {"B": "$OUT"}),
        ("B=$$OUT", {"B": "$OUT"}),
        ("B=1\nC=$B", {"B": "1", "C": "1"}),
        ("A=own\nC=$A", {"A": "own", "C": "outer"}),
        ("OUT\nGONE\n", {"OUT": "o"}),
        ("B=1\nB=2", {"B": "2"}),
        ("B=a=b", {"B": "a=b"}),
    ],
)
def test_a_file_is_read_as_compose_reads_it(text: str, expected: dict[str, str]) -> None:
    assert parse(text, OUTER, ".env") == expected


@pytest.mark.parametrize(
    ("text", "message", "at"),
    [
        ("A=1\n=2", "is not of the form NAME=value", ".env:2"),
        ("1A=2", "is not of the form NAME=value", ".env:1"),
        ("A=1\nB='x", "a value opens with ' and never closes", ".env:2"),
        ('B="x', 'a value opens with " and never closes', ".env:1"),
        ("B='x' y", "has text after the end of its value", ".env:1"),
        ("B y", "has text after the end of its value", ".env:1"),
        ("\n\nB=${", "no variable name after ${ in '${'", ".env:3"),
    ],
)
def test_what_cannot_be_read_names_its_line(text: str, message: str, at: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(text, OUTER, ".env")
    assert (caught.value.reference, caught.value.message, caught.value.at) == ("env-file", message, at)
    assert caught.value.hint


@given(st.text(alphabet=st.sampled_from(list("AB=# '\"\\${}\n\texport1")), max_size=40))
def test_no_text_makes_it_crash(text: str) -> None:
    try:
        parse(text, OUTER, ".env")
    except SpecError as error:
        assert error.reference == "env-file"  # noqa: PT017 - most texts are fine
