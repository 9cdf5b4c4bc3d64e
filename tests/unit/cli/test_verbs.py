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


def test_up_hands_its_flags_on(control, sandbox):
    control.answers["POST", "/api/up"] = [{"type": "settled", "failed": [], "models": [row()]}]
    flags = ["--force-recreate", "--scale", "hello=3", "--no-watch", "--wait-timeout", "9"]
    assert sandbox("up", "-d", *flags)[0] == 0
    _, _, _, body = next(call for call in control.calls if call[1] == "/api/up")
    wanted = {"force_recreate": True, "scale": {"hello": 3}, "watched": False, "wait_timeout": 9.0}
    assert {key: body[key] for key in wanted} == wanted


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--scale", "hello"], "'hello' is not MODEL=N"),
        (["--scale", "hello=-1"], "'hello=-1' is not MODEL=N"),
        (["--scale", "helo=1"], "no model helo is to run"),
        (["-d", "--exit-code-from", "hello"], "cannot be detached"),
        (["--exit-code-from", "digits"], "no model digits is to run"),
        (["--wait-timeout", "3"], "--wait-timeout goes with --detach or --wait"),
    ],
)
def test_flags_of_up_that_make_no_sense_start_nothing(words, said, control, sandbox):
    code, out, err = sandbox("up", *words)
    assert (code, out) == (2, "")
    assert said in err
    assert control.calls == []


def test_up_dry_run_shows_the_plan_and_does_nothing(control, sandbox):
    action = {"model": "hello", "verb": "fork", "detail": "", "cause": "main.py"}
    control.answers["GET", "/api/plan"] = {"actions": [action, {**action, "model": "other"}]}
    assert sandbox("up", "--dry-run", "hello") == (0, "hello fork  (main.py)\n", "")
    assert [call[1] for call in control.calls] == ["/api/plan"]


def test_exit_code_from_takes_everything_down_and_exits_as_the_model_did(control, sandbox):
    def down():
        control.down()
        return [{"type": "done"}]

    control.answers |= {
        ("POST", "/api/up"): [{"type": "settled", "failed": [], "models": [row()]}],
        ("GET", "/api/events"): [],
        ("GET", "/api/logs"): [],
        ("GET", "/api/ended"): [{"type": "ended", "model": "hello", "code": 7}],
        ("POST", "/api/down"): down,
    }
    assert sandbox("up", "--exit-code-from", "hello")[0] == 7
    assert ("POST", "/api/down") in {call[:2] for call in control.calls}


def test_wait_exits_as_the_last_model_did(control, sandbox):
    codes = iter([3, 137])
    control.answers["GET", "/api/ended"] = lambda: [{"type": "ended", "code": next(codes)}]
    assert sandbox("wait", "hello", "other") == (137, "hello exited with 3\nother exited with 137\n", "")


def test_wait_ends_with_the_sandbox(control, sandbox):
    def gone():
        control.down()
        return []

    control.answers["GET", "/api/ended"] = gone
    assert sandbox("wait", "hello") == (0, "hello exited with 0\n", "")


def test_ps_shows_those_in_a_state(control, sandbox):
    control.answers["GET", "/api/models"]["models"] = [row(), row("broken", state="failed")]
    assert sandbox("ps", "-q", "--status", "failed")[1] == "broken\n"
    assert sandbox("ps", "-q", "--filter", "status=failed", "--status", "running")[1] == "hello\nbroken\n"
    assert sandbox("ps", "--filter", "name=hello")[0] == 2


def test_port_is_where_the_gateway_is(control, sandbox):
    assert sandbox("port") == (0, "127.0.0.1:8080\n", "")
    assert sandbox("port", "hello") == (0, "127.0.0.1:8080\n", "")
    assert sandbox("port", "helo")[0] == 2


def test_events_json_is_its_format(control, sandbox):
    control.answers["GET", "/api/events"] = [event("ready", "ready")]
    assert sandbox("events", "--json") == sandbox("events", "--format", "json")


def test_down_rmi_asks_for_the_images_too(control, sandbox):
    def down():
        control.down()
        return [{"type": "done"}]

    control.answers["POST", "/api/down"] = down
    assert sandbox("down", "--rmi", "local")[0] == 0
    assert control.calls[-1][3]["images"] is True
    assert sandbox("down", "--rmi", "all")[0] == 2
