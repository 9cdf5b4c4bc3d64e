"""stats and top: tables for people, frozen JSON for programs."""

import json

import pytest

from orchestrator.commands.usage import size

USAGE = {
    "model": "hello",
    "replica": 0,
    "cpu_percent": 12.5,
    "cpu_seconds": 3.25,
    "memory": 52428800,
    "memory_limit": None,
    "pids": 4,
    "pids_limit": 512,
}
PROCESS = {
    "model": "hello",
    "replica": 0,
    "pid": 42,
    "parent": 1,
    "user": "1000",
    "cpu_seconds": 0.5,
    "memory": 1536,
    "command": "python -I\x1b[2J",
}


def test_stats_once_is_a_table(control, sandbox):
    control.answers["GET", "/api/usage"] = [{"type": "usage", "usage": [USAGE]}] * 2
    assert sandbox("stats", "--no-stream", "hello") == (
        0,
        "NAME    REPLICA   CPU %   MEMORY / LIMIT   PIDS / LIMIT\nhello   0         12.50   50 MiB / -       4 / 512\n",
        "",
    )
    assert control.calls[-1][2] == {"models": "hello"}
    assert sandbox("stats")[1].count("12.50") == 2


def test_stats_as_json_is_frozen(control, sandbox):
    control.answers["GET", "/api/usage"] = [{"type": "usage", "usage": [USAGE]}]
    assert sandbox("stats", "--no-stream", "--format", "json")[1] == json.dumps(USAGE) + "\n"
    assert sandbox("stats", "--no-stream", "--format", "json-array")[1] == json.dumps([USAGE]) + "\n"


def test_top_lists_processes_that_cannot_draw(control, sandbox):
    control.answers["GET", "/api/top"] = {"processes": [PROCESS]}
    assert sandbox("top") == (
        0,
        (
            "NAME    REPLICA   PID   PPID   USER   CPU TIME   MEMORY    COMMAND\n"
            "hello   0         42    1      1000   0.50 s     1.5 KiB   python -I[2J\n"
        ),
        "",
    )
    assert json.loads(sandbox("top", "--format", "json")[1]) == PROCESS


@pytest.mark.parametrize("verb", ["stats", "top"])
def test_a_model_that_is_none_is_refused(verb, control, sandbox):
    assert sandbox(verb, "helo")[0] == 2


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1536, "1.5 KiB"), (5 << 20, "5 MiB"), (3 << 40, "3072 GiB")])
def test_a_size_is_short(count, text):
    assert size(count) == text
