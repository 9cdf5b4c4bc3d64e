"""One call of a model: hold, claim, send, and send again where it provably never started. It knows no client.

1. Nothing to send to: wait for a route, at most `queue_timeout` from the request's arrival.
2. A claim counts from the moment that a worker is chosen until the answer is closed.
3. Sent again, on what the route is then: a connect that failed; a request that never started (upstream.py tells) while
   the whole of it is still held.
4. Everything else after sending is WORKER_DIED: the model may have run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from orchestrator.gateway.envelope import Refusal
from orchestrator.gateway.metrics import Recorder
from orchestrator.gateway.pool import Pool
from orchestrator.gateway.routes import Claim, Routes, not_loaded
from orchestrator.gateway.upstream import Connection, Died, Head, NeverStarted
from orchestrator.ports import Upstream
from orchestrator.sockets import SocketBusy, SocketRefused

# Pauses between attempts while no worker of the route can be reached; a new route ends a pause at once.
FIRST_PAUSE = 0.005
LONGEST_PAUSE = 0.2


@dataclass(frozen=True, slots=True)
class Call:
    """What is sent. head: its bytes, with the framing that fits. body: what is at hand of the body, framed.

    rest: the frames that the client still has to send, or None where `body` is all (only then can it be sent again).
    """

    head: bytes
    body: bytes = b""
    rest: AsyncIterator[bytes] | None = None


class Answer:
    """A worker's answer on its way. Must be closed, however it ends."""

    def __init__(self, claim: Claim, head: Head, connection: Connection, close: Callable[[], None]) -> None:
        self.claim = claim
        self.head = head
        self.close = close
        self.streams = (head.get("content-type") or "").startswith("text/event-stream")
        self._connection = connection
        self._deadline = asyncio.get_running_loop().time() + claim.route.timeout

    async def read(self) -> bytes:
        """What has come, b"" at the end. Raises Died where it was cut, TimeoutError at the model's `timeout`.

        The timeout bounds a whole answer; of a stream, each silence.
        """
        if self.streams:
            async with asyncio.timeout(self.claim.route.timeout):
                return await self._connection.read()
        async with asyncio.timeout_at(self._deadline):
            return await self._connection.read()

    async def whole(self) -> bytes:
        """All of the body. Raises Refusal(WORKER_DIED | UPSTREAM_TIMEOUT)."""
        chunks = []
        try:
            while chunk := await self.read():
                chunks.append(chunk)
        except Died as death:
            raise died(self.claim, death.why) from death
        except TimeoutError as late:
            raise timed_out(self.claim) from late
        return b"".join(chunks)


@dataclass(slots=True)
class _Search:
    """What one request has tried. avoid: workers not reached since the last pause."""

    until: float
    held: bool = False
    busy: bool = False
    why: str = ""
    pause: float = FIRST_PAUSE
    avoid: set[Upstream] = field(default_factory=set)


