"""Which worker answers for which model, and what is in flight where. It decides in memory, without I/O or clock.

One model has one active generation (or none). A claim picks a worker of it and is counted until it is released, so
each request has exactly one owner; a route is replaced in one step, and requests that wait are told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

from orchestrator.errors import near
from orchestrator.gateway.envelope import Refusal
from orchestrator.gateway.upstream import Connection
from orchestrator.ports import Route, Upstream

# States in which waiting is pointless: nothing will change without a person.
_SETTLED = frozenset({"failed", "stopped"})
# Requests held for one model; each holds at most its first 64 KiB.
MAX_HELD = 1000


class Replica:
    """One worker that has a route, or had one and still has requests. outstanding: claims that are not released.

    idle: the pool's connections to it that wait for their next exchange. serving: whether a route has it.
    """

    __slots__ = ("idle", "outstanding", "serving", "upstream")

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.outstanding = 0
        self.serving = True
        self.idle: list[Connection] = []


class Active:
    """What a model's requests are claimed from until its next route: the route, its replicas, the answers' headers."""

    __slots__ = ("headers", "lines", "model", "replicas", "route")

    def __init__(self, model: str, route: Route, replicas: tuple[Replica, ...]) -> None:
        self.model = model
        self.route = route
        self.replicas = replicas
        # What every answer of these workers carries.
        self.headers = {
            "X-Sandbox-Model": model,
            "X-Sandbox-Generation": str(route.generation),
            "X-Sandbox-Content": (route.content or "")[:12],
        }
        self.lines = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items()).encode()


class Claim:
    """One request's owner: a worker of one generation, counted until `Routes.release`."""

    __slots__ = ("active", "replica")

    def __init__(self, active: Active, replica: Replica) -> None:
        self.active = active
        self.replica = replica


class Routes:
    """The table. Mutated only on the event loop, by the feed (apply, replace) and by requests (claim, release)."""

    def __init__(self) -> None:
        self._routes: dict[str, Route] = {}
        self._active: dict[str, Active] = {}
        self._replicas: dict[Upstream, Replica] = {}
        self._waiters: dict[str, set[asyncio.Future[None]]] = {}
        self.synced = asyncio.Event()

    def __contains__(self, model: object) -> bool:
        return model in self._routes

    @property
    def models(self) -> Mapping[str, Route]:
        """Every model, as control named them."""
        return self._routes

    def route(self, model: str) -> Route:
        """Raises Refusal(MODEL_NOT_FOUND)."""
        try:
            return self._routes[model]
        except KeyError:
            raise self._unknown(model) from None

    def replace(self, routes: Mapping[str, Route]) -> list[Replica]:
        """Take a whole new table (`sync`); returns the replicas that left."""
        left: list[Replica] = []
        for model in [*self._routes, *routes]:
            left += self.apply(model, routes.get(model))
        self.synced.set()
        # Once more in the table's own order: clients list the models as sandbox.yaml does.
        self._routes = dict(routes)
        return left

    def apply(self, model: str, route: Route | None) -> list[Replica]:
        """Replace one model's route (None removes it) and wake who waits for it; returns the replicas that left."""
        before = self._active.get(model)
        if route is None:
            self._routes.pop(model, None)
            self._active.pop(model, None)
        else:
            self._routes[model] = route
            self._active[model] = Active(model, route, tuple(map(self._replica, route.upstreams)))
        for waiter in self._waiters.pop(model, ()):
            if not waiter.done():
                waiter.set_result(None)
        now = set(route.upstreams if route else ())
        left = [replica for replica in (before.replicas if before else ()) if replica.upstream not in now]
        for replica in left:
            replica.serving = False
            self._replicas.pop(replica.upstream, None)
        return left

    def _replica(self, upstream: Upstream) -> Replica:
        """The same worker under a new route keeps its count and its connections."""
        replica = self._replicas.get(upstream)
        if replica is None:
            replica = self._replicas[upstream] = Replica(upstream)
        return replica

    def claim(self, model: str, *, avoid: Collection[Replica] = ()) -> Claim | None:
        """The least busy worker of the active generation, counted from now; None where the request must wait.

        avoid: workers that this request just failed to reach. Raises Refusal(MODEL_NOT_FOUND | MODEL_NOT_LOADED).
        """
        active = self._active.get(model)
        if active is None:
            raise self._unknown(model)
        least: Replica | None = None
        for replica in active.replicas:
            if (least is None or replica.outstanding < least.outstanding) and replica not in avoid:
                least = replica
        if least is None:
            if not active.replicas and active.route.state in _SETTLED:
                raise not_loaded(model, active.route)
            return None
        least.outstanding += 1
        return Claim(active, least)

    def release(self, claim: Claim) -> None:
        """The request is over, however it ended."""
        claim.replica.outstanding -= 1

    async def changed(self, model: str, within: float) -> bool:
        """Wait until this model's route was replaced; False where `within` seconds passed.

        Raises Refusal(QUEUE_FULL).
        """
        waiters = self._waiters.setdefault(model, set())
        if len(waiters) >= MAX_HELD:
            raise Refusal("QUEUE_FULL", f"too many requests wait for model {model!r}", retry_after=1)
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters.add(waiter)
        try:
            async with asyncio.timeout(within):
                await waiter
        except TimeoutError:
            return False
        finally:
            waiters.discard(waiter)
            if not waiters and self._waiters.get(model) is waiters:
                del self._waiters[model]
        return True

    def _unknown(self, model: str) -> Refusal:
        hint = near(model, self._routes)
        known = ", ".join(self._routes) or "none"
        return Refusal(
            "MODEL_NOT_FOUND", f"no model is named {model!r}" + (f"; {hint}" if hint else ""), f"models: {known}"
        )


def not_loaded(model: str, route: Route) -> Refusal:
    """The refusal that tells why a model does not answer."""
    details: dict[str, Any] = {"state": route.state, "reason": route.reason, "error": route.error}
    why = f": {route.reason}" if route.reason else ""
    return Refusal("MODEL_NOT_LOADED", f"model {model!r} is {route.state}{why}", details, retry_after=1)
