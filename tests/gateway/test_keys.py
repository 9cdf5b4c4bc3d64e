"""Who has which key, and what it may do: through both lanes."""

from __future__ import annotations

import hashlib

import pytest
from gateway_world import BOTH, Client, ask, route

from orchestrator.gateway import keys
from orchestrator.gateway.policy import Policy

LANES = BOTH
SECRET = "a-long-secret"
BEARER = {"Authorization": f"Bearer {SECRET}"}
CALL = ("POST", "/models/hello/predict", {})


def key(name: str = "ci", secret: str = SECRET, **more) -> dict:
    return {"name": name, "digest": hashlib.sha256(secret.encode()).hexdigest(), "allow": ["infer"], **more}


@pytest.mark.parametrize(
    "headers",
    [
        BEARER,
        {"authorization": f"bEARER {SECRET}"},
        {"X-API-Key": SECRET},
        {"X-API-Key": SECRET, "Authorization": "Basic dTpw"},
        {"X-API-Key": "the application's", "Authorization": f"Bearer {SECRET}"},
    ],
)
async def test_a_key_lets_in_and_reaches_no_worker(port, control, workers, headers):
    worker = await workers()
    await control.sync({"hello": route(worker)}, keys=[key()])
    assert (await ask(port, *CALL, headers)).status == 200
    assert SECRET not in str(worker.requests)


@pytest.mark.parametrize(
    ("headers", "challenge"),
    [
        ({}, 'Bearer realm="model-sandbox"'),
        ({"Authorization": "Bearer wrong"}, 'Bearer realm="model-sandbox", error="invalid_token"'),
        ({"Authorization": SECRET}, 'Bearer realm="model-sandbox", error="invalid_token"'),
        ({"Authorization": f"Basic {SECRET}"}, 'Bearer realm="model-sandbox", error="invalid_token"'),
        ({"X-API-Key": ""}, 'Bearer realm="model-sandbox", error="invalid_token"'),
        (
            {"X-API-Key": hashlib.sha256(SECRET.encode()).hexdigest()},
            'Bearer realm="model-sandbox", error="invalid_token"',
        ),
    ],
)
async def test_without_a_right_key_it_is_401_and_reaches_no_model(port, control, workers, headers, challenge):
    worker = await workers()
    await control.sync({"hello": route(worker)}, keys=[key()])
    reply = await ask(port, *CALL, headers)
    assert (reply.status, reply.json["error"]["code"]) == (401, "UNAUTHORIZED")
    assert reply.headers["www-authenticate"] == challenge
    openai = await ask(port, "POST", "/v1/embeddings", {"model": "hello"}, headers)
    assert (openai.status, openai.json["error"]["code"]) == (401, "invalid_api_key")
    assert isinstance((await ask(port, "POST", "/v2/models/hello/infer", {}, headers)).json["error"], str)
    assert worker.requests == []


@pytest.mark.parametrize(
    "path",
    ["/", "/ready", "/metrics", "/nothing", "/docs", "/openapi.json", "/v1/models", "/v2/health/live", "/healthy"],
)
async def test_every_path_but_health_needs_a_key(port, control, path):
    await control.sync({}, keys=[key(allow=["infer", "observe"])])
    assert (await ask(port, "GET", path)).status == 401
    assert (await ask(port, "GET", path, headers=BEARER)).status in {200, 404}
    assert (await ask(port, "GET", "/health")).status == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/models/other/predict", b"{}"),
        ("/models/%6fther/predict", b"{}"),
        ("/models/nobody/predict", b"{}"),
        ("/v1/embeddings", b'{"model": "other"}'),
        ("/v2/models/other/infer", b"{}"),
        ("/v2/repository/models/hello/load", b"{}"),
    ],
)
async def test_outside_its_scope_a_key_gets_403_and_no_model_is_reached(port, control, workers, path, body):
    worker = await workers()
    await control.sync({"hello": route(worker), "other": route(worker)}, keys=[key(models=["hello"])])
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    assert (await ask(port, "POST", path, body, BEARER)).status == 403
    assert (await ask(port, "POST", path, chunks, {**BEARER, "Transfer-Encoding": "chunked"})).status == 403
    assert worker.requests == []


@pytest.mark.parametrize("path", ["/ready", "/metrics", "/v2/health/ready"])
async def test_who_may_only_call_does_not_observe_and_the_other_way_round(port, control, workers, path):
    worker = await workers()
    observer = key("prometheus", "other-secret", allow=["observe"])
    await control.sync({"hello": route(worker)}, keys=[key(), observer])
    watching = {"Authorization": "Bearer other-secret"}
    assert (await ask(port, "GET", path, headers=BEARER)).status == 403
    assert (await ask(port, "GET", path, headers=watching)).status == 200
    assert (await ask(port, *CALL, watching)).status == 403
    assert worker.requests == []


