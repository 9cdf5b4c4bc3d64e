"""Clients that nobody here wrote, unmodified, against the real worker behind the real gateway."""

from __future__ import annotations

import asyncio
import json
import sys
import warnings

import numpy as np
import pytest
from gateway_world import Client, ask, route
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

MODEL = '''
"""Adds and repeats."""
import asyncio
from typing import List

def predict(x: float, words: List[str] = []):
    return {"sum": {factor} * x, "words": [w.upper() for w in words]}

async def chat(messages):
    for word in messages[-1]["content"].split():
        if word == "wait":
            await asyncio.Event().wait()
        yield word

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body = (await receive())["body"]
    headers = {k.decode(): v.decode() for k, v in scope["headers"]}
    told = {"method": scope["method"], "path": scope["path"], "query": scope["query_string"].decode(),
            "host": headers.get("host"), "for": headers.get("x-forwarded-for"), "custom": headers.get("x-custom"),
            "forged": headers.get("x-sandbox-client") == "forged", "body": body.decode()}
    import json
    await send({"type": "http.response.start", "status": 207, "headers": [(b"x-theirs", b"1"), (b"x-sandbox-model", b"lie")]})
    await send({"type": "http.response.body", "body": json.dumps(told).encode()})
'''


@pytest.fixture
async def demo(port, control, real):
    worker = await real("g1.sock", 1, MODEL)
    info = {"version": "1.0", "predict": True, "app": True}
    await control.sync({"demo": route(worker, generation=1, info=info), "off": route(state="failed", generation=None)})
    return worker


def triton(port):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tritonclient.http as client
    return client, client.InferenceServerClient(f"127.0.0.1:{port}")


def infer(port):
    """What the usual client does by default: binary tensors both ways."""
    client, server = triton(port)
    x = client.InferInput("x", [1], "FP64")
    x.set_data_from_numpy(np.array([2.5]))
    words = client.InferInput("words", [2], "BYTES")
    words.set_data_from_numpy(np.array(["a", "ñ"], dtype=object))
    answer = server.infer("demo", [x, words], request_id="r1")
    told = answer.as_numpy("sum"), answer.as_numpy("words"), answer.get_response()["id"]
    as_json = server.infer("demo", [x], outputs=[client.InferRequestedOutput("sum", binary_data=False)])
    server.close()
    return told, as_json.as_numpy("sum")


async def test_tritons_client_infers_with_binary_tensors_and_with_json(port, demo):
    (total, words, name), as_json = await asyncio.to_thread(infer, port)
    assert (total.tolist(), total.dtype, name) == ([2.5], np.float64, "r1")
    assert words.tolist() == [b"A", "Ñ".encode()]
    assert as_json.tolist() == [2.5]


def survey(port):
    client, server = triton(port)
    told = {
        "live": server.is_server_live(),
        "ready": server.is_server_ready(),
        "model": server.is_model_ready("demo"),
        "version": server.is_model_ready("demo", "1.0"),
        "other": server.is_model_ready("demo", "7"),
        "off": server.is_model_ready("off"),
        "server": server.get_server_metadata(),
        "metadata": server.get_model_metadata("demo"),
        "index": server.get_model_repository_index(),
    }
    server.load_model("demo")
    errors = []
    for call in (
        lambda: server.load_model("off"),
        lambda: server.unload_model("demo"),
        lambda: server.get_model_metadata("gone"),
    ):
        with pytest.raises(client.InferenceServerException) as refused:
            call()
        errors.append(refused.value.message())
    server.close()
    return told, errors


async def test_tritons_client_reads_metadata_readiness_and_the_repository(port, demo):
    told, errors = await asyncio.to_thread(survey, port)
    assert (told["live"], told["model"], told["version"]) == (True, True, True)
    assert (told["ready"], told["other"], told["off"]) == (False, False, False)
    assert "binary_tensor_data" in told["server"]["extensions"]
    assert [each["name"] for each in told["metadata"]["inputs"]] == ["x", "words"]
    assert [(each["name"], each["state"]) for each in told["index"]] == [("demo", "READY"), ("off", "UNAVAILABLE")]
    assert "is failed" in errors[0]
    assert "sandbox.yaml" in errors[1]
    assert "no model" in errors[2]


async def test_errors_below_v2_are_in_its_form_in_both_lanes(port, demo):
    for headers in ({}, {"Expect": "100-continue"}):
        client = await Client.dial(port)
        client.send("POST", "/v2/models/gone/infer", b"{}", headers)
        reply = await client.reply()
        while reply.status == 100:
            reply = await client.reply()
        assert (reply.status, list(reply.json)) == (404, ["error"])


async def test_the_generation_is_on_every_answer_of_v2(port, demo):
    asked = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [1]}]}
    reply = await ask(port, "POST", "/v2/models/demo/versions/1.0/infer", asked)
    assert (reply.status, reply.headers["x-sandbox-generation"]) == (200, "1")
    assert (await ask(port, "POST", "/v2/models/demo/versions/2/infer", asked)).status == 404


async def test_calls_over_a_websocket(port, demo):
    async with connect(f"ws://127.0.0.1:{port}/models/demo/ws") as socket:
        assert socket.response.headers["X-Sandbox-Generation"] == "1"
        await socket.send(json.dumps({"type": "predict", "id": 1, "inputs": {"x": 2}}))
        assert json.loads(await socket.recv())["data"]["prediction"]["sum"] == 2
        await socket.send(json.dumps({"type": "chat", "id": 2, "messages": [{"role": "user", "content": "a b"}]}))
        assert [json.loads(await socket.recv()).get("content") for _ in range(3)] == ["a", "b", None]


