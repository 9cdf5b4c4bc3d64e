"""Which content is live, proven and steered: generations, pin, rollback and wait on the real product."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from orchestrator.errors import EXIT_FAILURE
from tests.e2e.sandbox import Sandbox

Json = dict[str, Any]


def says(word: str) -> str:
    return f"def predict() -> str:\n    return {word!r}\n"


def generations(sandbox: Sandbox, *options: str) -> dict[int, Json]:
    lines = sandbox.cli("generations", "one", *options, "--format", "json").stdout.splitlines()
    return {row["number"]: row for row in map(json.loads, lines)}


def live(sandbox: Sandbox, word: str) -> int:
    """What answers says this word, and every view names the same generation and content; its number."""
    answer = sandbox.call("one")
    assert answer.prediction == word
    row, info = sandbox.row("one"), sandbox.info("one")
    (listed,) = sandbox.request("GET", "/v1/models").body["data"]
    kept = next(each for each in generations(sandbox).values() if each["state"] == "active")
    numbers = {answer.generation, row["generation"], info["generation"], listed["generation"], kept["number"]}
    contents = {answer.content, row["content"], info["content"][:12], listed["content"], kept["content"]}
    assert (len(numbers), len(contents)) == (1, 1), (numbers, contents)
    return int(answer.generation)


@pytest.fixture
def project(sandbox: Sandbox) -> Sandbox:
    """One model whose second content is live."""
    sandbox.model("one", says("first"))
    sandbox.spec({"one": {"reload": {"keep": 3}}})
    sandbox.up()
    assert live(sandbox, "first") == 1
    sandbox.save("one/main.py", says("second"))
    sandbox.cli("wait", "one", "--generation", "latest")
    assert live(sandbox, "second") == 2
    return sandbox


def test_a_rollback_serves_the_old_content_through_a_crash_until_a_save_or_a_down(project: Sandbox) -> None:
    with project.load("one", keep=4, fresh=1).running() as load:
        done = project.cli("rollback", "one")
        assert "rollback to g1, as g3" in done.stdout
        assert live(project, "first") == 3
    assert {each.status for each in load.samples} == {200}
    assert {each.body["data"]["prediction"] for each in load.samples} <= {"first", "second"}
    assert generations(project)[3]["origin"] == 1
    assert generations(project)[3]["content"] == generations(project)[1]["content"]
    assert (project.project / "one" / "main.py").read_text() == says("second")
    reason = "rolled back to g1's content; the directory differs"
    assert (project.row("one")["state"], project.row("one")["reason"]) == ("running", reason)

    control = project.keeper["control"]["pid"]
    os.kill(control, signal.SIGKILL)
    project.until(lambda: project.keeper["control"]["pid"] != control)
    assert project.until(lambda: project.row("one")["reason"] == reason)
    assert live(project, "first") == 3

    project.save("one/main.py", says("third"))
    project.cli("wait", "one", "--generation", "latest")
    assert live(project, "third") == 4

    project.cli("rollback", "one", "2")
    assert live(project, "second") == 5
    project.down()
    project.up()
    project.cli("wait", "one", "--generation", "latest")
    assert live(project, "third") == 6


def test_a_pinned_generation_outlives_those_after_it(project: Sandbox) -> None:
    assert generations(project, "--pin", "1")[1]["pinned"]
    for number in range(3, 8):
        project.save("one/main.py", says(f"number {number}"))
        project.cli("wait", "one", "--generation", str(number))
    assert live(project, "number 7") == 7
    kept = generations(project)
    assert 1 in kept
    assert 2 not in kept
    project.cli("rollback", "one", "1")
    assert live(project, "first") == 8


def test_wait_says_why_what_is_on_disk_cannot_answer(project: Sandbox) -> None:
    project.save("one/main.py", "def predict(:\n")
    done = project.cli("wait", "one", "--generation", "latest", code=EXIT_FAILURE)
    assert "what is on disk does not answer: SyntaxError main.py:1" in done.stderr
    assert "(model-failed)" in done.stderr
    assert project.cli("wait", "one", "--generation", "2").stdout.startswith("one ✔ g2 answers (")
    assert live(project, "second") == 2
    assert generations(project)[3]["state"] == "failed"

    project.cli("rollback", "one", "2")
    assert live(project, "second") == 4
    assert (
        "rolled back to g2's content" in project.cli("wait", "one", "--generation", "latest", code=EXIT_FAILURE).stderr
    )
    assert "(not-live)" in project.cli("wait", "one", "--generation", "9", "--timeout", "0.1", code=1).stderr