async def test_lists_show_what_a_key_may_call(port, control, workers):
    worker = await workers()
    await control.sync({"hello": route(worker), "other": route(worker)}, keys=[key(models=["hello"])])
    assert [each["id"] for each in (await ask(port, "GET", "/v1/models", headers=BEARER)).json["data"]] == ["hello"]
    assert list((await ask(port, "GET", "/", headers=BEARER)).json["data"]["models"]) == ["hello"]
    index = await ask(port, "POST", "/v2/repository/index", {}, BEARER)
    assert [each["name"] for each in index.json] == ["hello"]
    document = (await ask(port, "GET", "/openapi.json", headers=BEARER)).json
    assert "/models/other/predict" not in document["paths"]
    assert set(document["components"]["securitySchemes"]) == {"bearer", "key"}


async def test_a_removed_key_is_refused_at_once_on_an_open_connection(port, control, workers):
    await control.sync({"hello": route(await workers())}, keys=[key(), key("other", "other-secret")])
    client = await Client.dial(port)
    client.send("POST", "/models/hello/predict", b"{}", BEARER)
    assert (await client.reply()).status == 200
    await control.tell("policy", policy={"keys": [key("other", "other-secret")]})
    client.send("POST", "/models/hello/predict", b"{}", BEARER)
    assert (await client.reply()).status == 401
    await control.tell("policy", policy={})
    assert (await ask(port, *CALL)).status == 200


async def test_a_keys_rate_is_its_own_and_outlives_a_policy_that_keeps_it(port, control, workers):
    limited, free = key(rate_limit=[2, 3600]), key("free", "other-secret")
    await control.sync({"hello": route(await workers())}, keys=[limited, free], rate_limit=[100, 3600])
    replies = [await ask(port, *CALL, BEARER) for _ in range(2)]
    await control.tell("policy", policy={"keys": [limited], "max_body": 1000})
    replies.append(await ask(port, *CALL, BEARER))
    assert [reply.status for reply in replies] == [200, 200, 429]
    assert [reply.headers["ratelimit-limit"] for reply in replies] == ["2", "2", "2"]
    assert int(replies[2].headers["retry-after"]) > 1000
    assert "key" in replies[2].json["message"]


async def test_an_address_limit_that_is_nearer_is_the_one_told(port, control, workers):
    await control.sync({"hello": route(await workers())}, keys=[key(rate_limit=[100, 3600])], rate_limit=[1, 3600])
    assert (await ask(port, *CALL, BEARER)).headers["ratelimit-limit"] == "1"
    assert (await ask(port, *CALL, BEARER)).status == 429


async def test_the_queue_tells_clients_apart_by_key(port, control, workers):
    worker = await workers()
    await control.sync({"hello": route(worker)}, keys=[key(), key("other", "other-secret")])
    for secret in (SECRET, SECRET, "other-secret"):
        assert (await ask(port, *CALL, {"X-API-Key": secret})).status == 200
    first, second, third = (request.headers["x-sandbox-client"] for request in worker.requests)
    assert first == second != third


@pytest.mark.parametrize("carrier", ["Authorization", "X-API-Key"])
async def test_an_application_gets_its_own_authorization_and_never_our_key(port, control, workers, carrier):
    worker = await workers()
    await control.sync({"hello": route(worker, info={"app": True})}, keys=[key()])
    headers = BEARER if carrier == "Authorization" else {"X-API-Key": SECRET, "Authorization": "Basic dTpw"}
    assert (await ask(port, "GET", "/models/hello/app/page", headers=headers)).status == 200
    assert SECRET not in str(worker.requests[0].headers)
    assert worker.requests[0].headers.get("authorization") == (None if carrier == "Authorization" else "Basic dTpw")


async def test_beyond_loopback_a_gateway_with_keys_is_asked_by_its_address(port, control):
    await control.sync({}, keys=[key()], host="0.0.0.0")
    assert (await ask(port, "GET", "/v1/models", headers={**BEARER, "Host": "192.168.1.5:8080"})).status == 200
    assert (await ask(port, "GET", "/v1/models", headers={**BEARER, "Host": "evil.example"})).status == 403


def test_a_policy_shows_no_digest():
    assert key()["digest"] not in repr(Policy.parse({"keys": [key()]}))


def test_every_digest_is_compared_in_constant_time(monkeypatch):
    compared = []
    real = keys.hmac.compare_digest
    monkeypatch.setattr(keys.hmac, "compare_digest", lambda a, b: compared.append(b) or real(a, b))
    policy = Policy.parse({"keys": [key(), key("other", "other-secret"), key("third", "third-secret")]})
    found, carrier = keys.find(policy.keys, f"Bearer {SECRET}", None)
    assert (found.name, carrier) == ("ci", "authorization")
    assert len(compared) == 3
