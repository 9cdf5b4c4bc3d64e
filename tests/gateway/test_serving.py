"""A request reaches the right worker and its answer comes back marked with who gave it."""

from __future__ import annotations

import asyncio
import json

from gateway_world import BOTH, Client, ask, route, says, until

LANES = BOTH


async def test_a_call_is_answered_by_the_model_and_says_by_which_generation(port, control, workers):
    worker = await workers()
    await control.sync({"hello": route(worker, generation=18)})
    reply = await ask(port, "POST", "/models/hello/predict", {"x": 5.5}, {"X-Request-ID": "mine-1"})
    assert reply.status == 200
    assert reply.json == {"path": "/predict", "got": '{"x": 5.5}'}
    assert reply.headers["x-sandbox-model"] == "hello"
    assert reply.headers["x-sandbox-generation"] == "18"
    assert reply.headers["x-sandbox-content"] == f"{18:064x}"[:12]
    assert reply.headers["x-request-id"] == "mine-1"
    assert worker.requests[0].headers["x-request-id"] == "mine-1"


async def test_a_request_id_is_made_where_none_usable_came(port, control, workers):
    worker = await workers()
    await control.sync({"hello": route(worker)})
    for offered in ({}, {"X-Request-ID": "a" * 129}, {"X-Request-ID": "caf\u00e9"}):
        reply = await ask(port, "POST", "/models/hello/predict", {}, offered)
        made = reply.headers["x-request-id"]
        assert made
        assert made not in offered.values()
        assert worker.requests[-1].headers["x-request-id"] == made


async def test_what_a_worker_claims_to_be_does_not_reach_the_client(port, control, workers):
    async def liar(request, peer):
        peer.answer(
            {},
            headers="X-Sandbox-Generation: 99\r\nX-Sandbox-Else: 0.25\r\nX-Request-ID: other\r\nConnection: x-secret\r\nX-Secret: 1\r\n",
        )

    await control.sync({"hello": route(await workers(script=liar), generation=3)})
    reply = await ask(port, "POST", "/models/hello/predict", {}, {"X-Request-ID": "mine"})
    assert reply.headers["x-sandbox-generation"] == "3"
    assert reply.headers["x-request-id"] == "mine"
    assert not {"x-sandbox-else", "x-secret"} & set(reply.headers)


async def test_an_error_of_the_model_passes_through_marked(port, control, workers):
    async def fails(request, peer):
        peer.answer({"success": False}, status=500)

    await control.sync({"hello": route(await workers(script=fails))})
    reply = await ask(port, "POST", "/models/hello/predict", {})
    assert (reply.status, reply.json, reply.headers["x-sandbox-model"]) == (500, {"success": False}, "hello")


async def test_openai_routes_go_to_the_model_that_the_body_names(port, control, workers):
    one = await workers("one.sock", says("one"))
    two = await workers("two.sock", says("two"))
    await control.sync({"one": route(one), "two": route(two)})
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings"):
        reply = await ask(port, "POST", path, {"model": "two", "input": "x"})
        assert reply.json == {"said": "two"}
        assert two.requests[-1].path == path
        assert json.loads(two.requests[-1].body) == {"model": "two", "input": "x"}
    assert one.requests == []


async def test_a_body_over_64_kib_is_streamed_with_its_length(port, control, workers):
    worker = await workers(script=says("ok"))
    await control.sync({"hello": route(worker)})
    body = b"[" + b"1" * 500_000 + b"]"
    reply = await ask(port, "POST", "/models/hello/predict", body)
    assert reply.status == 200
    assert worker.requests[0].body == body
    assert worker.requests[0].headers["content-length"] == str(len(body))


async def test_a_chunked_body_arrives_whole_small_and_large(port, control, workers):
    worker = await workers(script=says("ok"))
    await control.sync({"hello": route(worker)})
    for size in (10, 300_000):
        chunked = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in [b"a" * size, b"b" * 7]) + b"0\r\n\r\n"
        reply = await ask(port, "POST", "/models/hello/predict", chunked, {"Transfer-Encoding": "chunked"})
        assert reply.status == 200
        assert worker.requests[-1].body == b"a" * size + b"b" * 7


async def test_requests_share_connections_to_a_worker(port, control, workers):
    worker = await workers()
    await control.sync({"hello": route(worker)})
    for _ in range(5):
        await ask(port, "POST", "/models/hello/predict", {})
    assert len(worker.peers) == 1


async def test_requests_go_to_the_least_busy_replica(port, control, workers):
    release = asyncio.Event()

    async def slow(request, peer):
        await release.wait()
        peer.answer({})

    replicas = [await workers("a.sock", slow), await workers("b.sock", slow)]
    await control.sync({"hello": route(*replicas)})
    calls = [asyncio.create_task(ask(port, "POST", "/models/hello/predict", {})) for _ in range(6)]
    await until(lambda: sum(len(each.requests) for each in replicas) == 6)
    assert [len(each.requests) for each in replicas] == [3, 3]
    release.set()
    assert {reply.status for reply in await asyncio.gather(*calls)} == {200}


async def test_a_client_that_expects_100_continue_is_told_after_policy_passed(port, control, workers):
    await control.sync({"hello": route(await workers())})
    client = await Client.dial(port)
    client.send("POST", "/models/hello/predict", None, {"Expect": "100-continue", "Content-Length": "2"})
    assert (await client.head()).status == 100
    client.writer.write(b"{}")
    assert (await client.reply()).status == 200
    client.send("POST", "/models/none/predict", None, {"Expect": "100-continue", "Content-Length": "2"})
    assert (await client.reply()).status == 404
    assert await client.closed()


async def test_the_gateways_own_pages(port, control, workers):
    worker = await workers()
    await control.sync(
        {"hello": route(worker, generation=4), "broken": route(state="failed", generation=None, reason="no main.py")}
    )
    assert (await ask(port, "GET", "/health")).json["data"]["status"] == "ok"
    index = (await ask(port, "GET", "/")).json["data"]
    assert index["models"]["hello"]["predict"] == "/models/hello/predict"
    info = (await ask(port, "GET", "/models/broken/info")).json["data"]
    assert (info["state"], info["reason"], info["generation"], info["version"]) == ("failed", "no main.py", None, "1.0")
    listed = (await ask(port, "GET", "/v1/models")).json
    assert [(each["id"], each["object"], each["generation"]) for each in listed["data"]] == [
        ("hello", "model", 4),
        ("broken", "model", None),
    ]
    assert (await ask(port, "GET", "/v1/models/hello")).json["id"] == "hello"
    head = await ask(port, "HEAD", "/health")
    assert (head.status, head.body) == (200, b"")
    assert (await ask(port, "GET", "/models/hello/health")).json["path"] == "/health"


async def test_ready_is_200_once_every_model_is_running_or_degraded(port, control):
    await control.sync({"a": route(state="running"), "b": route(state="loading", generation=None)})
    reply = await ask(port, "GET", "/ready")
    assert reply.status == 503
    assert "b (loading)" in reply.json["message"]
    assert "a (" not in reply.json["message"]
    await control.route("b", route(state="degraded"))
    assert (await ask(port, "GET", "/ready")).status == 200
