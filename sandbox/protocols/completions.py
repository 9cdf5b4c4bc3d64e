"""POST /v1/chat/completions and /v1/completions: OpenAI's two ways to ask a model that chats."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional

from sandbox import result
from sandbox.chat import Chat, Reply
from sandbox.protocols import openai
from sandbox.protocols.sse import EventStream
from sandbox.protocols.turn import Turn
from sandbox.refusal import Refusal, invalid
from sandbox.service import Service
from sandbox.slots import Lease

# What the protocol itself reads, and what is never a model's parameter.
_OURS = ("model", "messages", "prompt", "stream", "stream_options", "n")
Choice = Callable[[str, Optional[str]], Dict[str, Any]]


async def chat(service: Service, turn: Turn) -> None:
    """Messages in, one message out, whole or in chunks."""
    body = openai.read(turn)
    spoken = _chat_of(service)
    messages = read_messages(body)
    service.measure(messages, len(turn.request.body), "messages")
    openai.only_one(body)
    prompt = "".join(text_of(message) for message in messages)
    if openai.flag(body, "stream"):
        common = openai.base("chatcmpl", "chat.completion.chunk", _model(service, body))
        first = _delta("", None)
        first["delta"]["role"] = "assistant"
        await _stream(service, turn, _Asked(spoken, messages, prompt, body, common), _delta, first)
        return
    common = openai.base("chatcmpl", "chat.completion", _model(service, body))
    reply = await _whole(service, turn, spoken, messages, body)
    message = {"role": "assistant", "content": reply.text}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reply.finish_reason}
    openai.answer(turn, {**common, "choices": [choice], "usage": openai.usage(prompt, reply.text, reply.usage)})


async def complete(service: Service, turn: Turn) -> None:
    """A prompt is a chat of one message; a list of prompts has a choice each."""
    body = openai.read(turn)
    spoken = _chat_of(service)
    prompts = openai.texts(body, "prompt")
    if len(prompts) > service.serving["max_batch"]:
        raise Refusal("PAYLOAD_TOO_LARGE", f"prompt: at most {service.serving['max_batch']} prompts", param="prompt")
    for prompt in prompts:
        service.measure(prompt, len(turn.request.body), "prompt")
    openai.only_one(body)
    common = openai.base("cmpl", "text_completion", _model(service, body))
    if openai.flag(body, "stream"):
        if len(prompts) > 1:
            raise invalid("prompt: a stream answers one prompt", "prompt")
        asked = _Asked(spoken, [{"role": "user", "content": prompts[0]}], prompts[0], body, common)
        await _stream(service, turn, asked, _piece, None)
        return
    choices = []
    total = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    for index, prompt in enumerate(prompts):
        reply = await _whole(service, turn, spoken, [{"role": "user", "content": prompt}], body)
        choices.append({**_piece(reply.text, reply.finish_reason), "index": index})
        for name, count in openai.usage(prompt, reply.text, reply.usage).items():
            if name in total and isinstance(count, int):
                total[name] += count
    openai.answer(turn, {**common, "choices": choices, "usage": total})


class _Asked:
    """One streamed turn: who is asked what, and what all chunks have in common."""

    __slots__ = ("body", "common", "messages", "prompt", "spoken")

    def __init__(
        self, spoken: Chat, messages: List[Any], prompt: str, body: Dict[str, Any], common: Dict[str, Any]
    ) -> None:
        self.spoken = spoken
        self.messages = messages
        self.prompt = prompt
        self.body = body
        self.common = common


async def _whole(service: Service, turn: Turn, spoken: Chat, messages: List[Any], body: Dict[str, Any]) -> Reply:
    lease = await turn.admit(service)
    try:
        return await spoken.turn(messages, parameters_of(body), lease)
    except BaseException as error:
        raise turn.refusal(service, error) from error
    finally:
        lease.drop()


async def _stream(service: Service, turn: Turn, asked: _Asked, choice: Choice, first: Optional[Dict[str, Any]]) -> None:
    openai.wants_usage(asked.body)
    lease = await turn.admit(service)
    stream = EventStream(turn.connection, turn.headers)
    try:
        await _chunks(stream, asked, lease, choice, first)
    except BaseException as error:
        refusal = turn.refusal(service, error)
        if not stream.begun:
            raise refusal from error
        await stream.send(result.dumps(openai.error(refusal)))
        stream.end()
    finally:
        lease.drop()
        stream.close()


async def _chunks(
    stream: EventStream, asked: _Asked, lease: Lease, choice: Choice, first: Optional[Dict[str, Any]]
) -> None:
    """The chunks, the last of them, the usage where it was asked for, and [DONE]."""
    counted = openai.wants_usage(asked.body)
    opening = [first] if first is not None else []
    unknown = {"usage": None} if counted else {}

    async def send(said: Dict[str, Any]) -> None:
        await stream.send(result.dumps({**asked.common, "choices": [said], **unknown}))

    async def put(text: str) -> None:
        while opening:
            await send(opening.pop())
        await send(choice(text, None))

    reply = await asked.spoken.turn(asked.messages, parameters_of(asked.body), lease, put)
    while opening:
        await send(opening.pop())
    await send(choice("", reply.finish_reason))
    if counted:
        count = openai.usage(asked.prompt, reply.text, reply.usage)
        await stream.send(result.dumps({**asked.common, "choices": [], "usage": count}))
    await stream.send("[DONE]")
    stream.end()


def _delta(text: str, finish_reason: Optional[str]) -> Dict[str, Any]:
    delta = {"content": text} if finish_reason is None else {}
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def _piece(text: str, finish_reason: Optional[str]) -> Dict[str, Any]:
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}


def _chat_of(service: Service) -> Chat:
    if service.chat is None:
        raise Refusal("NOT_FOUND", "this model does not chat: it has neither on_chat_messages nor chat")
    return service.chat


def _model(service: Service, body: Dict[str, Any]) -> str:
    """The name that the client used, as it expects it back."""
    return str(body.get("model") or service.name)


def parameters_of(body: Dict[str, Any]) -> Dict[str, Any]:
    """What a request says to the model, less what the protocol itself reads."""
    return {name: value for name, value in body.items() if name not in _OURS}


def read_messages(body: Dict[str, Any]) -> List[Dict[str, Any]]:
    """The messages of a request, checked. Raises Refusal INVALID_REQUEST."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise invalid("messages: expected a list of messages, at least one", "messages")
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise invalid(f"messages[{index}]: expected an object with a role", "messages")
        content = message.get("content")
        if isinstance(content, list) and all(isinstance(p, dict) and p.get("type") == "text" for p in content):
            # Text in parts is text: a model that reads strings need not know of parts.
            message["content"] = text_of(message)
        elif not isinstance(content, (str, list, type(None))):
            raise invalid(f"messages[{index}].content: expected a string or a list of parts", "messages")
    return messages


def text_of(message: Dict[str, Any]) -> str:
    """The text of one message."""
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content or ""
