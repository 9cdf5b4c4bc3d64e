"""A route changes under traffic: each request has one owner, nothing is lost, nobody is answered by an older generation."""

from __future__ import annotations

import asyncio

from gateway_world import BOTH, Client, Control, Reply, ask, route, says, until

LANES = BOTH


async def test_a_request_claimed_before_a_swap_is_answered_by_its_generation_and_one_after_by_the_new(
    port, control, workers
):
    release = asyncio.Event()

    async def old(request, peer):
        await release.wait()
        peer.answer({"said": "old"})

    one = await workers("g1-1.sock", old)
    two = await workers("g2-1.sock", says("new"))
    await control.sync({"hello": route(one, generation=1)})
    early = asyncio.create_task(ask(port, "POST", "/models/hello/predict", {}))
    await until(lambda: one.requests)
    await control.route("hello", route(two, generation=2))
    late = await ask(port, "POST", "/models/hello/predict", {})
    assert (late.json, late.headers["x-sandbox-generation"]) == ({"said": "new"}, "2")
    release.set()
    first = await early
    assert (first.json, first.headers["x-sandbox-generation"]) == ({"said": "old"}, "1")


async def test_a_kept_connection_that_asks_the_same_again_meets_what_is_true_now(port, control, workers):
    """Nothing that was found out for the last request is used for the next: not its route, its settings nor its limit."""
    one = await workers("g1-1.sock", says("old"))
    two = await workers("g2-1.sock", says("new"))
    await control.sync({"hello": route(one)})
    client = await Client.dial(port)

    async def again() -> Reply:
        client.send("POST", "/models/hello/predict", b"{}", {"Origin": "https://app.example"})
        return await client.reply()

    assert (await again()).status == 403
    await control.tell("policy", policy={"origins": ["https://app.example"]})
    assert [(await again()).json["said"] for _ in range(2)] == ["old", "old"]
    await control.route("hello", route(two, generation=2))
    reply = await again()
    assert (reply.json["said"], reply.headers["x-sandbox-generation"]) == ("new", "2")
    await control.tell("policy", policy={"origins": ["https://app.example"], "rate_limit": [1, 3600]})
    assert [(await again()).status for _ in range(2)] == [200, 429]
    await control.tell("policy", policy={"origins": ["https://other.example"]})
    assert (await again()).status == 403
    await control.tell("policy", policy={"origins": ["https://app.example"], "max_body": 1})
    reply = await again()
    assert reply.status == 413


async def test_a_removed_model_is_unknown_on_a_kept_connection(port, control, workers):
    await control.sync({"hello": route(await workers())})
    client = await Client.dial(port)
    for status in (200, 404):
        client.send("POST", "/models/hello/predict", b"{}")
        assert (await client.reply()).status == status
        await control.route("hello", None)


async def test_connections_to_a_retired_generation_are_closed_idle_ones_at_once_busy_ones_when_done(
    port, control, workers
):
    release = asyncio.Event()

    async def old(request, peer):
        if b"slow" in request.body:
            await release.wait()
        peer.answer({})

    one = await workers("g1-1.sock", old)
    two = await workers("g2-1.sock")
    await control.sync({"hello": route(one)})
    slow = asyncio.create_task(ask(port, "POST", "/models/hello/predict", {"slow": 1}))
    await until(lambda: one.requests)
    await ask(port, "POST", "/models/hello/predict", {})
    assert (len(one.peers), one.ended) == (2, 0)
    await control.route("hello", route(two, generation=2))
    await until(lambda: one.ended == 1)
    release.set()
    assert (await slow).status == 200
    await until(lambda: one.ended == 2)


async def test_a_slow_upload_pins_no_generation(port, control, workers):
    one = await workers("g1-1.sock", says("old"))
    two = await workers("g2-1.sock", says("new"))
    await control.sync({"hello": route(one)})
    client = await Client.dial(port)
    client.send("POST", "/models/hello/predict", None, {"Content-Length": "4"})
    client.writer.write(b"{ ")
    await ask(port, "GET", "/health")
    await control.route("hello", route(two, generation=2))
    client.writer.write(b" }")
    assert (await client.reply()).json == {"said": "new"}


