"""What each command asks of control, prints, and exits with."""

import http.server
import json
import os
import threading

import pytest

from orchestrator import folders
from tests.unit.cli.conftest import event, row

# Frozen: programs read it. A key may be added at the end, nothing else may change.
PS_JSON = (
    '{"name": "hello", "state": "running", "reason": null, "error": null, "generation": 1, "content": "0123456789ab", '
    '"runtime": "process", "python": "3.11.7", "replicas": {"ready": 1, "desired": 1}, "restarts": 0, '
    '"not_enforced": [], "since": "2026-11-20T12:00:00.000Z", '
    '"pids": {"agent": [10], "zygote": [11], "workers": [12]}, "url": "http://127.0.0.1:8080/models/hello/predict", '
    '"unforkable": null}\n'
)
BROKEN = {
    "type": "SyntaxError",
    "message": "invalid syntax",
    "file": "main.py",
    "line": 3,
    "traceback": '  File "main.py", line 3\n    retrun 1\n           ^\nSyntaxError: invalid syntax',
}


def models(control, *rows, **sandbox):
    answer = control.answers["GET", "/api/models"]
    answer["models"] = list(rows)
    answer["sandbox"] |= sandbox


def test_ps_as_json_is_frozen(control, sandbox):
    models(control, {**row(), "added by a newer control": 1})
    assert sandbox("ps", "--format", "json") == (0, PS_JSON, "")
    assert sandbox("ps", "--format", "json-array") == (0, f"[{PS_JSON.strip()}]\n", "")
    assert sandbox("ps", "-q") == (0, "hello\n", "")


def test_ps_says_what_is_wrong(control, sandbox):
    reason = "SyntaxError main.py:3 invalid syntax"
    broken = row("digits", state="degraded", reason=reason, generation=17, restarts=2)
    starting = row("new", state="building", generation=None, replicas={"ready": 0, "desired": 1}, python=None)
    models(
        control,
        row(not_enforced=["memory: watched, not enforced"], unforkable="2 threads run"),
        broken,
        starting,
        orphans=["old"],
    )
    code, out, err = sandbox("ps")
    assert code == 0
    assert out == (
        "NAME     GENERATION   REPLICAS   RUNTIME   PYTHON   URL                                           STATUS\n"
        "hello    g1           1/1        process   3.11.7   http://127.0.0.1:8080/models/hello/predict    running\n"
        "digits   g17          1/1        process   3.11.7   http://127.0.0.1:8080/models/digits/predict   "
        "degraded: SyntaxError main.py:3 invalid syntax (restarts: 2)\n"
        "new      -            0/1        process   -        http://127.0.0.1:8080/models/new/predict      building\n"
        "hello: not enforced here: memory: watched, not enforced\n"
        "hello: workers are spawned, not forked: 2 threads run\n"
    )
    assert err == "warning: no longer in sandbox.yaml: old; sandbox up --remove-orphans\n"


def test_a_model_cannot_draw_on_the_terminal(control, sandbox):
    models(control, row(state="failed", reason="\x1b[2J\x07evil\nsecond"))
    assert "failed: [2Jevil second\n" in sandbox("ps")[1]


def test_an_unknown_model_is_named_with_its_neighbour(control, sandbox):
    code, _, err = sandbox("ps", "helo")
    assert code == 2
    assert err == "error: no model helo runs here\n  hint: did you mean hello?\n  (unknown-model)\n"


@pytest.mark.parametrize("words", [["ps"], ["reload"], ["events"], ["logs", "-f"], ["predict", "hello", "x=1"]])
def test_where_nothing_runs_it_says_how_to_start(words, project, sandbox):
    code, out, err = sandbox(*words)
    assert (code, out) == (1, "")
    assert err == f"error: no sandbox runs in {project}\n  hint: start it with: sandbox up\n  (not-running)\n"


def test_an_error_of_control_keeps_its_reference_hint_and_place(control, sandbox):
    error = {"reference": "store", "message": "store.db is no database", "hint": "remove it", "at": "store.db"}
    control.answers["GET", "/api/models"] = (500, {"error": error})
    code, _, err = sandbox("ps")
    assert code == 1
    assert err == "error: store.db: store.db is no database\n  hint: remove it\n  (store)\n"


