"""What generations, rollback and wait ask of control, print, and exit with."""

import pytest

from tests.unit.cli.conftest import event, row


def generation(number, **changed):
    return {
        "number": number,
        "content": f"{number:012x}",
        "created": "2026-11-20T12:00:00Z",
        "state": "retired",
        "pinned": False,
        "origin": None,
        "changed": ["main.py"],
        **changed,
    }


# Frozen: programs read it. A key may be added at the end, nothing else may change.
JSON = (
    '{"number": 3, "content": "000000000003", "created": "2026-11-20T12:00:00Z", "state": "retired", "pinned": false, '
    '"origin": null, "changed": ["main.py"]}'
)


def test_generations_are_listed_newest_first(control, sandbox):
    rows = [
        generation(5, state="active", origin=3),
        generation(4, state="failed", changed=["a.py", "b.py", "c.py", "d.py", "e.py"]),
        generation(3, pinned=True),
        generation(2, state="made", changed=[]),
    ]
    control.answers["GET", "/api/generations"] = {"generations": rows}
    code, out, err = sandbox("generations", "hello")
    assert (code, err) == (0, "")
    assert out == (
        "GENERATION   CONTENT        CREATED                STATE     PINNED   CHANGED\n"
        "g5           000000000005   2026-11-20T12:00:00Z   active    -        rollback to g3: main.py\n"
        "g4           000000000004   2026-11-20T12:00:00Z   failed    -        a.py, b.py, c.py and 2 more\n"
        "g3           000000000003   2026-11-20T12:00:00Z   retired   yes      main.py\n"
        "g2           000000000002   2026-11-20T12:00:00Z   made      -        -\n"
    )
    assert control.calls[-1][2] == {"model": "hello"}


def test_generations_as_json_are_frozen(control, sandbox):
    control.answers["GET", "/api/generations"] = {"generations": [generation(3)]}
    assert sandbox("generations", "hello", "--format", "json") == (0, f"{JSON}\n", "")
    assert sandbox("generations", "hello", "--format", "json-array") == (0, f"[{JSON}]\n", "")


@pytest.mark.parametrize(("flag", "pinned"), [("--pin", True), ("--unpin", False)])
def test_a_generation_is_pinned_and_unpinned_by_its_number(flag, pinned, control, sandbox):
    control.answers["POST", "/api/generations/pin"] = generation(3, pinned=pinned)
    code, out, _ = sandbox("generations", "hello", flag, "g3")
    assert code == 0
    assert out.splitlines()[1].startswith("g3 ")
    assert control.calls[-1][3] == {"model": "hello", "number": 3, "pinned": pinned}


@pytest.mark.parametrize(("words", "number"), [([], None), (["3"], 3), (["g3"], 3)])
def test_a_rollback_shows_what_happens_and_that_data_differs(words, number, control, sandbox):
    control.answers["POST", "/api/rollback"] = [
        event("reload", "rollback to g3, as g6; data/ is not what it was then"),
        event("reload", "✔ g6 in 38 ms (fork: rollback to g3)", ok=True),
        {"type": "settled", "failed": [], "models": [row(reason="rolled back to g3's content; the directory differs")]},
    ]
    code, out, err = sandbox("rollback", "hello", *words)
    assert (code, err) == (0, "")
    assert out == (
        "hello • rollback to g3, as g6; data/ is not what it was then\n"
        "hello ✔ g6 in 38 ms (fork: rollback to g3)\n"
        "hello ✔ running: rolled back to g3's content; the directory differs g1\n"
    )
    assert control.calls[-1][3] == {"model": "hello", "number": number}


def test_a_rollback_that_is_refused_says_why(control, sandbox):
    error = {"reference": "no-generation", "message": "model hello: generation 9 is not kept", "hint": "see", "at": ""}
    control.answers["POST", "/api/rollback"] = [{"error": error}]
    code, out, err = sandbox("rollback", "hello", "9")
    assert (code, out) == (1, "")
    assert err == "error: model hello: generation 9 is not kept\n  hint: see\n  (no-generation)\n"


def test_a_rollback_that_is_rejected_exits_with_1(control, sandbox):
    reason = "ImportError main.py:1 as asked"
    control.answers["POST", "/api/rollback"] = [
        event("reload", f"✖ g6 rejected: {reason}", ok=False),
        event("degraded", reason),
        {"type": "settled", "failed": ["hello"], "models": [row(state="degraded", reason=reason)]},
    ]
    code, out, _ = sandbox("rollback", "hello")
    assert code == 1
    assert out.startswith(f"hello ✖ g6 rejected: {reason}\n")


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["--generation", "latest"], {"generation": "latest"}),
        (["--generation", "18"], {"generation": "18"}),
        (["--generation", "g18", "--timeout", "2"], {"generation": "18", "timeout": "2.0"}),
    ],
)
def test_wait_says_what_answers(words, asked, control, sandbox):
    control.answers["GET", "/api/wait"] = [{"type": "live", "model": "hello", "generation": 18, "content": "0" * 12}]
    assert sandbox("wait", "hello", *words) == (0, f"hello ✔ g18 answers ({'0' * 12})\n", "")
    assert control.calls[-1][2] == {"model": "hello", **asked}


@pytest.mark.parametrize("reference", ["not-live", "path-outside"])
def test_wait_exits_with_1_whatever_the_reason(reference, control, sandbox):
    message = "hello: what is on disk does not answer: SyntaxError main.py:3 invalid syntax"
    control.answers["GET", "/api/wait"] = [{"error": {"reference": reference, "message": message, "hint": "mend it"}}]
    code, out, err = sandbox("wait", "hello", "--generation", "latest")
    assert (code, out) == (1, "")
    assert err == f"error: {message}\n  hint: mend it\n  ({reference})\n"


def test_a_control_that_ends_while_it_waits_is_an_error(control, sandbox):
    control.answers["GET", "/api/wait"] = []
    code, _, err = sandbox("wait", "hello", "--generation", "latest")
    assert code == 1
    assert err.endswith("  (control)\n")


@pytest.mark.parametrize(
    "words",
    [
        ["generations"],
        ["generations", "hello", "--pin", "x"],
        ["generations", "hello", "--pin", "1", "--unpin", "2"],
        ["rollback", "hello", "0"],
        ["rollback", "hello", "first"],
        ["wait", "hello", "--generation", "newest"],
        ["wait", "hello", "other", "--generation", "3"],
        ["wait", "hello", "--timeout", "3"],
        ["wait", "hello", "--timeout", "-1"],
    ],
)
def test_what_is_no_number_is_a_usage_error(words, sandbox):
    code, out, err = sandbox(*words)
    assert (code, out) == (2, "")
    assert err.endswith("  (usage)\n")
