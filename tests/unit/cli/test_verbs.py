"""start, stop, restart, kill: what they ask of control, what they show, how they exit."""

import pytest

from tests.unit.cli.conftest import event, row


@pytest.mark.parametrize(
    ("words", "path", "body"),
    [
        (["start"], "/api/start", {"models": []}),
        (["stop", "-t", "5", "hello"], "/api/stop", {"models": ["hello"], "timeout": 5.0}),
        (["restart", "hello"], "/api/restart", {"models": ["hello"], "timeout": None}),
        (["kill", "hello"], "/api/kill", {"models": ["hello"]}),
    ],
)
def test_each_asks_control_and_shows_what_became_of_it(words, path, body, control, sandbox):
    stopped = row(state="stopped", generation=None)
    control.answers["POST", path] = [
        event("stop", "stopped by hand"),
        {"type": "settled", "failed": [], "models": [stopped, row("other")]},
    ]
    assert sandbox(*words) == (0, "hello • stopped by hand\nhello • stopped\n", "")
    assert control.calls[-1][1::2] == (path, body)


@pytest.mark.parametrize("verb", ["start", "restart"])
def test_what_does_not_come_up_is_named_with_exit_code_1(verb, control, sandbox):
    failed = row(state="failed", reason="ImportError main.py:1 No module named 'numpi'")
    control.answers["POST", f"/api/{verb}"] = [{"type": "settled", "failed": ["hello"], "models": [failed]}]
    code, _, err = sandbox(verb)
    assert code == 1
    assert err.startswith(f"error: hello is not ready: {failed['reason']}\n  hint: see: sandbox logs hello\n")


def test_a_model_that_is_none_is_a_usage_error(control, sandbox):
    error = {"reference": "unknown-model", "message": "no model named helo", "hint": "did you mean hello?"}
    control.answers["POST", "/api/stop"] = [{"error": error}]
    assert sandbox("stop", "helo")[::2] == (
        2,
        "error: no model named helo\n  hint: did you mean hello?\n  (unknown-model)\n",
    )


@pytest.mark.parametrize("verb", ["start", "stop", "restart", "kill"])
def test_where_nothing_runs_they_say_so(verb, project, sandbox):
    assert sandbox(verb)[0] == 1
