"""The OpenAI endpoints, byte for byte where the standard says so, and through the official client."""

import base64
import json
import struct
import sys

import openai
import pytest

# Whichever of them the installed client is built on.
httpx = sys.modules.get("httpx2") or sys.modules["httpx"]

ECHO = """
def chat(messages, temperature: float = 1.0):
    for word in messages[-1]["content"].split():
        if word == "fail":
            raise ValueError("asked to")
        yield word + " "

def embed(texts):
    return [[len(text), 0.5] for text in texts]
"""


def ask(worker, text="one two", **more):
    return worker.call(
        "POST", "/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": text}], **more}
    )


@pytest.fixture
def echo(serve):
    return serve(ECHO)


def test_a_whole_answer(echo):
    body = ask(echo).json
    assert body.pop("id").startswith("chatcmpl-")
    assert body.pop("created") > 1_700_000_000
    assert body == {
        "object": "chat.completion",
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "one two "},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4},
    }


@pytest.mark.parametrize("counted", [False, True])
def test_a_streamed_answer(echo, counted):
    answer = ask(echo, stream=True, stream_options={"include_usage": counted})
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert (answer.headers["Cache-Control"], answer.headers["X-Accel-Buffering"]) == ("no-cache", "no")
    assert answer.body.endswith(b"data: [DONE]\n\n")
    chunks = [json.loads(event) for event in answer.events[:-1]]
    assert len({(chunk["id"], chunk["created"], chunk["object"], chunk["model"]) for chunk in chunks}) == 1
    assert chunks[0]["object"] == "chat.completion.chunk"
    spoken = chunks[:-1] if counted else chunks
    deltas = [chunk["choices"][0]["delta"] for chunk in spoken]
    assert deltas == [{"role": "assistant", "content": ""}, {"content": "one "}, {"content": "two "}, {}]
    assert [chunk["choices"][0]["finish_reason"] for chunk in spoken] == [None, None, None, "stop"]
    if counted:
        assert all(chunk["usage"] is None for chunk in spoken)
        assert chunks[-1]["choices"] == []
        assert chunks[-1]["usage"]["total_tokens"] == 4
    else:
        assert all("usage" not in chunk for chunk in chunks)


def test_an_empty_answer_still_has_its_first_and_last_chunk(echo):
    chunks = [json.loads(event) for event in ask(echo, "", stream=True).events[:-1]]
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [{"role": "assistant", "content": ""}, {}]


def test_a_failure_midstream_is_an_error_event_and_no_done(echo):
    events = ask(echo, "one fail", stream=True).events
    error = json.loads(events[-1])["error"]
    assert set(error) >= {"message", "type", "param", "code"}
    assert error["code"] == "prediction_failed"
    assert "[DONE]" not in events


def test_a_failure_before_the_first_piece_has_its_own_status(echo):
    answer = ask(echo, "fail", stream=True)
    assert answer.status == 500
    assert answer.json["error"]["type"] == "server_error"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"content": "no role"}]}, "messages"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages"),
        ({"n": 2}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": 1, "stream": True}, "stream_options"),
        ({"temperature": "hot"}, "temperature"),
    ],
)
def test_a_wrong_request_names_the_parameter(echo, change, param):
    answer = ask(echo, **change)
    assert answer.status == 400
    assert answer.json["error"]["type"] == "invalid_request_error"
    assert answer.json["error"]["param"] == param


def test_text_in_parts_is_text(echo):
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    answer = ask(echo, messages=[{"role": "user", "content": parts}])
    assert answer.json["choices"][0]["message"]["content"] == "one two "


def test_a_models_own_usage_and_finish_reason_count(serve):
    code = "import sandbox\ndef chat(messages):\n    yield 'a'\n    yield sandbox.Prediction('b', details={'usage': {'prompt_tokens': 7, 'completion_tokens': 1, 'total_tokens': 8}, 'finish_reason': 'length'})\n"
    body = ask(serve(code)).json
    assert body["usage"]["total_tokens"] == 8
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["choices"][0]["message"]["content"] == "ab"


def test_completions(echo):
    body = echo.call("POST", "/v1/completions", {"prompt": ["a b", "c"]}).json
    assert body["object"] == "text_completion"
    assert [(choice["index"], choice["text"]) for choice in body["choices"]] == [(0, "a b "), (1, "c ")]
    streamed = echo.call("POST", "/v1/completions", {"prompt": "a b", "stream": True})
    chunks = [json.loads(event) for event in streamed.events[:-1]]
    assert [(chunk["choices"][0]["text"], chunk["choices"][0]["finish_reason"]) for chunk in chunks] == [
        ("a ", None),
        ("b ", None),
        ("", "stop"),
    ]


def test_embeddings(echo):
    body = echo.call("POST", "/v1/embeddings", {"model": "m", "input": ["abc", "a"]}).json
    assert body["data"][0] == {"object": "embedding", "index": 0, "embedding": [3.0, 0.5]}
    assert body["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
    packed = echo.call("POST", "/v1/embeddings", {"input": "abc", "encoding_format": "base64"}).json["data"][0][
        "embedding"
    ]
    assert struct.unpack("<2f", base64.b64decode(packed)) == (3.0, 0.5)
    for wrong in ({"input": [1, 2]}, {"input": []}, {}, {"input": "a", "encoding_format": "int8"}):
        assert echo.call("POST", "/v1/embeddings", wrong).status == 400


@pytest.mark.parametrize("value", ["[[float('nan')]]", "[]", "[['a']]", "None"])
def test_vectors_that_are_none_fail(serve, value):
    answer = serve(f"def embed(texts):\n    return {value}\n").call("POST", "/v1/embeddings", {"input": "a"})
    assert (answer.status, answer.json["error"]["code"]) == (500, "prediction_failed")


def test_the_official_client_is_served(echo):
    transport = httpx.HTTPTransport(uds=echo.socket_path)
    with (
        httpx.Client(transport=transport) as http,
        openai.OpenAI(base_url="http://worker/v1", api_key="none", http_client=http, max_retries=0) as client,
    ):
        messages = [{"role": "user", "content": "one two"}]
        assert client.chat.completions.create(model="m", messages=messages).choices[0].message.content == "one two "
        stream = client.chat.completions.create(model="m", messages=messages, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "one two "
        with pytest.raises(openai.APIError, match="asked to"):
            list(
                client.chat.completions.create(
                    model="m", messages=[{"role": "user", "content": "one fail"}], stream=True
                )
            )
        assert client.embeddings.create(model="m", input="abc").data[0].embedding == [3.0, 0.5]
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(model="m", messages=[])
