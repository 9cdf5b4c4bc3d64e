"""How a function of the model is called: async on the loop, sync in a thread, generators item by item.

It knows no protocol: pieces of a stream go to a sink, everything else is the returned value.
"""

from __future__ import annotations

import asyncio
import collections
import functools
import inspect
import threading
from typing import Any, Awaitable, Callable, Deque, Generator, Optional

from sandbox.signature import Signature
from sandbox.slots import Lease
from sandbox.threads import Threads

Sink = Callable[[Any], Awaitable[None]]
# Pieces that a generator in a thread may be ahead of a slow client.
_AHEAD = 16


class Function:
    """One function of the model, read once: what it takes and whether it runs on the loop."""

    __slots__ = ("is_async", "is_stream", "signature", "target")

    def __init__(self, target: Callable[..., Any]) -> None:
        self.target = target
        self.signature = Signature(target)
        code = target if inspect.isroutine(target) else getattr(target, "__call__", target)  # noqa: B004
        code = _innermost(code)
        self.is_stream = inspect.isgeneratorfunction(code) or inspect.isasyncgenfunction(code)
        self.is_async = inspect.iscoroutinefunction(code) or inspect.isasyncgenfunction(code)


class Streamed:
    """What `call` returns where the value went to the sink, piece by piece."""


class Caller:
    """Calls functions; owns the threads. `lease` is held by a thread for as long as it runs."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads

    async def call(
        self, function: Function, lease: Lease, args: Any, keywords: Any, sink: Optional[Sink] = None
    ) -> Any:
        """The returned value. A generator's items go to `sink`; without one they come back as a list."""
        if function.is_async:
            value = function.target(*args, **keywords)
            if not function.is_stream:
                value = await value
        elif function.is_stream:
            value = function.target(*args, **keywords)  # only makes the generator; its code runs in a thread
        else:
            value = await self.in_thread(lease, functools.partial(function.target, *args, **keywords))
            if inspect.isawaitable(value):
                value = await value
        if hasattr(value, "__aiter__"):
            return await _drain_async(value, sink)
        if inspect.isgenerator(value):
            return await self._drain(value, lease, sink)
        return value

    def in_thread(self, lease: Lease, job: Callable[[], Any]) -> Awaitable[Any]:
        """Run `job` in a thread that shares the slot."""
        ended = self._threads.submit(job, lease.drop)
        lease.hold()
        return ended

    async def piped(self, lease: Lease, call: Callable[[Callable[[Any], None]], Any], sink: Sink) -> Any:
        """Run a sync function that takes a callback for its pieces: `call(put)` in a thread, pieces to `sink`."""
        pipe = _Pipe(asyncio.get_running_loop())
        ended = asyncio.ensure_future(self.in_thread(lease, functools.partial(_feed, pipe, call)))
        try:
            while await pipe.more():
                await sink(pipe.take())
            return await ended
        finally:
            pipe.close()
            ended.cancel()

    async def _drain(self, items: Generator[Any, Any, Any], lease: Lease, sink: Optional[Sink]) -> Any:
        """A sync generator, all of it in one thread: what it opened there (a database, say) may be bound to it."""
        if sink is None:
            return await self.in_thread(lease, functools.partial(list, items))

        def pump(put: Callable[[Any], None]) -> None:
            try:
                for item in items:
                    put(item)
            finally:
                items.close()

        await self.piped(lease, pump, sink)
        return Streamed


async def _drain_async(items: Any, sink: Optional[Sink]) -> Any:
    try:
        if sink is None:
            return [item async for item in items]
        async for item in items:
            await sink(item)
        return Streamed
    finally:
        # A generator that a leaving client cut short runs its own `finally` now, not when it is collected.
        close = getattr(items, "aclose", None)
        if close is not None:
            await close()


class Stopped(BaseException):
    """Raised in a thread whose client left, where it next hands over a piece."""


class _Pipe:
    """Pieces from one thread to the loop, at most _AHEAD of them in between."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._room = threading.Semaphore(_AHEAD)
        self._closed = False
        self._ended = False
        self._news = asyncio.Event()
        self.pieces: Deque[Any] = collections.deque()

    def put(self, piece: Any) -> None:
        """In the thread: hand over a piece, and wait for room. Raises Stopped once nobody wants it."""
        if not self._closed:
            self._room.acquire()
        if self._closed:
            raise Stopped
        self.pieces.append(piece)
        self._loop.call_soon_threadsafe(self._news.set)

    def finish(self) -> None:
        """In the thread: no more pieces will come."""
        self._ended = True
        self._loop.call_soon_threadsafe(self._news.set)

    async def more(self) -> bool:
        """On the loop: wait for a piece. False when there is none and none will come."""
        while not self.pieces:
            if self._ended:
                return bool(self.pieces)  # the last one may have come between the two looks
            self._news.clear()
            if not self.pieces and not self._ended:
                await self._news.wait()
        return True

    def take(self) -> Any:
        self._room.release()
        return self.pieces.popleft()

    def close(self) -> None:
        self._closed = True
        self._room.release()


def _feed(pipe: _Pipe, call: Callable[[Callable[[Any], None]], Any]) -> Any:
    try:
        return call(pipe.put)
    except Stopped:
        return None
    finally:
        pipe.finish()


def _innermost(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function
