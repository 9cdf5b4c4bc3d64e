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
from dataclasses import dataclass

from orchestrator.gateway.answers import Head
from orchestrator.gateway.awaited import Awaited
from orchestrator.gateway.envelope import Refusal
from orchestrator.gateway.metrics import Recorder
from orchestrator.gateway.pool import Pool
from orchestrator.gateway.routes import Claim, Replica, Routes, not_loaded
from orchestrator.gateway.upstream import Connection, Died, NeverStarted, Reader
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


class Search:
    """What one request has tried. until: loop time. avoid: workers not reached since the last pause."""

    __slots__ = ("avoid", "busy", "held", "pause", "until", "why")

    def __init__(self, until: float) -> None:
        self.until = until
        self.held = False
        self.busy = False
        self.why = ""
        self.pause = FIRST_PAUSE
        self.avoid: set[Replica] = set()


class Answer:
    """A worker's answer on its way. Must be closed, however it ends."""

    def __init__(self, claim: Claim, head: Head, exchange: Awaited, close: Callable[[], None]) -> None:
        self.claim = claim
        self.head = head
        self.close = close
        self._exchange = exchange
        self._timeout = claim.active.route.timeout
        self._deadline = asyncio.get_running_loop().time() + self._timeout

    async def read(self) -> bytes:
        """What has come, b"" at the end. Raises Died where it was cut, TimeoutError at the model's `timeout`.

        The timeout bounds a whole answer; of a stream, each silence.
        """
        if self.head.streams:
            async with asyncio.timeout(self._timeout):
                return await self._exchange.read()
        async with asyncio.timeout_at(self._deadline):
            return await self._exchange.read()

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


class Forwarder:
    """Calls models. suspect(model, upstream): told of each worker that could not be reached."""

    def __init__(
        self, routes: Routes, pool: Pool, recorder: Recorder, suspect: Callable[[str, Upstream], None]
    ) -> None:
        self._routes = routes
        self._pool = pool
        self._recorder = recorder
        self._suspect = suspect

    def at_once(self, model: str, data: bytes, reader: Reader) -> tuple[Claim, Connection] | None:
        """Claim and send in this very step, where a worker and an idle connection to it are at hand; else None.

        Raises Refusal(MODEL_NOT_FOUND | MODEL_NOT_LOADED).
        """
        claim = self._routes.claim(model)
        if claim is None:
            return None
        connection = self._pool.idle(claim.replica)
        if connection is not None:
            try:
                connection.send(data, reader)
            except NeverStarted:
                self._recorder.retried(model, "closed")
            else:
                return claim, connection
        self._routes.release(claim)
        return None

    def search(self, model: str) -> Search:
        """Begin the search for a worker. Raises Refusal(MODEL_NOT_FOUND)."""
        return Search(asyncio.get_running_loop().time() + self._routes.route(model).queue_timeout)

    async def place(
        self, model: str, data: bytes, reader: Reader, search: Search, *, upgrades: bool = False
    ) -> tuple[Claim, Connection]:
        """Hold, claim, connect and send. The claim and the connection are the caller's to release.

        Raises Refusal(MODEL_NOT_FOUND | MODEL_NOT_LOADED | QUEUE_FULL | QUEUE_TIMEOUT).
        """
        loop = asyncio.get_running_loop()
        while True:
            claim = self._routes.claim(model, avoid=search.avoid)
            if claim is None:
                await self._wait(model, search, search.until - loop.time())
                continue
            try:
                connection = await self._pool.acquire(claim.replica)
                connection.send(data, reader, upgrades=upgrades)
            except NeverStarted as early:
                self._routes.release(claim)
                self.unstarted(claim, search, str(early))
            except SocketRefused as refused:
                self._routes.release(claim)
                search.busy, search.why = isinstance(refused, SocketBusy), refused.reason
                search.avoid.add(claim.replica)
                if not search.busy:
                    self._suspect(model, claim.replica.upstream)
                    self._recorder.retried(model, "connect")
            except BaseException:
                self._routes.release(claim)
                raise
            else:
                return claim, connection

    def unstarted(self, claim: Claim, search: Search, why: str) -> None:
        """A request that was sent provably never started: look elsewhere."""
        search.busy, search.why = False, why
        search.avoid.add(claim.replica)
        self._recorder.retried(claim.active.model, "closed")

    def release(self, claim: Claim, connection: Connection) -> None:
        """The exchange is over, however it ended."""
        self._pool.release(claim.replica, connection)
        self._routes.release(claim)

    async def call(self, model: str, call: Call) -> Answer:
        """The model's answer, once its head has come.

        Raises what `place` raises, Refusal(WORKER_DIED | UPSTREAM_TIMEOUT), and whatever `call.rest` raises.
        """
        search = self.search(model)
        while True:
            exchange = Awaited()
            claim, connection = await self.place(model, call.head + call.body, exchange, search)
            exchange.connection = connection
            try:
                head = await _head(exchange, call, claim.active.route.timeout)
            except BaseException as error:
                connection.abort()
                self._routes.release(claim)
                match error:
                    case NeverStarted() if call.rest is None:
                        self.unstarted(claim, search, str(error))
                    case NeverStarted():
                        raise died(claim, f"{error}, and the request is no longer held whole") from error
                    case Died():
                        raise died(claim, error.why) from error
                    case TimeoutError():
                        raise timed_out(claim) from error
                    case _:
                        raise
            else:
                return Answer(claim, head, exchange, _Closing(self, claim, connection))

    async def _wait(self, model: str, search: Search, left: float) -> None:
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


