"""Who is let in: Host, Origin, rates and sizes."""

from __future__ import annotations

import pytest
from gateway_world import BOTH, ask, raw, route
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.gateway import policy
from orchestrator.gateway.envelope import Refusal
from orchestrator.gateway.policy import Policy, RateLimit, client_key

LANES = BOTH


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:9000",
        "LOCALHOST:1",
        "127.0.0.1",
        "127.9.9.9:80",
        "[::1]",
        "[::1]:8080",
        "models.example",
        "Models.Example.:8080",
    ],
)
async def test_loopback_and_named_hosts_are_let_in(port, control, host):
    await control.sync({}, hosts=["models.example"])
    assert (await ask(port, "GET", "/v1/models", headers={"Host": host})).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "192.168.1.5:8080",
        "[::2]",
        "evil.example:8080",
    ],
)
@pytest.mark.parametrize("path", ["/models/hello/predict", "/v1/chat/completions"])
async def test_a_rebound_host_gets_403(port, control, workers, host, path):
    worker = await workers()
    await control.sync({"hello": route(worker)})
    reply = await ask(port, "POST", path, {"model": "hello"}, {"Host": host})
    assert reply.status == 403
    assert worker.requests == []


async def test_beyond_loopback_addresses_are_let_in_and_names_are_not(port, control):
    await control.sync({}, insecure=True, host="0.0.0.0")
    assert (await ask(port, "GET", "/v1/models", headers={"Host": "192.168.1.5:8080"})).status == 200
    assert (await ask(port, "GET", "/v1/models", headers={"Host": "evil.example"})).status == 403


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://localhost:3000",
        "http://localhost:8080.evil.example",
        "file://",
        "http://[",
        "",
    ],
)
async def test_a_foreign_origin_gets_403(port, control, workers, origin):
    worker = await workers()
    await control.sync({"hello": route(worker)})
    reply = await ask(port, "POST", "/models/hello/predict", {}, {"Host": "localhost:8080", "Origin": origin})
    assert (reply.status, reply.json["error"]["code"]) == (403, "FORBIDDEN")
    assert worker.requests == []


@pytest.mark.parametrize("origin", ["http://localhost:8080", "https://app.example"])
async def test_our_own_and_named_origins_are_let_in(port, control, workers, origin):
    await control.sync({"hello": route(await workers())}, origins=["https://app.example"])
    reply = await ask(port, "POST", "/models/hello/predict", {}, {"Host": "localhost:8080", "Origin": origin})
    assert reply.status == 200


async def test_over_the_rate_it_is_429_with_retry_after_and_probes_are_free(port, control, workers):
    await control.sync({"hello": route(await workers())}, rate_limit=[3, 3600])
    replies = [await ask(port, "POST", "/models/hello/predict", {}) for _ in range(4)]
    assert [reply.status for reply in replies] == [200, 200, 200, 429]
    assert replies[0].headers["ratelimit-limit"] == "3"
    assert [reply.headers["ratelimit-remaining"] for reply in replies] == ["2", "1", "0", "0"]
    assert 1000 < int(replies[3].headers["retry-after"]) <= 1202
    assert (await ask(port, "GET", "/health")).status == 200
    assert (await ask(port, "GET", "/metrics")).status == 200
    openai = await ask(port, "POST", "/v1/embeddings", {"model": "hello"})
    assert (openai.status, openai.json["error"]["code"]) == (429, "rate_limit_exceeded")


async def test_what_a_client_used_of_a_limit_outlives_a_policy_that_keeps_it(port, control):
    for _ in range(2):
        await control.tell("policy", policy={"rate_limit": [1, 3600]})
        await control.sync({}, rate_limit=[1, 3600])
    assert (await ask(port, "GET", "/")).status == 200
    await control.tell("policy", policy={"rate_limit": [1, 3600], "max_body": 5})
    assert (await ask(port, "GET", "/")).status == 429
    await control.tell("policy", policy={"rate_limit": None})
    assert (await ask(port, "GET", "/")).status == 200


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_max_body_is_413_and_reaches_no_model(port, control, workers, chunked):
    worker = await workers()
    await control.sync({"hello": route(worker)}, max_body=100)
    fits, over = b"x" * 100, b"x" * 101
    if chunked:
        fits, over = (b"%x\r\n%b\r\n0\r\n\r\n" % (len(each), each) for each in (fits, over))
    headers = {"Transfer-Encoding": "chunked"} if chunked else {}
    assert (await ask(port, "POST", "/models/hello/predict", fits, headers)).status == 200
    reply = await ask(port, "POST", "/models/hello/predict", over, headers)
    assert (reply.status, reply.json["error"]["code"]) == (413, "PAYLOAD_TOO_LARGE")
    assert len(worker.requests) == 1


async def test_a_declared_length_over_max_body_is_refused_before_it_is_sent(port, control, workers):
    await control.sync({"hello": route(await workers())})
    reply = await raw(
        port, b"POST /models/hello/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n"
    )
    assert reply.status == 413


def test_a_bucket_refills_with_time():
    limit = RateLimit(2, 10)
    limit.take("10.0.0.1", 0.0)
    limit.take("10.0.0.1", 0.0)
    with pytest.raises(Refusal) as refused:
        limit.take("10.0.0.1", 1.0)
    assert refused.value.headers["Retry-After"] == "4"
    limit.take("10.0.0.2", 1.0)
    limit.take("10.0.0.1", 5.0)


def test_the_rate_limit_forgets_before_it_grows(monkeypatch):
    monkeypatch.setattr(policy, "MAX_CLIENTS", 3)
    limit = RateLimit(1, 10)
    for number in range(100):
        limit.take(f"10.0.0.{number}", 0.0)
    assert len(limit._clients) == 3


def test_one_ipv6_subscriber_is_one_client():
    assert client_key("2001:db8:1:2::1") == client_key("2001:db8:1:2:ffff::9") != client_key("2001:db8:1:3::1")
    assert client_key("::ffff:10.0.0.1") == client_key("10.0.0.1")


@given(st.text(max_size=60), st.text(max_size=60))
def test_no_host_or_origin_breaks_the_rule(host, origin):
    rule = Policy()
    for call in (lambda: rule.require_host(host), lambda: rule.require_origin(origin, host)):
        try:
            call()
        except Refusal as refusal:
            assert refusal.code == "FORBIDDEN"  # noqa: PT017 (either outcome is right, another exception is not)
