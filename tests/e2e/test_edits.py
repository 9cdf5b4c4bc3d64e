"""A save becomes what answers next, once, in every way that editors and git save."""

from __future__ import annotations

import pytest

from tests.e2e.sandbox import Sandbox


def says(word: str) -> str:
    return f"def predict() -> str:\n    return {word!r}\n"


@pytest.fixture(scope="module", autouse=True)
def running(shared: Sandbox) -> None:
    for name in ("one",):
        shared.model(name, says("first"))
    shared.spec(dict.fromkeys(("one",)))
    shared.up()


def test_the_next_call_after_the_acknowledgement_gets_the_new_code_and_says_so(shared: Sandbox) -> None:
    before = shared.call("one")
    assert before.prediction == "first"

    event = shared.edit("one/main.py", says("second"))

    after = shared.call("one")
    assert after.prediction == "second"
    assert after.generation == event["data"]["generation"] == before.generation + 1
    assert after.content != before.content
    assert event["data"]["content"].startswith(after.content)
    assert shared.row("one")["generation"] == after.generation
