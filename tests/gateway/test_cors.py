"""What browsers are told of pages of other origins, through both lanes."""

from __future__ import annotations

import pytest
from gateway_world import BOTH, ask, route

LANES = BOTH
ORIGIN = {"Origin": "https://app.example"}
ALLOWED = ("access-control-allow-origin", "https://app.example")
PREFLIGHT = {
    **ORIGIN,
    "Connection": "close",
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "x-api-key",
}
KEYS = [{"name": "ci", "digest": "ab" * 32, "allow": ["infer"]}]


@pytest.mark.parametrize("path", ["/models/hello/predict", "/v1/chat/completions", "/models/hello/app/x"])
async def test_a_preflight_is_answered_without_a_key_and_reaches_no_model(port, control, workers, path):
    worker = await workers()
    await control.sync({"hello": route(worker)}, origins=["https://app.example"], keys=KEYS)
    reply = await ask(port, "OPTIONS", path, headers=PREFLIGHT)
    assert reply.status == 204
    assert ALLOWED in reply.headers.items()
    assert reply.headers["access-control-allow-headers"] == "x-api-key"
    assert "POST" in reply.headers["access-control-allow-methods"]
    assert "access-control-allow-credentials" not in reply.headers
    assert worker.requests == []


async def test_a_preflight_of_another_origin_or_of_none_is_refused(port, control):
    await control.sync({}, origins=["https://app.example"], keys=KEYS)
    foreign = await ask(port, "OPTIONS", "/v1/models", headers={**PREFLIGHT, "Origin": "https://evil.example"})
    assert (foreign.status, "access-control-allow-origin" in foreign.headers) == (403, False)
    assert (await ask(port, "OPTIONS", "/v1/models", headers={"Access-Control-Request-Method": "GET"})).status == 401


async def test_a_named_page_reads_answers_and_refusals_and_nobody_else_is_told(port, control, workers):
    await control.sync({"hello": route(await workers())}, origins=["https://app.example"], rate_limit=[3, 3600])
    for method, path, status in (
        ("POST", "/models/hello/predict", 200),
        ("GET", "/nothing", 404),
        ("POST", "/models/nobody/predict", 404),
        ("GET", "/v1/models", 200),
        ("POST", "/models/hello/predict", 429),
    ):
        reply = await ask(port, method, path, {} if method == "POST" else None, ORIGIN)
        assert (reply.status, reply.headers.get("vary")) == (status, "Origin")
        assert ALLOWED in reply.headers.items()
    assert "access-control-allow-origin" not in (await ask(port, "GET", "/health")).headers


async def test_an_application_that_says_the_same_is_heard_once(port, control, workers):
    async def script(request, peer):
        peer.answer(headers="Access-Control-Allow-Origin: *\r\n")

    await control.sync({"hello": route(await workers(script=script))}, origins=["https://app.example"])
    assert ALLOWED in (await ask(port, "GET", "/models/hello/app/x", headers=ORIGIN)).headers.items()