UP = {"remove_orphans": False, "force_recreate": False, "scale": {}, "watched": True, "wait_timeout": None}


def test_up_shows_each_step_and_says_where_it_answers(control, sandbox):
    control.answers["POST", "/api/up"] = [
        event("progress", "installing numpy"),
        event("ready", "✔ ready g1 in 0.4 s", ok=True, generation=1),
        {"type": "settled", "failed": [], "models": [row()]},
    ]
    code, out, err = sandbox("up", "-d")
    assert (code, err) == (0, "")
    assert out == "hello • installing numpy\nhello ✔ ready g1 in 0.4 s\n\nhttp://127.0.0.1:8080\n\n"
    _, _, _, body = next(call for call in control.calls if call[1] == "/api/up")
    assert body == {**UP, "models": [], "profiles": []}


def test_up_names_what_already_ran(control, sandbox):
    control.answers["POST", "/api/up"] = [{"type": "settled", "failed": [], "models": [row(), row("other")]}]
    assert sandbox("up", "--wait")[1].startswith("hello ✔ running g1\n\n")


def test_up_d_exits_1_naming_those_that_failed(control, sandbox):
    failed = row(state="failed", reason="ImportError main.py:1 No module named 'numpi'", generation=None)
    control.answers["POST", "/api/up"] = [
        event("failed", failed["reason"], error={**BROKEN, "traceback": "one\ntwo"}),
        {"type": "settled", "failed": ["hello"], "models": [failed]},
    ]
    code, out, err = sandbox("up", "-d")
    assert code == 1
    assert out.startswith(f"hello ✖ failed: {failed['reason']}\nhello   one\nhello   two\n")
    assert err == f"error: hello is not ready: {failed['reason']}\n  hint: see: sandbox logs hello\n  (model-failed)\n"


def test_up_passes_models_profiles_and_orphans_on(control, sandbox):
    control.answers["POST", "/api/up"] = [{"type": "settled", "failed": [], "models": []}]
    assert sandbox("--profile", "big", "up", "-d", "--remove-orphans", "digits")[0] == 0
    _, _, _, body = next(call for call in control.calls if call[1] == "/api/up")
    assert body == {**UP, "models": ["digits"], "profiles": ["big"], "remove_orphans": True}


def test_up_attached_goes_on_with_logs_and_events_until_a_down(control, sandbox):
    ready = event("ready", "ready g1 in 0.4 s", ok=True)
    broken = event("degraded", "SyntaxError main.py:3 invalid syntax", error=BROKEN)
    ended = threading.Barrier(2, action=control.down)

    def stream(*lines):
        def answer():
            ended.wait(20)  # both streams are open before a down elsewhere ends them
            return list(lines)

        return answer

    control.answers |= {
        ("POST", "/api/up"): [ready, {"type": "settled", "failed": [], "models": [row()]}],
        ("GET", "/api/events"): stream(ready, broken),
        ("GET", "/api/logs"): stream(
            {"t": "2026-11-20T12:00:01Z", "g": 1, "s": "out", "m": "loading", "model": "hello"}
        ),
    }
    code, out, _ = sandbox("up")
    assert code == 0
    assert out.count("ready g1") == 1  # what was shown while it came up is not shown again
    assert "hello | loading\n" in out
    assert "hello ✖ degraded: SyntaxError main.py:3 invalid syntax\n" in out
    assert 'hello     File "main.py", line 3\nhello       retrun 1\nhello              ^\n' in out
    assert out.endswith("the sandbox has ended\n")


def test_a_traceback_is_shown_once(control, sandbox):
    rejected = event("reload", "✖ g18 rejected: SyntaxError main.py:3", ok=False, error=BROKEN)
    degraded = event("degraded", "SyntaxError main.py:3", error=BROKEN)
    control.answers["GET", "/api/events"] = [rejected, degraded]
    assert sandbox("events")[1].count("retrun") == 1


