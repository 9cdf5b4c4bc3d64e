"""What clients see across the whole product: streams over reloads, queues, batches, OpenAI's client, and walls."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from tests.e2e.client import Answer, Client
from tests.e2e.sandbox import Sandbox

Json = dict[str, Any]
# Streams a part, waits until the data folder has what it is told to wait for, and streams the rest.
CHAT = """
import asyncio
import sandbox

class Chat(sandbox.Model):
    async def on_chat_messages(self, messages):
        yield "WORD "
        while not (self.data_dir / messages[-1]["content"]).exists():
            await asyncio.sleep(0.01)
        yield "to the end"
"""
QUEUED = "import time\n\n\ndef predict(wait: float) -> float:\n    time.sleep(wait)\n    return wait\n"
BATCH = "def predict(x: float) -> float:\n    return 1 / x\n"
EMBED = "def embed(texts: list[str]) -> list[list[float]]:\n    return [[float(len(text)), 1.0] for text in texts]\n"
# Puts a link to another socket where its own one was.
TREACHEROUS = """
import glob, os, time

def predict(target: str = "", folder: str = "", wait: float = 0) -> int:
    replaced = 0
    if target:
        for path in glob.glob("/run/sandbox/sockets/g*.sock") or glob.glob(folder):
            os.unlink(path)
            os.symlink(target, path)
            replaced += 1
    time.sleep(wait)
    return replaced
