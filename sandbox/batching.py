"""Concurrent calls of one model become calls of `predict_batch`. It knows no protocol.

A batch starts as soon as

1. no batch runs: a lone call never waits for company, or
2. `max_size` calls wait, or
3. the call that waited longest did so for `max_wait` seconds,

and a slot is free. So the size follows the load by itself: what arrives while a batch runs is the next one.
"""

from __future__ import annotations

import asyncio
from typing import Any, Awaitable, Callable, Dict, List, NamedTuple, Optional

from sandbox.fairness import FairQueue
from sandbox.refusal import Refusal
from sandbox.slots import Lease, Slots

Run = Callable[[Lease, List[Any]], Awaitable[List[Any]]]
"""Calls the model with these inputs: a result, or an exception, for each. Raises what the model raises."""


class Share(NamedTuple):
    """What came of one call. place: 1 is the first of its batch. waited: seconds before the batch began."""

    value: Any
    place: int
    size: int
    waited: float


class _Call:
    __slots__ = ("arrived", "client", "future", "inputs")

    def __init__(self, inputs: Any, client: str, arrived: float, future: asyncio.Future[Share]) -> None:
        self.inputs = inputs
        self.client = client
        self.arrived = arrived
        self.future = future


class Batcher:
    """Collects calls and runs them together. One event loop; batches take their slots like any other call."""

    def __init__(self, slots: Slots, begin: Callable[[], Lease], run: Run) -> None:
        self._slots = slots
        self._begin = begin
        self._run = run
        self._waiting: FairQueue[_Call] = FairQueue()
        self._arrivals: Dict[_Call, None] = {}  # who waits, the longest first
        self._batches: Dict[asyncio.Task[None], List[_Call]] = {}
        self._alone = False  # whether a lone call runs, as the batch that it is
        self._leader: Optional[asyncio.Task[None]] = None
        self._timer: Optional[asyncio.TimerHandle] = None
        self.max_size = 1
        self.max_wait = 0.0

    @property
    def queued(self) -> int:
        """Calls that wait to be in a batch."""
        return len(self._waiting)

    def configure(self, max_size: int, max_wait: float) -> None:
        """New limits, from the next batch on."""
        self.max_size = max_size
        self.max_wait = max_wait
        self._advance()

    async def call(self, inputs: Any, client: str) -> Share:
        """One call, in a batch. Raises Refusal QUEUE_FULL or QUEUE_TIMEOUT, or what the model raised for it."""
        if len(self._waiting) >= self._slots.queue_size + self.max_size:
            raise Refusal("QUEUE_FULL", f"{len(self._waiting)} calls wait, which is this model's limit", retry_after=1)
        if not (self._running or self._waiting or self._leader) and self._slots.try_acquire():
            return await self._lone(inputs)
        loop = asyncio.get_running_loop()
        call = _Call(inputs, client, loop.time(), loop.create_future())
        self._waiting.push(client, call)
        self._arrivals[call] = None
        timer = loop.call_later(self._slots.queue_timeout, self._give_up, call, self._slots.queue_timeout)
        self._advance()
        try:
            return await call.future
        except asyncio.CancelledError:
            self._abandon()
            raise
        finally:
            timer.cancel()
            if self._arrivals.pop(call, call) is None:
                self._waiting.remove(client, call)

    @property
    def _running(self) -> bool:
        return self._alone or bool(self._batches)

    async def _lone(self, inputs: Any) -> Share:
        """A batch of one in its own request's task: there a call must cost no more than without batching."""
        self._alone = True
        lease = self._begin()
        try:
            (value,) = await self._run(lease, [inputs])
        finally:
            self._alone = False
            lease.drop()
            self._advance()
        if isinstance(value, BaseException):
            raise value
        return Share(value, 1, 1, 0.0)

    def _advance(self) -> None:
        """Let a batch begin where one may."""
        if not self._waiting or self._leader is not None:
            return
        loop = asyncio.get_running_loop()
        due = next(iter(self._arrivals)).arrived + self.max_wait if self._running else 0.0
        if len(self._waiting) >= self.max_size or due <= loop.time():
            self._leader = loop.create_task(self._lead())
        elif self._timer is None:
            self._timer = loop.call_at(due, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._advance()

    async def _lead(self) -> None:
        """Wait for a slot and start a batch with who waits then."""
        try:
            await self._slots.acquire()
        except Refusal as refusal:
            # Who waited as long as this was told so by its own timer; who came later goes on waiting.
            for call in list(self._arrivals) if refusal.code == "QUEUE_FULL" else ():
                _settle(call, refusal)
            self._leader = None
            self._again()
            return
        self._leader = None
        calls = self._take()
        if not calls:
            self._slots.release()
            return
        task = asyncio.get_running_loop().create_task(self._together(calls))
        self._batches[task] = calls
        task.add_done_callback(self._ended)
        self._advance()

    def _take(self) -> List[_Call]:
        calls = [self._waiting.pop() for _ in range(min(len(self._waiting), self.max_size))]
        for call in calls:
            del self._arrivals[call]
        return [call for call in calls if not call.future.done()]

    def _again(self) -> None:
        """Look again once those that were just refused are gone."""
        asyncio.get_running_loop().call_soon(self._advance)

    def _ended(self, task: asyncio.Task[None]) -> None:
        calls = self._batches.pop(task)
        error = None if task.cancelled() else task.exception()
        for call in calls:
            _settle(call, error or asyncio.CancelledError())
        self._advance()

    async def _together(self, calls: List[_Call]) -> None:
        lease = self._begin()
        began = asyncio.get_running_loop().time()
        try:
            for place, (call, value) in enumerate(zip(calls, await self._values(lease, calls)), 1):
                if isinstance(value, BaseException):
                    _settle(call, value)
                elif not call.future.done():
                    call.future.set_result(Share(value, place, len(calls), began - call.arrived))
        finally:
            lease.drop()

    async def _values(self, lease: Lease, calls: List[_Call]) -> List[Any]:
        """A value or an exception for each. What raises as a whole is asked one by one: only the culprit fails."""
        try:
            return await self._run(lease, [call.inputs for call in calls])
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever the model raised is the answer
            if len(calls) == 1:
                return [error]
        values = []
        for call in calls:
            try:
                (value,) = await self._run(lease, [call.inputs])
            except asyncio.CancelledError:
                raise
            except BaseException as error:  # noqa: BLE001 - as above, for this call alone
                value = error
            values.append(value)
        return values

    def _abandon(self) -> None:
        """Stop the batches that nobody waits for any more."""
        for task, calls in self._batches.items():
            if all(call.future.done() for call in calls):
                task.cancel()

    def _give_up(self, call: _Call, waited: float) -> None:
        if call in self._arrivals:
            late = f"no batch began within queue.timeout ({waited:g} s)"
            _settle(call, Refusal("QUEUE_TIMEOUT", late, retry_after=1))


def _settle(call: _Call, error: BaseException) -> None:
    if not call.future.done():
        if isinstance(error, asyncio.CancelledError):
            call.future.cancel()
        else:
            call.future.set_exception(error)
