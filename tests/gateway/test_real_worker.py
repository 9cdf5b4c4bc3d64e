"""The real worker behind the gateway: both ends of the contract meet."""

from __future__ import annotations

import asyncio
import json
import os

from gateway_world import Client, ask, route, until


async def test_predict_batch_health_chat_and_errors(port, control, real):
    await control.sync({"demo": route(await real("g1.sock", 2), generation=2)})
    reply = await ask(port, "POST", "/models/demo/predict", {"x": 5.5}, {"X-Request-ID": "mine"})
    assert (reply.status, reply.json["data"]["prediction"], reply.json["request_id"]) == (200, 11.0, "mine")
    plain = await ask(
        port, "POST", "/models/demo/predict", {"x": 1}, {"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert plain.json["data"]["prediction"] == 2
    batch = await ask(port, "POST", "/models/demo/predict/batch", {"inputs": [{"x": 1}, {"x": 2}]})
    assert batch.json["data"]["total"] == 2
    assert (await ask(port, "GET", "/models/demo/health")).status == 200
    wrong = await ask(port, "POST", "/models/demo/predict", {"y": 1})
    assert (wrong.status, wrong.json["error"]["code"], wrong.headers["x-sandbox-model"]) == (
        400,
        "INVALID_REQUEST",
        "demo",
    )
    asked = {"model": "demo", "messages": [{"role": "user", "content": "hi"}]}
    whole = await ask(port, "POST", "/v1/chat/completions", asked)
    assert whole.json["choices"][0]["message"]["content"] == "one two"
    stream = await ask(port, "POST", "/v1/chat/completions", {**asked, "stream": True})
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert stream.whole
    assert stream.body.endswith(b"data: [DONE]\n\n")


async def test_a_swap_under_load_loses_nothing_and_the_old_worker_ends(port, control, real):
    one = await real("g1.sock", 1)
    await control.sync({"demo": route(one, generation=1)})
    over, replies = False, []

    async def caller() -> None:
        while not over:
            replies.append(await ask(port, "POST", "/models/demo/predict", {"x": 1}))

    callers = [asyncio.create_task(caller()) for _ in range(10)]
    await until(lambda: len(replies) > 50)
    two = await real("g2.sock", 2)
    await control.route("demo", route(two, generation=2))
    one.say(type="drain")
    async with asyncio.timeout(20):
        assert await one.process.wait() == 0
    seen = len(replies)
    await until(lambda: len(replies) > seen + 50)
    over = True
    await asyncio.gather(*callers)
    assert {reply.status for reply in replies} == {200}
    assert all(str(int(reply.json["data"]["prediction"])) == reply.headers["x-sandbox-generation"] for reply in replies)


async def test_the_death_of_the_worker_is_told_and_the_next_request_waits_for_another(port, control, real):
    await control.sync({"demo": route(await real("g1-1.sock", 1))})
    reply = await ask(port, "POST", "/models/demo/predict", {"x": 13})
    assert (reply.status, reply.json["error"]["code"]) == (502, "WORKER_DIED")
    call = asyncio.create_task(ask(port, "POST", "/models/demo/predict", {"x": 3}))
    await until(lambda: control.suspects)
    await control.route("demo", route(await real("g1-2.sock", 1)))
    assert (await call).json["data"]["prediction"] == 3


async def test_a_client_that_leaves_a_stream_cancels_the_models_generator(port, control, real, state):
    await control.sync({"demo": route(await real("g1.sock", 1))})
    client = await Client.dial(port)
    body = json.dumps({"model": "demo", "stream": True, "messages": [{"role": "user", "content": "wait"}]}).encode()
    client.send("POST", "/v1/chat/completions", body)
    await client.head()
    while b"one" not in await client.chunk():
        pass
    client.close()
    await until(lambda: os.path.exists(os.path.join(state, "left")))