def test_down_waits_until_all_is_gone(control, sandbox):
    def answer():
        control.down()
        return [event("stop", "stopped"), {"type": "done"}]

    control.answers["POST", "/api/down"] = answer
    assert sandbox("down", "-t", "3") == (0, "hello • stopped\n✔ sandbox stopped\n", "")
    assert control.calls[-1][3] == {"timeout": 3.0, "volumes": False, "images": False}


def test_down_where_nothing_runs_is_no_error_and_v_removes_our_folder(project, sandbox):
    read_only = project / ".sandbox" / "generations" / "tree-1"
    read_only.mkdir(parents=True)
    read_only.chmod(0o555)
    assert sandbox("down")[0] == 0
    assert read_only.exists()
    assert sandbox("down", "-v")[:2] == (0, "removed .sandbox\n")
    assert sorted(os.listdir(project)) == ["model_dirs", "sandbox.yaml"]


def test_reload_exits_1_where_the_new_generation_was_rejected(control, sandbox):
    control.answers["POST", "/api/reload"] = [
        {"type": "settled", "failed": ["hello"], "models": [row(state="degraded")]}
    ]
    assert sandbox("reload")[0] == 1
    assert control.calls[-1][3] == {"models": []}


def test_plan_prints_actions_with_their_cause(control, sandbox):
    action = {"model": "hello", "verb": "load", "detail": "g3", "cause": "main.py changed"}
    control.answers["GET", "/api/plan"] = {"actions": [action]}
    assert sandbox("plan") == (0, "hello load g3  (main.py changed)\n", "")
    assert sandbox("plan", "--exit-code")[0] == 3
    assert json.loads(sandbox("plan", "--format", "json")[1]) == action
    control.answers["GET", "/api/plan"] = {"actions": []}
    assert sandbox("plan", "--exit-code")[0] == 0


def test_plan_without_a_sandbox_starts_what_is_wanted(project, sandbox):
    assert sandbox("plan") == (0, "hello start  (no sandbox runs here)\n", "")


def test_events_as_json_are_what_control_sent(control, sandbox):
    found = event("reload", "✔ g18 in 38 ms (fork: main.py)", ok=True)
    control.answers["GET", "/api/events"] = [found]
    assert (
        json.loads(sandbox("events", "--format", "json", "--since", "2026-11-20T13:00:00+01:00", "hello")[1]) == found
    )
    assert control.calls[-1][2] == {"since": "2026-11-20T12:00:00.000Z", "models": "hello"}
    assert sandbox("events")[1] == "2026-11-20T12:00:00.123Z hello ✔ g18 in 38 ms (fork: main.py)\n"


def test_logs_are_prefixed(control, sandbox):
    control.answers["GET", "/api/logs"] = [
        {"t": "2026-11-20T12:00:00Z", "g": 1, "s": "out", "m": "one", "model": "hello"},
        {"t": "2026-11-20T12:00:01Z", "g": 1, "s": "err", "m": "two", "model": "digits"},
    ]
    assert sandbox("logs", "--tail", "5", "hello", "digits")[1] == "hello  | one\ndigits | two\n"
    assert control.calls[-1][2] == {"models": "hello,digits", "tail": "5"}
    assert sandbox("logs", "--no-log-prefix", "-t")[1].startswith("2026-11-20T12:00:00Z one\n")


def test_logs_outlive_the_sandbox(project, sandbox):
    logs = project / ".sandbox" / "logs"
    logs.mkdir(parents=True)
    lines = [{"t": f"2026-11-20T12:00:0{second}Z", "g": 1, "s": "out", "m": f"line {second}"} for second in range(3)]
    (logs / "hello.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"t": "half')
    assert sandbox("logs", "--tail", "2")[1] == "hello | line 1\nhello | line 2\n"
    assert sandbox("logs", "--since", "2026-11-20T12:00:02Z")[1] == "hello | line 2\n"
    assert sandbox("logs", "--tail", "0")[1] == ""


# predict, through a stand-in gateway


@pytest.fixture
def gateway(control):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status = 400 if "bad" in body else 200
            answer = {"success": True, "data": {"prediction": body, "processing_time": 0.1}}
            if status != 200:
                error = {"code": "INVALID_REQUEST", "details": "x: missing"}
                answer = {"success": False, "message": "the input is wrong", "error": error}
            self.send(status, answer)

        def do_GET(self):
            self.send(200, {"success": True, "data": {"name": "hello", "example": {"x": "it's"}}})

        def send(self, status, answer):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    models(control, row(), url=url)
    yield url
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("words", "sent"),
    [
        (['{"x": 5.5}'], {"x": 5.5}),
        (
            ["x=5.5", "name=text", 'tags=["a"]', "equation=a=b", "flag=true"],
            {"x": 5.5, "name": "text", "tags": ["a"], "equation": "a=b", "flag": True},
        ),
        (["@input.json"], {"from": "file"}),
    ],
)
def test_predict_takes_json_a_file_or_pairs(words, sent, gateway, project, sandbox):
    (project / "input.json").write_text('{"from": "file"}')
    code, out, _ = sandbox("predict", "hello", *words)
    assert (code, json.loads(out)) == (0, sent)