async def test_a_websocket_outlives_a_reload_until_the_drain_deadline(port, control, real, demo):
    async with connect(f"ws://127.0.0.1:{port}/models/demo/ws") as socket:
        await control.route("demo", route(await real("g2.sock", 10, MODEL), generation=2))
        demo.say(type="drain")
        await socket.send(json.dumps({"type": "predict", "id": 1, "inputs": {"x": 2}}))
        assert json.loads(await socket.recv())["data"]["prediction"]["sum"] == 2
        assert (await ask(port, "POST", "/models/demo/predict", {"x": 2})).json["data"]["prediction"]["sum"] == 20
        demo.say(type="cut")
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd.code == 1012
    async with connect(f"ws://127.0.0.1:{port}/models/demo/ws") as again:
        assert again.response.headers["X-Sandbox-Generation"] == "2"


async def test_a_client_that_leaves_a_websocket_leaves_the_worker(port, demo):
    async with connect(f"ws://127.0.0.1:{port}/models/demo/ws") as socket:
        await socket.send(json.dumps({"type": "chat", "id": 1, "messages": [{"role": "user", "content": "a wait"}]}))
        await socket.recv()
    demo.say(type="drain")  # it ends once no connection is left
    async with asyncio.timeout(20):
        assert await demo.process.wait() == 0


async def test_a_large_message_passes_both_ways_whole(port, control, real):
    await control.sync({"demo": route(await real("g1.sock", 1, "def predict(t: str):\n    return t\n"))})
    text = "ñ" * 2_000_000
    async with connect(f"ws://127.0.0.1:{port}/models/demo/ws", max_size=None) as socket:
        await socket.send(json.dumps({"type": "predict", "id": 1, "inputs": {"t": text}}, ensure_ascii=False))
        assert json.loads(await socket.recv())["data"]["prediction"] == text


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/models/gone/ws", {}, 404),
        ("/models/off/ws", {}, 503),
        ("/models/demo/ws", {"Origin": "http://elsewhere.example"}, 403),
    ],
)
async def test_policy_holds_for_handshakes(port, demo, path, headers, status):
    with pytest.raises(InvalidStatus) as refused:
        async with connect(f"ws://127.0.0.1:{port}{path}", additional_headers=headers):
            pass
    assert refused.value.response.status_code == status


async def test_a_handshake_that_is_none_is_refused_and_the_worker_keeps_serving(port, demo):
    client = await Client.dial(port)
    client.send("GET", "/models/demo/ws", None, {"Connection": "Upgrade", "Upgrade": "websocket"})
    reply = await client.reply()
    assert (reply.status, reply.json["error"]["code"]) == (400, "INVALID_REQUEST")
    assert (await ask(port, "GET", "/models/demo/ws")).status == 400
    assert (await ask(port, "POST", "/models/demo/predict", {"x": 1})).status == 200


async def test_every_method_and_field_reaches_the_application(port, demo):
    for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        client = await Client.dial(port)
        body = b"hello" if method in ("POST", "PUT", "PATCH") else None
        fields = {
            "X-Custom": "c",
            "X-Sandbox-Client": "forged",
            "X-Forwarded-For": "1.2.3.4",
            "Host": f"127.0.0.1:{port}",
        }
        client.send(method, "/models/demo/app/a/b?q=1", body, fields)
        reply = await client.reply()
        assert (reply.status, reply.headers["x-theirs"], reply.headers["x-sandbox-model"]) == (207, "1", "demo")
        assert reply.json == {
            "method": method,
            "path": "/models/demo/app/a/b",
            "query": "q=1",
            "host": f"127.0.0.1:{port}",
            "for": "127.0.0.1",
            "custom": "c",
            "forged": False,
            "body": "hello" if body else "",
        }


async def test_a_model_without_an_application_says_so(port, control, real):
    worker = await real("g1.sock", 1)
    await control.sync({"demo": route(worker, info={"app": False})})
    reply = await ask(port, "GET", "/models/demo/app/x")
    assert (reply.status, reply.json["error"]["code"]) == (404, "NOT_FOUND")


async def test_what_a_batch_was_is_told_and_counted(port, control, real):
    source = "def predict_batch(inputs):\n    return [len(inputs) for _ in inputs]\n"
    worker = await real("g1.sock", 1, source, batching={"max_size": 4, "max_wait": 0.01})
    await control.sync({"demo": route(worker)})
    reply = await ask(port, "POST", "/models/demo/predict", {"x": 1})
    assert (reply.headers["x-sandbox-batch"], float(reply.headers["x-sandbox-queue-seconds"]) >= 0) == ("1/1", True)
    metrics = (await ask(port, "GET", "/metrics")).body.decode()
    assert 'sandbox_batch_size_count{model="demo"} 1' in metrics


TYPED = """
from dataclasses import dataclass
from typing import Dict, List, Optional

@dataclass
class Point:
    x: float
    label: str = ""

def chat(messages):
    return "hello"

def embed(texts):
    return [[1.0] for _ in texts]

def predict(point: Point, scale: float = 1.0, tags: Optional[List[str]] = None, more: Optional[Dict[str, int]] = None) -> float:
    return float(len(point.label))
"""


async def test_schemathesis_finds_no_server_error_and_no_answer_against_the_document(port, control, real, tmp_path):
    worker = await real("g1.sock", 1, TYPED)
    await control.sync({"demo": route(worker, info=worker.info)})
    found = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{port}/openapi.json"),
        *(
            "--checks",
            "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
        ),
        *("--max-examples", "40", "--seed", "1", "--no-color"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=tmp_path,  # it keeps what it found where it runs
    )
    said, _ = await found.communicate()
    assert found.returncode == 0, said.decode()[-4000:]
    assert "Tested: 15" in said.decode()
