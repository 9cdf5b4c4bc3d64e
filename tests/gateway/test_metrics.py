"""Figures: counted once, bounded in labels, summed over gateways, readable by Prometheus in both forms."""

from __future__ import annotations

import json

import pytest
from gateway_world import Client, ask, echo, route, until
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from orchestrator import exposition

OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3"


async def _samples(port: int, accept: str = "") -> dict:
    reply = await ask(port, "GET", "/metrics", headers={"Accept": accept} if accept else {})
    parse = parse_openmetrics if "openmetrics" in reply.headers["content-type"] else parse_text
    families = list(parse(reply.body.decode()))
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value for family in families for sample in family.samples
    }


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
async def test_requests_are_counted_by_model_route_and_code(port, control, workers, accept):
    async def queued(request, peer):
        peer.answer({}, headers="X-Sandbox-Queue-Seconds: 0.25\r\n")

    await control.sync({"hello": route(await workers(script=queued))})
    for _ in range(3):
        await ask(port, "POST", "/models/hello/predict", {})
    for name in range(50):
        await ask(port, "POST", f"/models/no-{name}/predict", {})
        await ask(port, "GET", f"/no/{name}")
    for probe in ("/health", "/ready", "/metrics", "/models/hello/health"):
        await ask(port, "GET", probe)
    found = await _samples(port, accept)
    counts = {key[1:]: value for key, value in found.items() if key[0] == "sandbox_requests_total"}
    assert counts == {
        (("code", "200"), ("model", "hello"), ("route", "/models/{name}/predict")): 3,
        (("code", "404"), ("model", "_unknown"), ("route", "/models/{name}/predict")): 50,
        (("code", "404"), ("model", ""), ("route", "_other")): 50,
    }
    assert found["sandbox_requests_in_progress", ("model", "hello")] == 0
    assert found["sandbox_queue_wait_seconds_sum", ("model", "hello")] == 0.75
    assert found["sandbox_time_to_first_byte_seconds_count", ("model", "hello")] == 3
    assert (
        found[
            "sandbox_request_duration_seconds_bucket",
            ("le", "+Inf"),
            ("model", "hello"),
            ("route", "/models/{name}/predict"),
        ]
        == 3
    )


async def test_held_cut_and_left_requests_are_counted(port, control, workers):
    async def cuts(request, peer):
        if b"leave" in request.body:
            await peer.left()
            return
        peer.stream_head()
        peer.chunk(b"data: 1\n\n")
        await peer.writer.drain()
        peer.writer.close()

    await control.sync({"hello": route(state="loading", generation=None)})
    client = await Client.dial(port)
    client.send("POST", "/v1/completions", b'{"model": "hello"}')
    await ask(port, "GET", "/health")
    worker = await workers(script=cuts)
    await control.route("hello", route(worker))
    await client.reply()
    client = await Client.dial(port)
    client.send("POST", "/v1/completions", b'{"model": "hello", "leave": 1}')
    await until(lambda: len(worker.requests) == 2)
    client.close()
    await until(lambda: worker.ended == 2)
    found = await _samples(port)
    assert found["sandbox_requests_held_total", ("model", "hello"), ("reason", "loading")] == 1
    codes = {dict(key[1:])["code"]: value for key, value in found.items() if key[0] == "sandbox_requests_total"}
    assert codes == {"502": 1, "499": 1}
    assert found["sandbox_requests_in_progress", ("model", "hello")] == 0


async def test_metrics_are_controls_where_control_answers(port, control, workers, state):
    async def control_answers(request, peer):
        peer.answer(
            json.dumps({"path": request.path, "accept": request.headers.get("accept")}).encode(),
            headers="Content-Type: text/x\r\n",
        )

    served = await workers("control.sock", control_answers)
    await control.sync({})
    reply = await ask(port, "GET", "/metrics", headers={"Accept": OPENMETRICS})
    assert reply.json == {"path": "/metrics", "accept": OPENMETRICS}
    served.script = echo
    await served.stop()
    assert b"sandbox_requests_total" in (await ask(port, "GET", "/metrics")).body


async def test_control_gets_the_figures_every_second_and_when_it_asks(port, control, workers):
    await control.sync({"hello": route(await workers())})
    await ask(port, "POST", "/models/hello/predict", {})
    told = await control.tell("collect")
    assert next(each for each in told["families"] if each["name"] == "sandbox_requests_total")["series"] == [
        [["hello", "/models/{name}/predict", "200"], 1]
    ]
    unasked = await control.unasked.get()
    assert {each["name"] for each in unasked["families"]} == {each["name"] for each in told["families"]}


def test_families_of_several_gateways_are_summed():
    one = exposition.Histogram("sandbox_x_seconds", "x", ("model",), (0.1, 1.0))
    two = exposition.Histogram("sandbox_x_seconds", "x", ("model",), (0.1, 1.0))
    for value in (0.05, 0.1, 0.5):
        one.observe(("a",), value)
    two.observe(("a",), 5.0)
    two.observe(("b",), 0.2)
    lists = [
        [one.family(), exposition.counter("sandbox_y_total", "y", ("m",), {("a",): 1})],
        [
            two.family(),
            exposition.counter("sandbox_y_total", "y", ("m",), {("a",): 2, ("b",): 5}),
            exposition.gauge("sandbox_z", "z", (), {(): 3}),
        ],
    ]
    merged = exposition.merge(json.loads(json.dumps(lists)))
    by_name = {family["name"]: family["series"] for family in merged}
    assert by_name["sandbox_x_seconds"] == [[["a"], [2, 1, 1], 5.65], [["b"], [0, 1, 0], 0.2]]
    assert by_name["sandbox_y_total"] == [[["a"], 3], [["b"], 5]]
    assert by_name["sandbox_z"] == [[[], 3]]
    assert [each["name"] for each in exposition.without_gauges(merged)] == ["sandbox_x_seconds", "sandbox_y_total"]
    with pytest.raises(ValueError, match="sandbox_z"):
        exposition.merge([lists[1], [exposition.counter("sandbox_z", "z", (), {})]])


@pytest.mark.parametrize(("accept", "parse"), [("", parse_text), (OPENMETRICS, parse_openmetrics)])
def test_hostile_label_values_survive_both_forms(accept, parse):
    name = 'a"b\\c\nd'
    body, _ = exposition.render([exposition.counter("sandbox_y_total", "y", ("m",), {(name,): 2})], accept)
    samples = [sample for family in parse(body.decode()) for sample in family.samples]
    assert [(sample.labels, sample.value) for sample in samples] == [({"m": name}, 2.0)]