def test_predict_shows_the_gateways_own_error(gateway, sandbox):
    code, out, err = sandbox("predict", "hello", "bad=1")
    assert (code, out) == (1, "")
    hints = f"  hint: x: missing\n  hint: what it takes: curl {gateway}/models/hello/info\n"
    assert err == f"error: INVALID_REQUEST: the input is wrong\n{hints}  (request)\n"


@pytest.mark.parametrize("words", [["@missing.json"], ["{x: 1}"], ["x"], ["=1"]])
def test_an_input_that_cannot_be_read_is_refused_before_any_call(words, control, sandbox):
    assert sandbox("predict", "hello", *words)[0] == 2
    assert control.calls == []


def test_up_ends_with_a_call_to_paste(gateway, control, sandbox):
    control.answers["POST", "/api/up"] = [{"type": "settled", "failed": [], "models": [row()]}]
    last = sandbox("up", "-d")[1].strip().splitlines()[-1]
    assert last == f"""  curl -d '{{"x": "it'"'"'s"}}' {gateway}/models/hello/predict"""


# ls


def test_ls_lists_living_sandboxes_and_unsupervised_ones(project, sandbox):
    registry = folders.private(folders.registry_folder())
    me = {"pid": os.getpid(), "start_time": folders.start_time(os.getpid())}
    common = {"boot_id": folders.boot_id(), "host": "0.0.0.0", "port": 8080, "directory": "/p"}
    entries = {
        "a": {"keeper": me},
        "b": {"keeper": {"pid": 1, "start_time": 1}},
        "c": {"keeper": me, "boot_id": "other"},
    }
    for name, entry in entries.items():
        folders.write_json(os.path.join(registry, f"{name}.json"), {"id": name, "name": name, **common, **entry})
    lines = [json.loads(line) for line in sandbox("ls", "--format", "json")[1].splitlines()]
    assert [(line["name"], line["status"]) for line in lines] == [("a", "running"), ("b", "unsupervised")]
    assert list(lines[0]) == ["id", "name", "directory", "url", "status"]
    assert lines[0]["url"] == "http://127.0.0.1:8080"
    assert sandbox("ls", "-q")[1] == "a\nb\n"


def test_following_shows_each_line_once_when_control_comes_back(control, sandbox):
    def line(second, text, **more):
        return {"t": f"2026-11-20T12:00:0{second}Z", "g": 1, "s": "out", "m": text, "model": "hello", **more}

    # As they happen lines carry more than out of the store; a model may well print the same thing twice at once.
    first = [line(1, "a", replica="x"), line(2, "b", replica="x"), line(2, "b", replica="x")]
    second = [line(2, "b"), line(2, "b"), line(2, "b"), line(3, "c")]
    answers = iter([first, second])

    def answer():
        lines = next(answers)
        if lines is second:
            control.down()
        return lines

    control.answers["GET", "/api/logs"] = answer
    assert sandbox("logs", "-f", "--tail", "3", "--no-log-prefix")[1] == "a\nb\nb\nb\nc\n"
    assert [call[2].get("since") for call in control.calls] == [None, "2026-11-20T12:00:02Z"]
    assert [call[2].get("tail") for call in control.calls] == ["3", None]
