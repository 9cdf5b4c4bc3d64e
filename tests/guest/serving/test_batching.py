"""Concurrent calls share a call of predict_batch, and nobody is worse off for it."""

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor

from tests.guest.conftest import Answer

MODEL = """
import asyncio, json

gate = None
sizes = []

async def predict_batch(inputs):
    global gate
    if gate is None:
        gate = asyncio.Event()
    sizes.append(len(inputs))
    if any(each.get("open") for each in inputs):
        gate.set()
    elif any(each.get("held") for each in inputs):
        await gate.wait()
    if any(each.get("bad") for each in inputs):
        raise ValueError("a bad one")
    return [KeyError("mine") if each.get("raised") else {"x": each.get("x"), "sizes": list(sizes)} for each in inputs]
"""
BATCHING = {"batching": {"max_size": 4, "max_wait": 30.0}}


def begin(worker, **inputs):
    """Send a call and return once the worker has taken it in; its answer is read later."""
    client = worker.client()
    client.request("POST", "/predict", json.dumps(inputs))
    for _ in range(5):  # each is answered some turns of the loop after what came before it
        assert worker.call("GET", "/health").status == 200
    return client


def end(client):
    with contextlib.closing(client):
        answer = client.getresponse()
        return Answer(answer.status, answer.headers, answer.read())


def place(answer):
    return tuple(map(int, answer.headers["X-Sandbox-Batch"].split("/")))


def test_a_lone_call_does_not_wait_for_company(serve):
    worker = serve(MODEL, serving=BATCHING)
    answer = worker.call("POST", "/predict", {"x": 1})
    assert answer.json["data"]["prediction"] == {"x": 1, "sizes": [1]}
    assert place(answer) == (1, 1)
    assert float(answer.headers["X-Sandbox-Queue-Seconds"]) < 10


def test_a_lone_call_that_fails_is_in_nobodys_way(serve):
    worker = serve(MODEL, serving=BATCHING)
    assert worker.call("POST", "/predict", {"bad": True}).status == 500
    assert worker.call("POST", "/predict", {"raised": True}).status == 500
    assert place(worker.call("POST", "/predict", {"x": 1})) == (1, 1)


def test_a_full_batch_begins_although_another_runs(serve):
    worker = serve(MODEL, serving=BATCHING)
    first = begin(worker, held=True)
    rest = [begin(worker, x=number) for number in range(3)]
    rest.append(begin(worker, open=True))  # the fourth: max_size
    assert [place(end(each)) for each in rest] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert place(end(first)) == (1, 1)


def test_what_came_while_a_batch_ran_is_the_next_one(serve):
    worker = serve(MODEL, serving=BATCHING)
    first = begin(worker, held=True)
    rest = [begin(worker, x=number) for number in range(2)]
    worker.call("POST", "/predict/batch", {"inputs": [{"open": True}]})
    assert place(end(first)) == (1, 1)
    assert [place(end(each)) for each in rest] == [(1, 2), (2, 2)]


def test_each_gets_its_own_answer_in_whatever_batch(serve):
    worker = serve(MODEL, serving={"batching": {"max_size": 8, "max_wait": 0.01}})
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda number: worker.predict(x=number), range(64)))
    assert [answer.prediction["x"] for answer in answers] == list(range(64))


def test_one_that_makes_predict_batch_raise_fails_alone(serve):
    worker = serve(MODEL, serving={"batching": {"max_size": 3, "max_wait": 30.0}})
    first = begin(worker, held=True)
    good, bad, opened = begin(worker, x=2), begin(worker, bad=True), begin(worker, open=True)
    assert end(good).json["data"]["prediction"]["x"] == 2
    failed = end(bad)
    assert (failed.status, failed.json["error"]["details"]["message"]) == (500, "a bad one")
    assert (end(opened).status, end(first).status) == (200, 200)