class _Closing:
    """Ends an answer once: its connection goes back (or is closed), its claim is released."""

    __slots__ = ("_claim", "_connection", "_forwarder")

    def __init__(self, forwarder: Forwarder, claim: Claim, connection: Connection) -> None:
        self._forwarder = forwarder
        self._claim: Claim | None = claim
        self._connection = connection

    def __call__(self) -> None:
        claim, self._claim = self._claim, None
        if claim is not None:
            self._forwarder.release(claim, self._connection)


async def _head(exchange: Awaited, call: Call, timeout: float) -> Head:  # noqa: ASYNC109 (the model's `timeout`)
    """Send what is left of the body, and await the answer's head, which may come before all is sent."""
    if call.rest is None:
        async with asyncio.timeout(timeout):
            return await exchange.head()
    answer = asyncio.ensure_future(exchange.head())
    sender = asyncio.ensure_future(_send(exchange, call.rest, timeout))
    try:
        await asyncio.wait({answer, sender}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            sender.result()
            async with asyncio.timeout(timeout):
                return await answer
        if not sender.done():
            exchange.connection.spoil()
        return answer.result()
    finally:
        for task in (answer, sender):
            task.cancel()
        await asyncio.gather(answer, sender, return_exceptions=True)


async def _send(exchange: Awaited, rest: AsyncIterator[bytes], timeout: float) -> None:  # noqa: ASYNC109
    """A worker that does not read for `timeout` seconds has timed out; the client's own deadline is in `rest`."""
    async for data in rest:
        async with asyncio.timeout(timeout):
            await exchange.write(data)


def died(claim: Claim, why: str) -> Refusal:
    """WORKER_DIED, with the headers that say which generation it was."""
    message = f"the worker of model {claim.active.model!r} died with this request; it may have run and was not retried"
    return Refusal("WORKER_DIED", message, why, headers=claim.active.headers)


def timed_out(claim: Claim) -> Refusal:
    """UPSTREAM_TIMEOUT, with the headers that say which generation it was."""
    message = f"model {claim.active.model!r} did not answer within {claim.active.route.timeout:g} s"
    return Refusal(
        "UPSTREAM_TIMEOUT", message, "its `timeout` in sandbox.yaml bounds a call", headers=claim.active.headers
    )
