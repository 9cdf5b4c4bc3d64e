"""Compose's interpolation, case by case, and that nothing makes it crash."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import SpecError
from orchestrator.spec.interpolate import interpolate

VARIABLES = {"A": "a", "EMPTY": "", "B_2": "b", "DOLLAR": "$A", "_x": "u"}

CASES = [
    # plain text, names and braces
    ("", ""),
    ("no variable", "no variable"),
    ("$A", "a"),
    ("${A}", "a"),
    ("x$A", "xa"),
    ("$A.x", "a.x"),
    ("$A-x", "a-x"),
    ("${A}x", "ax"),
    ("$A$B_2", "ab"),
    ("${A}${B_2}", "ab"),
    ("$_x", "u"),
    ("$EMPTY", ""),
    ("$UNSET", ""),
    ("${UNSET}", ""),
    ("{A}", "{A}"),
    ("}", "}"),
    # a dollar
    ("$$", "$"),
    ("$$A", "$A"),
    ("$${A}", "${A}"),
    ("$$$A", "$a"),
    ("$$$$", "$$"),
    # what a value holds is not read again
    ("$DOLLAR", "$A"),
    # :- and -
    ("${A:-d}", "a"),
    ("${EMPTY:-d}", "d"),
    ("${UNSET:-d}", "d"),
    ("${UNSET:-}", ""),
    ("${A-d}", "a"),
    ("${EMPTY-d}", ""),
    ("${UNSET-d}", "d"),
    ("${UNSET:--}", "-"),
    ("${UNSET:-a:b-c?d+e}", "a:b-c?d+e"),
    ("${UNSET:-/a b/c.d}", "/a b/c.d"),
    # :+ and +
    ("${A:+i}", "i"),
    ("${EMPTY:+i}", ""),
    ("${UNSET:+i}", ""),
    ("${A+i}", "i"),
    ("${EMPTY+i}", "i"),
    ("${UNSET+i}", ""),
    # :? and ? where the variable is there
    ("${A:?gone}", "a"),
    ("${A?gone}", "a"),
    ("${EMPTY?gone}", ""),
    # nesting
    ("${UNSET:-$A}", "a"),
    ("${UNSET:-${A}}", "a"),
    ("${UNSET:-${UNSET2:-${B_2}}}", "b"),
    ("${UNSET:-x${A}y}", "xay"),
    ("${A:+${B_2:-c}}", "b"),
    ("${UNSET:-$$A}", "$A"),
    ('${UNSET:-{"a": {"b": 1}}}', '{"a": {"b": 1}}'),
    # a dollar before anything else is one
    ("$", "$"),
    ("a $ b", "a $ b"),
    ("$5", "$5"),
    ("${UNSET:-$}", "$"),
    # braces within
    ("${A:-{b}}", "a"),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_a_value_is_interpolated_as_compose_does(text: str, expected: str) -> None:
    assert interpolate(text, VARIABLES).text == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${UNSET:?set it}", "the variable UNSET is not set: set it"),
        ("${EMPTY:?set it}", "the variable EMPTY is empty: set it"),
        ("${UNSET?}", "the variable UNSET is not set"),
        ("${UNSET:?ask ${A}}", "the variable UNSET is not set: ask a"),
        ("${A:-${UNSET:?gone}}", "the variable UNSET is not set: gone"),
        ("${UNSET:+${UNSET:?gone}}", "the variable UNSET is not set: gone"),
        ("${}", "no variable name after ${ in '${}'"),
        ("${5}", "no variable name after ${ in '${5}'"),
        ("${A", "${A is followed by '' in '${A'"),
        ("${A:-b", "${ is never closed in '${A:-b'"),
        ("${A!b}", "${A is followed by '!' in '${A!b}'"),
        ("${A:b}", "${A is followed by ':' in '${A:b}'"),
        ("${A:-" * 50 + "}" * 50, "more than 40 nested ${…} in '" + ("${A:-" * 50)[:60] + "…'"),
    ],
)
def test_what_cannot_be_interpolated_is_refused_with_a_next_step(text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        interpolate(text, VARIABLES)
    assert (caught.value.reference, caught.value.message) == ("interpolation", message)
    assert caught.value.hint


def test_variables_that_are_not_set_are_named_once_and_only_where_they_leave_a_hole() -> None:
    assert interpolate("$U $U ${V} ${W:-d} $EMPTY ${A:-$X}", VARIABLES).unset == ("U", "V")


@given(
    st.text(alphabet=st.sampled_from(list("$${}{}:-?+AB_x9 \n'\"é")), max_size=60),
    st.dictionaries(st.sampled_from("ABx"), st.text(max_size=3)),
)
def test_no_text_makes_it_crash(text: str, variables: dict[str, str]) -> None:
    try:
        interpolate(text, variables)
    except SpecError as error:
        assert error.reference == "interpolation"  # noqa: PT017 - most texts are fine


@given(st.text())
def test_a_text_whose_dollars_are_doubled_comes_out_as_it_was(text: str) -> None:
    assert interpolate(text.replace("$", "$$"), {}).text == text