async def test_held_while_loading_then_answered(port, control, workers):
    await control.sync({"hello": route(state="loading", generation=None)})
    calls = [asyncio.create_task(ask(port, "POST", "/models/hello/predict", {})) for _ in range(5)]
    await ask(port, "GET", "/health")
    await control.route("hello", route(state="loading", generation=None))
    assert not any(call.done() for call in calls)
    await control.route("hello", route(await workers(), generation=1))
    assert {reply.status for reply in await asyncio.gather(*calls)} == {200}


async def test_held_requests_are_refused_when_loading_fails_with_the_reason(port, control):
    await control.sync({"hello": route(state="loading", generation=None)})
    call = asyncio.create_task(ask(port, "POST", "/models/hello/predict", {}))
    await ask(port, "GET", "/health")
    error = {"type": "SyntaxError", "message": "invalid syntax", "file": "main.py", "line": 3, "traceback": ""}
    await control.route("hello", route(state="failed", generation=None, reason="SyntaxError main.py:3", error=error))
    reply = await call
    assert (reply.status, reply.json["error"]["code"]) == (503, "MODEL_NOT_LOADED")
    assert reply.json["error"]["details"]["state"] == "failed"
    assert reply.json["error"]["details"]["error"]["line"] == 3
    assert "retry-after" in reply.headers


async def test_requests_before_the_first_sync_are_held_not_refused(port, control, workers):
    call = asyncio.create_task(ask(port, "POST", "/models/hello/predict", {}))
    assert (await ask(port, "GET", "/health")).status == 200
    assert not call.done()
    await control.sync({"hello": route(await workers())})
    assert (await call).status == 200


async def test_a_removed_model_is_unknown_also_to_who_waited(port, control):
    await control.sync({"hello": route(state="loading", generation=None)})
    call = asyncio.create_task(ask(port, "POST", "/models/hello/predict", {}))
    await ask(port, "GET", "/health")
    await control.route("hello", None)
    assert (await call).status == 404


async def test_200_requests_in_flight_over_many_swaps_lose_nothing(port, control, workers):
    generations = 12
    replicas = {}

    def script(number):
        async def answer(request, peer):
            await asyncio.sleep(0)
            peer.answer({"said": number})

        return answer

    replicas[1] = await workers("g1.sock", script(1))
    await control.sync({"hello": route(replicas[1], generation=1)})
    active, over = 1, False
    replies = []

    async def caller():
        while not over:
            at_least = active
            reply = await ask(port, "POST", "/models/hello/predict", {})
            replies.append((at_least, reply))

    callers = [asyncio.create_task(caller()) for _ in range(40)]
    for number in range(2, generations + 1):
        replicas[number] = await workers(f"g{number}.sock", script(number))
        await control.route("hello", route(replicas[number], generation=number))
        active = number
        await until(lambda new=number: any(reply.json["said"] == new for _, reply in replies))
        await until(lambda old=replicas[number - 1]: old.ended == len(old.peers))
        await replicas[number - 1].stop()
    over = True
    await asyncio.gather(*callers)
    assert {reply.status for _, reply in replies} == {200}
    assert all(reply.json["said"] >= at_least for at_least, reply in replies)
    assert all(reply.headers["x-sandbox-generation"] == str(reply.json["said"]) for _, reply in replies)


async def test_the_gateway_serves_on_while_control_is_away_and_takes_its_word_when_it_is_back(
    port, control, workers, state
):
    await control.sync({"hello": route(await workers("g1.sock", says("old")))})
    await control.vanish()
    assert (await ask(port, "POST", "/models/hello/predict", {})).json == {"said": "old"}
    again = await Control(state).start()
    try:
        await again.sync({"hello": route(await workers("g2.sock", says("new")), generation=2)})
        assert (await ask(port, "POST", "/models/hello/predict", {})).json == {"said": "new"}
    finally:
        await again.stop()
