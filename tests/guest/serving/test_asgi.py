"""A model's own ASGI application answers below /app, beside what the model itself answers."""

import json
import socket
from contextlib import closing

import pytest

APP = """
import asyncio, json

started = []

def predict(x: int):
    return x + len(started)

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = await receive()
            if event["type"] == "lifespan.startup":
                started.append(1)
                scope["state"]["color"] = "red"
                await send({"type": "lifespan.startup.complete"})
            else:
                print("shut down", flush=True)
                await send({"type": "lifespan.shutdown.complete"})
                return
    path = scope["path"].rpartition("/")[2]
    async def head(status=200, headers=()):
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    if path == "echo":
        body = (await receive())["body"]
        told = {k: scope[k] for k in ("type", "method", "path", "root_path", "http_version", "scheme")}
        told["query"] = scope["query_string"].decode()
        told["raw"] = scope["raw_path"].decode()
        told["headers"] = [[k.decode(), v.decode()] for k, v in scope["headers"]]
        told["body"] = body.decode()
        told["state"] = scope["state"]
        await head(201, [(b"content-type", b"application/json"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"),
                         (b"content-length", b"1")])
        await send({"type": "http.response.body", "body": json.dumps(told).encode()})
    elif path == "stream":
        await head()
        for i in range(3):
            await send({"type": "http.response.body", "body": b"%d;" % i, "more_body": True})
        await send({"type": "http.response.body"})
    elif path == "nothing":
        await head(204)
        await send({"type": "http.response.body"})
    elif path == "teapot":
        await head(418)
        await send({"type": "http.response.body", "body": b"short"})
    elif path == "raises":
        raise KeyError("no")
    elif path == "late":
        await head()
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise KeyError("no")
    elif path == "split":
        await head(200, [(b"x", b"a\\r\\nSet-Cookie: stolen=1")])
    elif path == "forgets":
        await head()
    elif path == "twice":
        await head()
        await send({"type": "http.response.body"})
        await send({"type": "http.response.body"})
    elif path == "waits":
        try:
            await head()
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
            await receive()
            await receive()
        finally:
            print("left", flush=True)
"""


@pytest.fixture
def worker(serve):
    return serve(APP)


def test_a_request_reaches_the_application_as_the_specification_has_it(worker):
    answer = worker.call("POST", "/app/a%20b/echo?q=1&r=%20", b"body", {"Content-Type": "text/plain", "Cookie": "c=1"})
    assert (answer.status, answer.headers["Content-Type"]) == (201, "application/json")
    assert answer.headers.get_all("Set-Cookie") == ["a=1", "b=2"]
    assert answer.headers.get_all("Content-Length") == [str(len(answer.body))]
    told = answer.json
    headers = dict(told.pop("headers"))
    assert (headers["cookie"], headers["content-type"]) == ("c=1", "text/plain")
    assert told == {
        "type": "http",
        "method": "POST",
        "path": "/models/probe/app/a b/echo",
        "raw": "/models/probe/app/a%20b/echo",
        "root_path": "/models/probe/app",
        "http_version": "1.1",
        "scheme": "http",
        "query": "q=1&r=%20",
        "body": "body",
        "state": {"color": "red"},
    }


def test_it_started_before_the_worker_was_ready_and_shuts_down_with_it(worker):
    assert worker.predict(x=1).prediction == 2
    worker.tell("drain")
    worker.until("drained")
    assert "shut down" in worker.output


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_every_method_is_the_applications(worker, method):
    assert worker.call(method, "/app/echo").json["method"] == method


@pytest.mark.parametrize(
    ("path", "status", "body"), [("stream", 200, b"0;1;2;"), ("nothing", 204, b""), ("teapot", 418, b"short")]
)
def test_answers_of_every_kind_arrive_as_they_were_sent(worker, path, status, body):
    answer = worker.call("GET", f"/app/{path}")
    assert (answer.status, answer.body) == (status, body)
    assert answer.headers.get("Content-Length") == (None if path in ("stream", "nothing") else str(len(body)))


@pytest.mark.parametrize("path", ["raises", "split", "forgets"])
def test_a_failure_before_the_answer_is_a_500_of_ours(worker, path):
    answer = worker.call("GET", f"/app/{path}")
    assert (answer.status, answer.json["error"]["code"]) == (500, "PREDICTION_FAILED")
    assert "Set-Cookie" not in answer.headers


def test_a_failure_within_the_answer_is_a_cut_and_no_clean_end(worker):
    with closing(worker.connect()) as raw:
        raw.sendall(b"GET /app/late HTTP/1.1\r\nHost: a\r\n\r\n")
        came = b""
        try:
            while data := raw.recv(65536):
                came += data
        except ConnectionResetError:
            pass
    assert came.endswith(b"4\r\nhalf\r\n")


def test_what_is_sent_after_the_end_changes_nothing(worker):
    assert worker.call("GET", "/app/twice").status == 200
    assert worker.call("GET", "/app/echo").status == 201


def test_a_client_that_leaves_ends_the_call(worker):
    raw = worker.connect()
    raw.sendall(b"GET /app/waits HTTP/1.1\r\nHost: a\r\n\r\n")
    assert b"200" in raw.recv(100)
    raw.shutdown(socket.SHUT_RDWR)
    raw.close()
    worker.tell("drain")
    worker.until("drained")
    assert "left" in worker.output


def test_an_application_alone_is_a_model_and_says_so(serve):
    worker = serve(
        "class App:\n    async def __call__(self, scope, receive, send):\n        raise TypeError\napp = App()\n"
    )
    info = worker.call("GET", "/info").json["data"]
    assert (info["app"], info["predict"]) == (True, False)
    assert worker.predict(x=1).status == 404


def test_a_startup_that_fails_is_a_load_that_fails(boot):
    worker = boot(
        "async def app(scope, receive, send):\n    await receive()\n"
        "    await send({'type': 'lifespan.startup.failed', 'message': 'no database'})\n"
    )
    failed = worker.until("failed")
    assert (failed["phase"], failed["error"]["message"]) == ("load", "lifespan.startup: no database")


def test_without_an_application_the_path_is_nothing(serve):
    answer = serve("def predict(x: int):\n    return x\n").call("GET", "/app/x")
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (404, "NOT_FOUND")