def test_clients_take_turns(serve):
    worker = serve(MODEL, serving={"batching": {"max_size": 2, "max_wait": 30.0}, "concurrency": 1})
    first = begin(worker, held=True)
    greedy = [begin(worker, x=number) for number in range(3)]
    other = worker.client()
    other.request("POST", "/predict", json.dumps({"x": "other"}), {"X-Sandbox-Client": "b"})
    assert worker.call("GET", "/health").status == 200
    worker.tell("configure", serving={"concurrency": 2})
    assert place(end(greedy[0])) == (1, 2)
    assert end(other).json["data"]["prediction"]["sizes"] == [1, 2]  # the first batch after the one that was held
    worker.call("POST", "/predict/batch", {"inputs": [{"open": True}]})
    assert end(first).status == 200
    assert [end(each).status for each in greedy[1:]] == [200, 200]


def test_a_client_that_leaves_leaves_its_batch(serve):
    worker = serve(MODEL, serving=BATCHING)
    first = begin(worker, held=True)
    gone, stays = begin(worker, x=1), begin(worker, x=2)
    gone.close()
    worker.call("POST", "/predict/batch", {"inputs": [{"open": True}]})
    assert end(first).status == 200
    assert place(end(stays)) == (1, 1)


def test_an_exception_in_an_items_place_is_that_items_failure(serve):
    worker = serve(MODEL, serving=BATCHING)
    answer = worker.call("POST", "/predict", {"raised": True})
    assert (answer.status, answer.json["error"]["details"]["type"]) == (500, "KeyError")


def test_max_wait_bounds_what_a_call_waits_for_company(serve):
    worker = serve(MODEL, serving={"batching": {"max_size": 100, "max_wait": 0.05}})
    first = begin(worker, held=True)
    opened = begin(worker, open=True)  # nobody else comes: only max_wait lets it begin
    assert (place(end(opened)), end(first).status) == ((1, 1), 200)


def test_who_waits_too_long_is_told_so(serve):
    worker = serve(MODEL, serving={**BATCHING, "queue_timeout": 0.1})
    first = begin(worker, held=True)
    late = end(begin(worker, x=1))
    assert (late.status, late.json["error"]["code"], late.headers["Retry-After"]) == (503, "QUEUE_TIMEOUT", "1")
    worker.call("POST", "/predict/batch", {"inputs": [{"open": True}]})
    assert end(first).status == 200


def test_more_than_the_queue_holds_are_refused_at_once(serve):
    worker = serve(MODEL, serving={"batching": {"max_size": 2, "max_wait": 30.0}, "concurrency": 1, "queue_size": 1})
    first = begin(worker, held=True)
    rest = [begin(worker, x=number) for number in range(4)]
    assert end(rest[-1]).json["error"]["code"] == "QUEUE_FULL"
    worker.tell("configure", serving={"concurrency": 2})
    worker.call("POST", "/predict/batch", {"inputs": [{"open": True}]})
    assert end(first).status == 200
    assert [end(each).status for each in rest[:3]] == [200, 200, 200]


def test_inputs_are_checked_against_predict_before_they_join_a_batch(serve):
    source = (
        "def predict(x: int):\n    return x\n\ndef predict_batch(inputs):\n    return [i['x'] * 2 for i in inputs]\n"
    )
    worker = serve(source, serving=BATCHING)
    assert worker.predict(x=2).prediction == 4
    assert worker.predict(x="two").status == 400


def test_without_batching_or_predict_batch_nothing_changes(serve):
    assert "X-Sandbox-Batch" not in serve(MODEL).call("POST", "/predict", {"x": 1}).headers
    alone = serve("def predict(x: int):\n    return x\n", serving=BATCHING)
    assert alone.predict(x=2).prediction == 2


def test_the_protocol_of_tensors_joins_the_same_batches(serve):
    worker = serve(MODEL, serving=BATCHING)
    body = {"inputs": [{"name": "x", "datatype": "INT64", "shape": [1], "data": [7]}]}
    answer = worker.call("POST", "/v2/infer", body)
    assert (answer.status, place(answer)) == (200, (1, 1))


def test_limits_change_while_it_serves(serve):
    worker = serve(MODEL, serving=BATCHING)
    worker.tell("configure", serving={"batching": None})
    answer = worker.call("POST", "/predict", {"x": 1})
    assert "X-Sandbox-Batch" not in answer.headers
