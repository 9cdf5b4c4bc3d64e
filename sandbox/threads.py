"""The threads in which a model's sync code runs, and how results come back to the event loop. It knows no model."""

from __future__ import annotations

import asyncio
import collections
import contextvars
import queue
import threading
from typing import Any, Callable, Deque, List, Optional, Tuple

Job = Callable[[], Any]
Done = Callable[[], None]
_Order = Tuple["asyncio.Future[Any]", contextvars.Context, Job, Done]
_Result = Tuple["asyncio.Future[Any]", Done, Any, Optional[BaseException]]


class Threads:
    """Up to `limit` daemon threads, started when needed, kept. Results of a burst cost the loop one wake-up."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: int) -> None:
        self._loop = loop
        self.limit = limit
        self._orders: queue.SimpleQueue[_Order] = queue.SimpleQueue()
        self._results: Deque[_Result] = collections.deque()
        self._threads: List[threading.Thread] = []
        self._open = 0
        self._lock = threading.Lock()
        self._woken = False

    def submit(self, job: Job, done: Done) -> asyncio.Future[Any]:
        """Run `job` in a thread, in a copy of this context.

        `done` is called on the loop once it ended, even if the future was cancelled: a thread cannot be stopped.
        Raises RuntimeError where no thread can be had; then `job` is never run and `done` never called.
        """
        if self._open >= len(self._threads) and len(self._threads) < self.limit:
            self._grow()
        future: asyncio.Future[Any] = self._loop.create_future()
        self._open += 1
        self._orders.put((future, contextvars.copy_context(), job, done))
        return future

    def _grow(self) -> None:
        thread = threading.Thread(target=self._work, name=f"model-{len(self._threads)}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # No more processes or memory: those that there are do it in turn, and the next call tries again.
            if not self._threads:
                raise
            return
        self._threads.append(thread)

    def _work(self) -> None:
        orders, results, loop = self._orders, self._results, self._loop
        while True:
            future, context, job, done = orders.get()
            value, error = None, None
            try:
                value = context.run(job)
            except BaseException as raised:  # noqa: BLE001 - a model may raise anything, SystemExit too: it is its answer
                error = raised
            results.append((future, done, value, error))
            del future, context, job, done, value, error
            with self._lock:
                wake, self._woken = not self._woken, True
            if wake:
                loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        with self._lock:
            self._woken = False
        while self._results:
            future, done, value, error = self._results.popleft()
            self._open -= 1
            done()
            if future.done():
                continue
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(_raisable(error))


def _raisable(error: BaseException) -> BaseException:
    """A future refuses StopIteration, and cancellation is the loop's own word."""
    if isinstance(error, (StopIteration, asyncio.CancelledError)):
        wrapped = RuntimeError(f"the model raised {type(error).__name__}")
        wrapped.__cause__ = error
        return wrapped
    return error