"""
# How long a stream that never ends may outlive its generation.
DRAIN = "1s"


@pytest.fixture(scope="module", autouse=True)
def running(shared: Sandbox) -> None:
    sources = {"chat": chat("old"), "cut": chat("old"), "queued": QUEUED, "batch": BATCH, "embed": EMBED}
    sources["treacherous"] = TREACHEROUS
    for name, source in sources.items():
        shared.model(name, source)
    for name in ("chat", "cut"):
        shared.data(name)
    models: Json = dict.fromkeys(sources)
    models["chat"] = {"data": "rw"}
    models["cut"] = {"data": "rw", "reload": {"drain": DRAIN}}
    models["queued"] = {"concurrency": 1, "queue": {"size": 1, "timeout": "1s"}}
    models["treacherous"] = {"concurrency": 16}
    shared.spec(models)
    shared.up()


def chat(word: str) -> str:
    return CHAT.replace("WORD", word)


@pytest.fixture
def client(shared: Sandbox) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"http://127.0.0.1:{shared.port}/v1", api_key="none", max_retries=0) as client:
        yield client


def begin(client: openai.OpenAI, model: str, until: str) -> Any:
    """A stream whose first part has arrived, and the generation that it says it is of."""
    raw = client.chat.completions.with_raw_response.create(
        model=model, messages=[{"role": "user", "content": until}], stream=True
    )
    stream = raw.parse()
    for chunk in stream:
        if chunk.choices[0].delta.content:
            return stream, int(raw.headers["x-sandbox-generation"])
    raise AssertionError("the stream ended at once")


def rest(stream: Any) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream)


def release(shared: Sandbox, model: str, name: str) -> None:
    marker = shared.project / model / "data" / name
    marker.touch()
    marker.chmod(0o666)  # a data folder that the model may not write is refused


def test_a_stream_that_began_before_a_reload_ends_on_the_generation_it_began_on(
    shared: Sandbox, client: openai.OpenAI
) -> None:
    stream, generation = begin(client, "chat", "released")

    event = shared.edit("chat/main.py", chat("new"))

    release(shared, "chat", "already")
    messages: Any = [{"role": "user", "content": "already"}]
    assert (
        client.chat.completions.create(model="chat", messages=messages).choices[0].message.content == "new to the end"
    )
    assert len(shared.row("chat")["pids"]["workers"]) == 2
    release(shared, "chat", "released")
    assert rest(stream) == "to the end"
    assert generation == event["data"]["generation"] - 1
    shared.until(lambda: len(shared.row("chat")["pids"]["workers"]) == 1)


def test_a_stream_that_outlasts_its_drain_is_cut_not_ended_and_counted(shared: Sandbox, client: openai.OpenAI) -> None:
    stream, _ = begin(client, "cut", "never")
    since = shared.mark()

    shared.edit("cut/main.py", chat("new"))

    with pytest.raises(openai.APIConnectionError):
        rest(stream)
    shared.until(lambda: len(shared.row("cut")["pids"]["workers"]) == 1)
    assert [each["data"]["cut"] for each in shared.events[since:] if "cut" in each["data"]] == [1]
    metrics = shared.request("GET", "/metrics").body.decode()
    assert 'sandbox_reload_cut_streams_total{model="cut"} 1.0' in metrics


def parallel(shared: Sandbox, model: str, bodies: list[Json]) -> list[Answer]:
    """All at once, each on a connection of its own."""

    def call(body: Json) -> Answer:
        client = Client(shared.port)
        try:
            return client.request("POST", f"/models/{model}/predict", body)
        finally:
            client.close()

    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(call, bodies))


def test_calls_beyond_the_concurrency_wait_and_beyond_the_queue_are_refused(shared: Sandbox) -> None:
    together = parallel(shared, "queued", [{"wait": 2.0}] * 3)
    assert sorted(each.status for each in together) == [200, 429, 503]
    refused = {each.code: each for each in together if each.status != 200}
    assert set(refused) == {"QUEUE_FULL", "QUEUE_TIMEOUT"}
    assert all(int(each.headers["retry-after"]) >= 1 for each in refused.values())

    waited = parallel(shared, "queued", [{"wait": 0.2}] * 2)
    assert [each.status for each in waited] == [200, 200]


def test_a_batch_answers_in_order_with_errors_in_their_place(shared: Sandbox) -> None:
    answer = shared.request("POST", "/models/batch/predict/batch", {"inputs": [{"x": 2}, {"x": 0}, {"y": 1}, {"x": 4}]})
    predictions = answer.body["data"]["predictions"]
    assert answer.body["data"]["total"] == 4
    assert (predictions[0], predictions[3]) == (0.5, 0.25)
    assert "ZeroDivisionError" in json.dumps(predictions[1]["error"])
    assert "y" in json.dumps(predictions[2]["error"])


def test_openais_client_lists_models_and_embeds(shared: Sandbox, client: openai.OpenAI) -> None:
    assert {each.id for each in client.models.list()} == set(shared.rows())
    found = client.embeddings.create(model="embed", input=["ab", "abc"])
    assert [each.embedding for each in found.data] == [[2.0, 1.0], [3.0, 1.0]]
    with pytest.raises(openai.NotFoundError) as refused:
        client.embeddings.create(model="absent", input="x")
    assert refused.value.code == "model_not_found"


@pytest.mark.parametrize("header", [{"Origin": "http://evil.example"}, {"Host": "evil.example"}, {"Origin": "null"}])
@pytest.mark.parametrize("path", ["/models/batch/predict", "/v1/models", "/metrics"])
def test_a_page_of_a_foreign_origin_or_name_gets_nothing(shared: Sandbox, path: str, header: dict[str, str]) -> None:
    with shared.another_client() as client:
        method = "POST" if path.endswith("predict") else "GET"
        answer = client.request(method, path, {"x": 2} if method == "POST" else None, header)
    assert answer.status == 403
    assert "access-control-allow-origin" not in answer.headers


def test_a_model_that_puts_the_engines_socket_in_its_own_ones_place_gets_nothing_through(shared: Sandbox) -> None:
    sockets = shared.state / "r" / "*" / "s" / "g*.sock"
    with engine(shared) as (path, calls):
        answers = parallel(shared, "treacherous", [{"target": path, "folder": str(sockets)}])
        assert answers[0].prediction >= 1
        later = parallel(shared, "treacherous", [{"wait": 0.3}] * 8)

    assert calls == []
    # Calls may still go by the connection that the gateway had to the model itself, one after the other.
    assert {each.status for each in later} <= {200, 502, 503}
    assert not any("engine" in json.dumps(each.body) for each in later)
    shared.edit("treacherous/main.py", TREACHEROUS + "# again\n")
    assert shared.call("treacherous").prediction == 0


class engine:  # noqa: N801 - used as a context manager
    """A socket of another program, as an engine's is; it notes who calls. Gives its path and the calls."""

    def __init__(self, shared: Sandbox) -> None:
        self.path = str(shared.root / "engine.sock")
        self.calls: list[bytes] = []
        self.listener = socket.socket(socket.AF_UNIX)

    def __enter__(self) -> tuple[str, list[bytes]]:
        self.listener.bind(self.path)
        self.listener.listen()
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()
        return self.path, self.calls

    def serve(self) -> None:
        while True:
            connection, _ = self.listener.accept()
            with connection:
                connection.settimeout(1)
                data = connection.recv(65536)
                if data == b"end":
                    return
                self.calls.append(data)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nengine")

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(self.path)
            last.sendall(b"end")
            self.thread.join()
        self.listener.close()
        os.unlink(self.path)
