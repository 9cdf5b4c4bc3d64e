"""One turn of a chat: the hooks around it and the forms that its function may have. It knows no wire format."""

from __future__ import annotations

import asyncio
import functools
from typing import Any, Awaitable, Callable, Dict, List, Optional

from sandbox.calls import Caller, Function, Streamed
from sandbox.model import Prediction
from sandbox.slots import Lease

TextSink = Callable[[str], Awaitable[None]]


class Reply:
    """What the model said. usage and finish_reason: its own, or None."""

    __slots__ = ("_pieces", "finish_reason", "usage")

    def __init__(self) -> None:
        self._pieces: List[str] = []
        self.usage: Optional[Dict[str, Any]] = None
        self.finish_reason = "stop"

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    @property
    def empty(self) -> bool:
        return not self._pieces

    def take(self, piece: Any) -> str:
        """Read one piece: text, nothing, or a Prediction whose details carry "usage" or "finish_reason"."""
        if isinstance(piece, Prediction):
            details = piece.details or {}
            self.usage = details.get("usage", self.usage)
            self.finish_reason = str(details.get("finish_reason", self.finish_reason))
            piece = piece.value
        if piece is None:
            return ""
        if not isinstance(piece, str):
            raise TypeError(f"a chat's answer is text; the model gave {type(piece).__name__}")
        if piece:
            self._pieces.append(piece)
        return piece


class Chat:
    """Calls `on_chat_messages` or `chat`: a function that returns text, takes a callback for its pieces, or yields."""

    def __init__(self, function: Function, caller: Caller, hooks: Dict[str, Function]) -> None:
        self.function = function
        self._caller = caller
        self._hooks = hooks

    async def turn(
        self, messages: List[Any], parameters: Dict[str, Any], lease: Lease, sink: Optional[TextSink] = None
    ) -> Reply:
        """One request: on_chat_start, the call, on_chat_end whatever happened; on_chat_stop where the client left."""
        reply = Reply()
        try:
            await self._run("on_chat_start", lease)
            await self._call(messages, self._keywords(parameters), lease, reply, sink)
        except asyncio.CancelledError:
            await self._run("on_chat_stop", lease)
            raise
        finally:
            await self._run("on_chat_end", lease)
        return reply

    def _keywords(self, parameters: Dict[str, Any]) -> Dict[str, Any]:
        """Of the request's parameters those that the function names. max_completion_tokens is max_tokens' new name."""
        if "max_completion_tokens" in parameters and not self.function.signature.names("max_completion_tokens"):
            parameters = {"max_tokens": parameters["max_completion_tokens"], **parameters}
        given = {name: value for name, value in parameters.items() if value is not None}
        return {k: v for k, v in self.function.signature.choose(given).items() if k not in ("messages", "callback")}

    async def _call(
        self, messages: List[Any], keywords: Dict[str, Any], lease: Lease, reply: Reply, sink: Optional[TextSink]
    ) -> None:
        async def put(piece: Any) -> None:
            text = reply.take(piece)
            if text and sink is not None:
                await sink(text)

        function, caller = self.function, self._caller
        takes_callback = function.signature.names("callback")
        if not takes_callback or function.is_stream:
            value = await caller.call(function, lease, [messages], keywords, put)
        elif sink is None:
            value = await caller.call(function, lease, [messages], {**keywords, "callback": None}, put)
        elif function.is_async:
            value = await caller.call(function, lease, [messages], {**keywords, "callback": put}, put)
        else:
            value = await caller.piped(lease, functools.partial(self._with_callback, messages, keywords), put)
        if value is Streamed:
            return
        # With a callback, what is returned as well is the whole text once more.
        if reply.empty or isinstance(value, Prediction):
            await put(value if reply.empty else Prediction(None, details=value.details))

    def _with_callback(self, messages: List[Any], keywords: Dict[str, Any], put: Callable[[Any], None]) -> Any:
        return self.function.target(messages, callback=put, **keywords)

    async def _run(self, name: str, lease: Lease) -> None:
        function = self._hooks.get(name)
        if function is not None:
            await self._caller.call(function, lease, [], {})
