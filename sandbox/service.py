"""A loaded model as the protocols see it: its functions, its limits, its slots. It knows no wire format."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Dict, List, Optional

from sandbox import discovery, failure, result
from sandbox.batching import Batcher
from sandbox.calls import Caller, Function
from sandbox.chat import Chat
from sandbox.discovery import Found, hook
from sandbox.lifespan import Lifespan
from sandbox.model import Prediction, lasting_context, request_context
from sandbox.refusal import Refusal
from sandbox.slots import Lease, Slots
from sandbox.threads import Threads

# The defaults of `serving`, as sandbox.yaml has them.
SERVING: Dict[str, Any] = {
    "concurrency": 16,
    "queue_size": 1000,
    "queue_timeout": 30.0,
    "max_input": None,
    "max_batch": 100,
    "batching": None,
    "debug": False,
}
_LIMITS = ("concurrency", "queue_size", "queue_timeout", "max_input", "max_batch")


class Service:
    """One model, ready to be called. Everything runs on one event loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        found: Found,
        instance: Any,
        *,
        name: str,
        config: Dict[str, Any],
        source: failure.Source,
        serving: Dict[str, Any],
    ) -> None:
        self.name = name
        self.source = source
        self._found = found
        self._instance = instance
        self._config = config
        self.serving = {**SERVING, **serving}
        self.slots = Slots(*_slots(self.serving))
        self._threads = Threads(loop, self.slots.concurrency)
        self.caller = Caller(self._threads)
        self.predict = self._function("predict")
        self.predict_batch = self._function("predict_batch")
        self.embed = self._function("embed")
        chat = self._function("on_chat_messages") or self._function("chat")
        self.chat = Chat(chat, self.caller, self._hooks()) if chat else None
        self.app = discovery.application(found, instance)
        self.app_state: Dict[str, Any] = {}
        self._lifespan = Lifespan(self.app, self.app_state) if self.app is not None else None
        self.batcher: Optional[Batcher] = None
        self._batch()

    async def start(self) -> None:
        """Start the model's application, where it has one. Raises ApplicationError."""
        if self._lifespan is not None:
            await self._lifespan.start()

    async def stop(self) -> None:
        """End what `start` began; the caller sets the deadline."""
        if self._lifespan is not None:
            await self._lifespan.stop()

    def configure(self, serving: Dict[str, Any]) -> None:
        """New limits, live."""
        self.serving.update(serving)
        self.slots.configure(*_slots(self.serving))
        self._threads.limit = self.slots.concurrency
        self._batch()

    @property
    def info(self) -> Dict[str, Any]:
        """What /info tells, less what the gateway adds."""
        kinds = {
            "predict": self.predict is not None or self.predict_batch is not None,
            "chat": self.chat is not None,
            "embed": self.embed is not None,
            "app": self.app is not None,
        }
        typed = self.predict or self.embed or (self.chat and self.chat.function)
        return {
            "name": str(self._config.get("name", self.name)),
            "version": _text(self._config.get("version")),
            "description": str(self._config.get("description") or self._found.description),
            "tasks": self._config.get("tasks") or [kind for kind, present in kinds.items() if present],
            "input_schema": typed.signature.input_schema if typed else {},
            "output_schema": typed.signature.output_schema if typed else {},
            "limits": {name: self.serving[name] for name in _LIMITS},
            "example": self._config.get("example"),
            "stream": bool(self.chat or (self.predict and self.predict.is_stream)),
            **kinds,
        }

    def begin(self) -> Lease:
        """Start a request that has its slot: a context of its own, and the lease to be dropped at its end."""
        request_context.set(dict(lasting_context(self._instance)))
        return Lease(self.slots)

    async def together(self, lease: Lease, inputs: List[Any]) -> List[Any]:
        """One call of predict_batch: a result for each input. Raises TypeError where it returns anything else."""
        if self.predict_batch is None:
            raise TypeError("this model has no predict_batch")
        values = await self.caller.call(self.predict_batch, lease, [inputs], {})
        if isinstance(values, Prediction):
            values = values.value
        if hasattr(values, "tolist"):
            values = values.tolist()
        if not isinstance(values, (list, tuple)) or len(values) != len(inputs):
            got = f"{len(values)} results" if isinstance(values, (list, tuple)) else type(values).__name__
            told = f"predict_batch got {len(inputs)} inputs and returned {got}"
            raise TypeError(f"{told}; it owes a list with one for each")
        return list(values)

    def measure(self, inputs: Any, size: Optional[int] = None, where: str = "the input") -> None:
        """Refuse an input whose JSON has more than `max_input` characters. size: an upper bound that is known."""
        limit = self.serving["max_input"]
        if limit is None or (size is not None and size <= limit):
            return
        length = len(result.dumps(inputs))
        if length > limit:
            raise Refusal("INPUT_TOO_LONG", f"{where}: {length} characters of JSON; this model takes at most {limit}")

    def failed(self, error: BaseException, request_id: str) -> Refusal:
        """What the model raised, as an answer; and as a traceback in its log, where its author looks."""
        told = failure.describe(error, self.source)
        print(f"request {request_id} failed\n{told['traceback']}", end="", file=sys.stderr, flush=True)
        details = {key: told[key] for key in ("type", "message", "file", "line") if told[key] is not None}
        if self.serving["debug"]:
            details["traceback"] = told["traceback"]
        return Refusal("PREDICTION_FAILED", f"the model raised {told['type']}: {told['message']}", details)

    def _batch(self) -> None:
        """Batching as the limits say, where the model has something to call with a batch."""
        limits = self.serving["batching"]
        if limits is None or self.predict_batch is None:
            self.batcher = None  # one that has calls ends them; new ones no longer come to it
            return
        if self.batcher is None:
            self.batcher = Batcher(self.slots, self.begin, self.together)
        self.batcher.configure(int(limits["max_size"]), float(limits["max_wait"]))

    def _function(self, name: str) -> Optional[Function]:
        target = hook(self._found, self._instance, name)
        return Function(target) if target is not None else None

    def _hooks(self) -> Dict[str, Function]:
        names = ("on_chat_start", "on_chat_end", "on_chat_stop")
        return {name: function for name in names for function in [self._function(name)] if function is not None}


def _slots(serving: Dict[str, Any]) -> Any:
    return int(serving["concurrency"]), int(serving["queue_size"]), float(serving["queue_timeout"])


def _text(value: Any) -> Optional[str]:
    return None if value is None else str(value)
