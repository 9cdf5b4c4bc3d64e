"""GET /ws: many calls over one WebSocket, their answers in pieces. A JSON text message is a call, by its `type`:

    {"type": "predict", "id": 1, "inputs": {…}}       {"type": "chat", "id": 2, "messages": […], …parameters}
    {"type": "cancel", "id": 1}

and each answer bears the call's id: `item` and `delta` are pieces; `end`, `error` and `cancelled` are the last.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Dict, Optional, Set

from sandbox import frames, result
from sandbox.connection import Connection
from sandbox.frames import FrameError, Frames, Message
from sandbox.model import Prediction
from sandbox.protocols import envelope, openai, predict
from sandbox.protocols.completions import parameters_of, read_messages, text_of
from sandbox.protocols.turn import Turn
from sandbox.refusal import Refusal, invalid
from sandbox.service import Service

MESSAGE_LIMIT = 10 * 1024 * 1024
# Calls of one connection that run or wait at once; beyond it the client is not read until one ends.
_CALLS = 64
# A client that answers no ping for this long is gone.
_PING = 20.0
_SILENCE = 60.0


async def talk(service: Service, turn: Turn) -> None:
    """Answer the handshake, and calls until either side closes."""
    headers = turn.request.headers
    if headers.get("upgrade", "").lower() != "websocket" or headers.get("sec-websocket-version") != "13":
        raise invalid("this path speaks WebSocket, version 13: Upgrade: websocket")
    try:
        key = frames.accept(headers.get("sec-websocket-key", ""))
    except ValueError:
        raise invalid("Sec-WebSocket-Key: expected sixteen bytes in base64") from None
    conversation = _Conversation(service, turn)
    turn.connection.upgrade(f"Sec-WebSocket-Accept: {key}\r\nX-Request-ID: {turn.id}\r\n", conversation)
    await conversation.run()


class _Conversation:
    """One WebSocket. `feed` and `cut` are the connection's to call."""

    def __init__(self, service: Service, turn: Turn) -> None:
        self._service = service
        self._turn = turn
        self._connection: Connection = turn.connection
        self._frames = Frames(MESSAGE_LIMIT)
        self._calls: Dict[str, asyncio.Task[None]] = {}
        self._tasks: Set[asyncio.Task[None]] = set()
        self._count = 0
        self._heard = time.monotonic()
        self._over = asyncio.Event()
        self._timer: Optional[asyncio.TimerHandle] = None

    async def run(self) -> None:
        """Until the end; pings what is silent."""
        self._rest()
        try:
            await self._over.wait()
        finally:
            if self._timer is not None:
                self._timer.cancel()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _rest(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_PING, self._ping)

    def _ping(self) -> None:
        if time.monotonic() - self._heard > _SILENCE:
            self._connection.abort()
            return
        self._send(frames.encode(frames.PING, b""))
        self._rest()

    def feed(self, data: bytes) -> None:
        """Bytes from the client."""
        self._heard = time.monotonic()
        if self._over.is_set():
            return
        try:
            for message in self._frames.feed(data):
                self._take(message)
        except FrameError as error:
            self._end(error.code, str(error))

    def cut(self) -> None:
        """The drain deadline: whoever still listens is told to come again, and meets the new generation."""
        self._end(frames.RESTART, "the model was reloaded: connect again")

    def _take(self, message: Message) -> None:
        if message.kind == frames.PING and isinstance(message.data, bytes):
            self._send(frames.encode(frames.PONG, message.data))
        elif message.kind == frames.CLOSE:
            self._end(frames.NORMAL, "")
        elif message.kind == frames.BINARY:
            self._end(frames.UNSUPPORTED, "messages are JSON text")
        elif message.kind == frames.TEXT and isinstance(message.data, str):
            self._call(message.data)

    def _call(self, text: str) -> None:
        try:
            body, _ = envelope.read(text.encode("utf-8", "surrogatepass"))
            if not isinstance(body, dict):
                raise invalid("a message: expected an object with a `type`")
        except Refusal as refusal:
            self._text("error", None, _failure(refusal))
            return
        if body.get("type") == "cancel":
            known = self._calls.get(_key(body.get("id")))
            if known is not None:
                known.cancel()
            return
        task = asyncio.get_running_loop().create_task(self._answer(body, len(text)))
        self._tasks.add(task)
        self._calls[_key(body.get("id"))] = task
        task.add_done_callback(self._done)
        if len(self._tasks) >= _CALLS:
            self._connection.hold()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        for key in [key for key, each in self._calls.items() if each is task]:
            del self._calls[key]
        if len(self._tasks) < _CALLS:
            self._connection.go_on()

    async def _answer(self, body: Dict[str, Any], size: int) -> None:
        """Run one call and say what came of it."""
        call_id = body.get("id")
        turn = Turn(self._turn.request, self._connection)
        self._count += 1
        turn.id = f"{self._turn.id}-{self._count}"
        try:
            await self._dispatch(turn, call_id, body, size)
        except asyncio.CancelledError:
            self._say("cancelled", call_id, {})
            raise
        except BaseException as error:  # noqa: BLE001 - whatever the model raised is this call's answer
            refusal = error if isinstance(error, Refusal) else self._service.failed(error, turn.id)
            self._text("error", call_id, _failure(refusal))

    async def _dispatch(self, turn: Turn, call_id: Any, body: Dict[str, Any], size: int) -> None:
        kind = body.get("type")
        if kind == "predict":
            await self._predict(turn, call_id, body, size)
        elif kind == "chat":
            await self._chat(turn, call_id, body, size)
        else:
            raise invalid(f"type: {kind!r:.40} is not known, there are predict, chat and cancel", "type")

    async def _predict(self, turn: Turn, call_id: Any, body: Dict[str, Any], size: int) -> None:
        service = self._service
        inputs = body.get("inputs", {})
        bound = service.predict.signature.bind(inputs, "inputs") if service.predict is not None else None
        service.measure(inputs, size)
        began = time.perf_counter()

        async def put(item: Any) -> None:
            self._say("item", call_id, {"data": item.value if isinstance(item, Prediction) else item})
            await self._connection.writable()

        if service.predict is None or bound is None or service.batcher is not None:
            value = await predict.by_batch(service, turn, inputs)
        else:
            lease = await turn.admit(service)
            try:
                value = await service.caller.call(service.predict, lease, *bound, put)
            finally:
                lease.drop()
            if service.predict.is_stream:
                self._text("end", call_id, f'"data":{{"processing_time":{time.perf_counter() - began:.6f}}}')
                return
        self._text("end", call_id, f'"data":{predict.prediction(value, began)}')

    async def _chat(self, turn: Turn, call_id: Any, body: Dict[str, Any], size: int) -> None:
        service = self._service
        if service.chat is None:
            raise Refusal("NOT_FOUND", "this model does not chat: it has neither on_chat_messages nor chat")
        messages = read_messages(body)
        service.measure(messages, size, "messages")

        async def put(text: str) -> None:
            self._say("delta", call_id, {"content": text})
            await self._connection.writable()

        said = {name: value for name, value in parameters_of(body).items() if name not in ("type", "id")}
        lease = await turn.admit(service)
        try:
            reply = await service.chat.turn(messages, said, lease, put)
        finally:
            lease.drop()
        prompt = "".join(text_of(message) for message in messages)
        usage = openai.usage(prompt, reply.text, reply.usage)
        self._say("end", call_id, {"data": {"finish_reason": reply.finish_reason, "usage": usage}})

    def _say(self, kind: str, call_id: Any, fields: Dict[str, Any]) -> None:
        self._send(_text_frame(result.dumps({"type": kind, "id": call_id, **fields})))

    def _text(self, kind: str, call_id: Any, fields: str) -> None:
        """As `_say`, with fields that are JSON text already."""
        self._send(_text_frame(f'{{"type":"{kind}","id":{result.dumps(call_id)},{fields}}}'))

    def _send(self, data: bytes) -> None:
        if not self._over.is_set() and not self._connection.gone:
            self._connection.send(data)

    def _end(self, code: int, reason: str) -> None:
        self._send(frames.closing(code, reason))
        self._over.set()
        self._connection.keep_alive = False


def _failure(refusal: Refusal) -> str:
    return f'"message":{envelope.quote(refusal.message)},"error":{envelope.error_text(refusal)}'


def _text_frame(text: str) -> bytes:
    return frames.encode(frames.TEXT, result.encode(text))


def _key(call_id: Any) -> str:
    return result.dumps(call_id)
