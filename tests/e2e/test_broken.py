"""A broken edit of any kind: the old code answers throughout, every view says why with file and line, mending ends it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.sandbox import Sandbox, Terminal


def good(word: str) -> str:
    return f"def predict() -> str:\n    return {word!r}\n"


# Each kind: the broken main.py, the line at fault, and words of the reason.
BROKEN = {
    "syntax": ("def predict() -> str:\n    return (\n", 2, "SyntaxError"),
    "missing": ("import os\nimport no_such_module\n" + good("new"), 2, "no_such_module"),
    "raises": ("def load():\n    raise ValueError('no weights here')\n\n" + good("new"), 2, "no weights here"),
    "exits": ("import os\n\n\ndef load():\n    os._exit(3)\n\n" + good("new"), 5, "exited with status 3"),
    "hangs": (
        "import time\n\n\ndef load():\n    while True:\n        time.sleep(1)\n\n" + good("new"),
        6,
        "did not finish in 3 s",
    ),
}
# Long enough for a worker to start on a busy machine, short enough to wait for.
LOAD_TIMEOUT = "3s"


@pytest.fixture(scope="module")
def terminal(shared: Sandbox) -> Iterator[Terminal]:
    for name in BROKEN:
        shared.model(name, good("old"))
    shared.spec({name: {"load_timeout": LOAD_TIMEOUT} for name in BROKEN})
    with shared.attached() as terminal:
        yield terminal


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_edit_takes_nothing_down_is_explained_everywhere_and_is_mended(
    shared: Sandbox, terminal: Terminal, kind: str
) -> None:
    source, line, words = BROKEN[kind]
    before = shared.call(kind)
    assert before.prediction == "old"

    with shared.load(kind, keep=2, fresh=1).running() as load:
        shared.save(f"{kind}/main.py", source)
        event = shared.event(kind, "degraded")
        row = shared.row(kind)
        info = shared.info(kind)

    assert {(each.status, each.generation) for each in load.samples} == {(200, before.generation)}
    assert {each.body["data"]["prediction"] for each in load.samples} == {"old"}
    place = f"main.py:{line}"
    terminal.line(kind, words, place)
    assert row["state"] == "degraded"
    for reason in (row["reason"], info["reason"], event["message"]):
        assert words in reason
        assert place in reason
    for error in (row["error"], info["error"], event["data"]["error"]):
        assert (error["file"], error["line"]) == ("main.py", line)
    assert row["generation"] == before.generation
    assert "traceback" in row["error"]

    mended = shared.edit(f"{kind}/main.py", good("mended"))
    after = shared.call(kind)
    assert after.prediction == "mended"
    assert after.generation == mended["data"]["generation"] > before.generation
    row = shared.state_of(kind, "running")
    assert row["reason"] is None
    assert row["error"] is None


def test_going_back_to_the_old_text_ends_a_broken_edit(shared: Sandbox, terminal: Terminal) -> None:
    before = shared.call("syntax")
    text = (shared.project / "syntax/main.py").read_text()
    since = shared.mark()
    shared.save("syntax/main.py", "def predict(:\n")
    shared.event("syntax", "degraded", since)

    shared.edit("syntax/main.py", text)

    assert shared.state_of("syntax", "running")["error"] is None
    assert shared.call("syntax").content == before.content