class Forwarder:
    """Calls models. suspect(model, upstream): told of each worker that could not be reached."""

    def __init__(
        self, routes: Routes, pool: Pool, recorder: Recorder, suspect: Callable[[str, Upstream], None]
    ) -> None:
        self._routes = routes
        self._pool = pool
        self._recorder = recorder
        self._suspect = suspect

    async def call(self, model: str, call: Call) -> Answer:
        """The model's answer, once its head has come.

        Raises Refusal(MODEL_NOT_FOUND | MODEL_NOT_LOADED | QUEUE_FULL | QUEUE_TIMEOUT | WORKER_DIED |
        UPSTREAM_TIMEOUT) and whatever `call.rest` raises.
        """
        loop = asyncio.get_running_loop()
        search = _Search(until=loop.time() + self._routes.route(model).queue_timeout)
        while True:
            claim = self._routes.claim(model, avoid=search.avoid)
            if claim is None:
                await self._wait(model, search, search.until - loop.time())
                continue
            try:
                return await self._exchange(claim, call)
            except SocketBusy as busy:
                search.busy, search.why = True, busy.reason
            except SocketRefused as refused:
                search.busy, search.why = False, refused.reason
                self._suspect(model, claim.upstream)
                self._recorder.retried(model, "connect")
            except NeverStarted as early:
                if call.rest is not None:
                    raise died(claim, f"{early}, and the request is no longer held whole") from early
                search.busy, search.why = False, str(early)
                self._recorder.retried(model, "closed")
            search.avoid.add(claim.upstream)

    async def _wait(self, model: str, search: _Search, left: float) -> None:
        """Wait for another route; while workers are known but not reached, at most a pause."""
        route = self._routes.route(model)
        if left <= 0:
            if search.busy:
                raise Refusal("QUEUE_TIMEOUT", f"model {model!r} is too busy to accept a connection", retry_after=1)
            refusal = not_loaded(model, route)
            if search.why:
                refusal.details["connect"] = search.why
            raise refusal
        if search.avoid:
            if await self._routes.changed(model, min(search.pause, left)):
                search.pause = FIRST_PAUSE
            else:
                search.pause = min(2 * search.pause, LONGEST_PAUSE)
            search.avoid.clear()
            return
        if not search.held:
            search.held = True
            self._recorder.held(model, route.state)
        await self._routes.changed(model, left)

    async def _exchange(self, claim: Claim, call: Call) -> Answer:
        """Send on a claimed worker and await the head. Raises what `call` sorts out; then nothing stays claimed."""
        connection: Connection | None = None
        try:
            connection = await self._pool.acquire(claim.upstream)
            connection.send(call.head + call.body)
            head = await _head(connection, call, claim.route.timeout)
        except BaseException as error:
            if connection is not None:
                connection.abort()
            self._routes.release(claim)
            if isinstance(error, Died):
                raise died(claim, error.why) from error
            if isinstance(error, TimeoutError):
                raise timed_out(claim) from error
            raise
        return Answer(claim, head, connection, _Closing(self._routes, self._pool, claim, connection))


class _Closing:
    """Ends an answer once: its connection goes back (or is closed), its claim is released."""

    __slots__ = ("_claim", "_connection", "_pool", "_routes")

    def __init__(self, routes: Routes, pool: Pool, claim: Claim, connection: Connection) -> None:
        self._routes = routes
        self._pool = pool
        self._claim: Claim | None = claim
        self._connection = connection

    def __call__(self) -> None:
        claim, self._claim = self._claim, None
        if claim is not None:
            self._pool.release(claim.upstream, self._connection)
            self._routes.release(claim)


async def _head(connection: Connection, call: Call, timeout: float) -> Head:  # noqa: ASYNC109 (the model's `timeout`)
    """Send what is left of the body, and await the answer's head, which may come before all is sent."""
    if call.rest is None:
        async with asyncio.timeout(timeout):
            return await connection.head()
    answer = asyncio.ensure_future(connection.head())
    sender = asyncio.ensure_future(_send(connection, call.rest, timeout))
    try:
        await asyncio.wait({answer, sender}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            sender.result()
            async with asyncio.timeout(timeout):
                return await answer
        if not sender.done():
            connection.spoil()
        return answer.result()
    finally:
        for task in (answer, sender):
            task.cancel()
        await asyncio.gather(answer, sender, return_exceptions=True)


async def _send(connection: Connection, rest: AsyncIterator[bytes], timeout: float) -> None:  # noqa: ASYNC109
    """A worker that does not read for `timeout` seconds has timed out; the client's own deadline is in `rest`."""
    async for data in rest:
        async with asyncio.timeout(timeout):
            await connection.write(data)


def died(claim: Claim, why: str) -> Refusal:
    """WORKER_DIED, with the headers that say which generation it was."""
    message = f"the worker of model {claim.model!r} died with this request; it may have run and was not retried"
    return Refusal("WORKER_DIED", message, why, headers=claim.headers)


def timed_out(claim: Claim) -> Refusal:
    """UPSTREAM_TIMEOUT, with the headers that say which generation it was."""
    message = f"model {claim.model!r} did not answer within {claim.route.timeout:g} s"
    return Refusal("UPSTREAM_TIMEOUT", message, "its `timeout` in sandbox.yaml bounds a call", headers=claim.headers)
