"""OpenAI's own client is served: whole answers, streams, lists, and errors as its exceptions."""

from __future__ import annotations

import asyncio
import json

import openai
import pytest
from gateway_world import route


async def chat(request, peer):
    """A worker's chat route, as docs/internals.md has it."""
    asked = json.loads(request.body)
    common = {"id": "chatcmpl-1", "created": 1, "model": asked["model"]}
    words = ["", "one ", "two"]
    if not asked.get("stream"):
        message = {"index": 0, "message": {"role": "assistant", "content": "".join(words)}, "finish_reason": "stop"}
        peer.answer(
            {
                **common,
                "object": "chat.completion",
                "choices": [message],
                "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
            }
        )
        return
    peer.stream_head()
    deltas = [{"role": "assistant", "content": ""}, *({"content": word} for word in words[1:]), {}]
    for delta in deltas:
        choice = {"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}
        peer.chunk(
            f"data: {json.dumps({**common, 'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n".encode()
        )
    if asked["messages"][0]["content"] == "fail":
        peer.chunk(b'data: {"error": {"message": "it broke", "type": "server_error", "param": null, "code": null}}\n\n')
        await peer.writer.drain()
        peer.writer.close()
        return
    peer.chunk(b": ping\n\n")
    peer.chunk(b"data: [DONE]\n\n")
    peer.chunk(b"")


def asking(word: str = "hi", model: str = "chat") -> dict:
    return {"model": model, "messages": [{"role": "user", "content": word}]}


@pytest.fixture
async def base(port, control, workers) -> str:
    await control.sync({"chat": route(await workers(script=chat)), "broken": route(state="failed", generation=None)})
    return f"http://localhost:{port}/v1"


async def test_the_asynchronous_client(base):
    async with openai.AsyncOpenAI(base_url=base, api_key="none", max_retries=0) as client:
        answer = await client.chat.completions.create(**asking())
        assert answer.choices[0].message.content == "one two"
        stream = await client.chat.completions.create(**asking(), stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "one two"
        assert [model.id async for model in client.models.list()] == ["chat", "broken"]
        assert (await client.models.retrieve("chat")).owned_by == "model-sandbox"
        with pytest.raises(openai.NotFoundError) as unknown:
            await client.chat.completions.create(**asking(model="nobody"))
        assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
        with pytest.raises(openai.InternalServerError) as failed:
            await client.chat.completions.create(**asking(model="broken"))
        assert failed.value.status_code == 503
        with pytest.raises(openai.APIError, match="it broke"):
            async for _ in await client.chat.completions.create(**asking("fail"), stream=True):
                pass


async def test_the_synchronous_client(base):
    def call() -> tuple[str, str]:
        with openai.OpenAI(base_url=base, api_key="none", max_retries=0) as client:
            whole = client.chat.completions.create(**asking()).choices[0].message.content
            stream = client.chat.completions.create(**asking(), stream=True)
            return whole, "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    assert await asyncio.to_thread(call) == ("one two", "one two")
