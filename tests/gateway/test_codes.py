"""Each error code can be met, has the status of its row, and every row of docs/operations.md is true."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from gateway_world import BOTH, Client, ask, route

from orchestrator.gateway import envelope, paths
from orchestrator.gateway.metrics import Recorder

LANES = BOTH

OPERATIONS = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()

# Codes that only a worker writes, or that nothing can cause yet (keys).
ELSEWHERE = {"INPUT_TOO_LONG", "PREDICTION_FAILED", "UNAUTHORIZED"}
# Codes with a test of their own elsewhere, because they take a deadline, a death or a fault.
OWN_TESTS = {"REQUEST_TIMEOUT", "WORKER_DIED", "UPSTREAM_TIMEOUT", "QUEUE_TIMEOUT", "QUEUE_FULL", "INTERNAL_ERROR"}

CASES = [
    ("GET", "/nowhere", None, {}, "NOT_FOUND"),
    ("GET", "/models/hello/predcit", None, {}, "NOT_FOUND"),
    ("GET", "/models/{name}/predict", None, {}, "METHOD_NOT_ALLOWED"),
    ("GET", "/models/hello/predict", None, {}, "METHOD_NOT_ALLOWED"),
    ("POST", "/health", b"", {}, "METHOD_NOT_ALLOWED"),
    ("POST", "/models/helo/predict", b"{}", {}, "MODEL_NOT_FOUND"),
    ("GET", "/models/helo/info", None, {}, "MODEL_NOT_FOUND"),
    ("GET", "/v1/models/helo", None, {}, "MODEL_NOT_FOUND"),
    ("POST", "/v1/chat/completions", b'{"model": "helo"}', {}, "MODEL_NOT_FOUND"),
    ("POST", "/v1/chat/completions", b"{", {}, "INVALID_REQUEST"),
    ("POST", "/v1/chat/completions", b"[" * 100_000, {}, "INVALID_REQUEST"),
    ("POST", "/v1/chat/completions", b"[]", {}, "INVALID_REQUEST"),
    ("POST", "/v1/chat/completions", b'{"model": 3}', {}, "INVALID_REQUEST"),
    ("POST", "/models/hello/predict", b"{}", {"Expect": "miracles"}, "INVALID_REQUEST"),
    ("POST", "/models/hello/predict", b"x" * 1001, {}, "PAYLOAD_TOO_LARGE"),
    ("POST", "/models/hello/predict", b"{}", {"Host": "evil.example"}, "FORBIDDEN"),
    ("POST", "/models/broken/predict", b"{}", {}, "MODEL_NOT_LOADED"),
    ("POST", "/models/slow/predict", b"{}", {}, "MODEL_NOT_LOADED"),
    ("GET", "/ready", None, {}, "MODEL_NOT_LOADED"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[-1]}-{case[0]}-{case[1]}")
async def test_each_refusal_has_its_code_and_status_in_the_form_of_its_path(port, control, workers, case):
    method, path, body, headers, code = case
    models = {
        "hello": route(await workers()),
        "broken": route(state="failed", generation=None),
        "slow": route(state="building", generation=None, queue_timeout=0.05),
    }
    await control.sync(models, max_body=200_000 if body and body.startswith(b"[[") else 1000)
    reply = await ask(port, method, path, body, headers)
    assert reply.status == envelope.CODES[code]
    assert reply.headers["x-request-id"]
    if path.startswith("/v1/"):
        assert reply.json["error"]["code"] == code.lower()
        assert set(reply.json["error"]) == {"message", "type", "param", "code"}
    else:
        assert reply.json["error"]["code"] == code
        assert reply.json["request_id"] == reply.headers["x-request-id"]
        assert set(reply.json) == {"success", "message", "error", "timestamp", "request_id"}
    if reply.status in (429, 503):
        assert int(reply.headers["retry-after"]) >= 1
    if code == "METHOD_NOT_ALLOWED":
        assert reply.headers["allow"]


async def test_over_the_rate_and_over_the_queue(port, control, monkeypatch):
    from orchestrator.gateway import routes

    monkeypatch.setattr(routes, "MAX_HELD", 2)
    await control.sync({"slow": route(state="loading", generation=None)})
    clients = [await Client.dial(port) for _ in range(3)]
    for client in clients:
        client.send("POST", "/models/slow/predict", b"{}")
    first = await asyncio.wait(
        [asyncio.ensure_future(client.reply()) for client in clients], return_when=asyncio.FIRST_COMPLETED
    )
    reply = first[0].pop().result()
    assert (reply.status, reply.json["error"]["code"]) == (429, "QUEUE_FULL")
    await control.route("slow", None)
    await asyncio.wait(first[1])


async def test_a_fault_of_ours_is_internal_error_and_says_no_more(port, control, workers, monkeypatch, caplog):
    from orchestrator.gateway.pages import Pages

    def fault(self, _sees):
        raise RuntimeError("secret")

    monkeypatch.setattr(Pages, "index", fault)
    await control.sync({})
    reply = await ask(port, "GET", "/")
    assert (reply.status, reply.json["error"]["code"]) == (500, "INTERNAL_ERROR")
    assert b"secret" not in reply.body
    assert "secret" in caplog.text


async def test_a_near_name_is_offered(port, control):
    await control.sync({"hello": route(state="failed", generation=None)})
    assert "did you mean hello?" in (await ask(port, "POST", "/models/helo/predict", {})).json["message"]
    assert "/models/{name}/predict" in (await ask(port, "GET", "/models/hello/predic")).json["error"]["details"]


def test_the_documented_codes_are_the_codes():
    rows = re.findall(r"^\| ([A-Z_]+) \| (\d+) \|", OPERATIONS, re.MULTILINE)
    assert {code: int(status) for code, status in rows} == dict(envelope.CODES)


def test_every_code_is_met_by_a_test():
    policy = {"RATE_LIMITED"}  # test_policy.py
    assert {case[-1] for case in CASES} | ELSEWHERE | OWN_TESTS | policy == set(envelope.CODES)
    text = "".join(
        path.read_text() for path in Path(__file__).parent.glob("test_*.py") if path.name != Path(__file__).name
    )
    assert all(code in text or code in {"QUEUE_FULL", "INTERNAL_ERROR"} for code in OWN_TESTS)


def test_every_metric_of_the_gateway_is_documented_with_its_type_and_labels():
    rows = re.findall(r"^\| (sandbox_\w+) \| (\w+) \| ([\w, ]+) \|", OPERATIONS, re.MULTILINE)
    documented = {name: (kind, labels) for name, kind, labels in rows}
    for family in Recorder().families():
        assert documented[family["name"]] == (family["type"], ", ".join(family["labels"]))


def test_every_endpoint_is_found_and_only_with_its_methods():
    for endpoint in paths.ENDPOINTS:
        path = endpoint.path.replace("{name}", "he%6clo")
        for method in endpoint.methods:
            assert paths.find(method, path) == (endpoint, "hello" if "{name}" in endpoint.path else "")
