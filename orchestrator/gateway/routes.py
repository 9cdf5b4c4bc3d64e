"""Which worker answers for which model, and what is in flight where. It decides in memory, without I/O or clock.

One model has one active generation (or none). A claim picks a worker of it and is counted until it is released, so
each request has exactly one owner; a route is replaced in one step, and requests that wait are told.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import near
from orchestrator.gateway.envelope import Refusal
from orchestrator.ports import Route, Upstream

# States in which waiting is pointless: nothing will change without a person.
_SETTLED = frozenset({"failed", "stopped"})
# Requests held for one model; each holds at most its first 64 KiB.
MAX_HELD = 1000


@dataclass(slots=True, eq=False)
class Claim:
    """One request's owner: a worker of one generation, counted until `Routes.release`."""

    model: str
    route: Route
    upstream: Upstream

    @property
    def headers(self) -> dict[str, str]:
        """What every answer of this worker carries."""
        return {
            "X-Sandbox-Model": self.model,
            "X-Sandbox-Generation": str(self.route.generation),
            "X-Sandbox-Content": (self.route.content or "")[:12],
        }


class Routes:
    """The table. Mutated only on the event loop, by the feed (apply, replace) and by requests (claim, release)."""

    def __init__(self) -> None:
        self._routes: dict[str, Route] = {}
        self._outstanding: Counter[Upstream] = Counter()
        self._in_flight: Counter[tuple[str, int | None]] = Counter()
        self._waiters: dict[str, set[asyncio.Future[None]]] = {}
        self._serving: set[Upstream] = set()
        self.synced = asyncio.Event()

    def __contains__(self, model: str) -> bool:
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

    def serves(self, upstream: Upstream) -> bool:
        """Whether some model's route has this worker."""
        return upstream in self._serving

    def replace(self, routes: Mapping[str, Route]) -> set[Upstream]:
        """Take a whole new table (`sync`); returns the upstreams that left."""
        left: set[Upstream] = set()
        for model in [*self._routes, *routes]:
            left |= self.apply(model, routes.get(model))
        self.synced.set()
        # Once more in the table's own order: clients list the models as sandbox.yaml does.
        self._routes = dict(routes)
        return left

    def apply(self, model: str, route: Route | None) -> set[Upstream]:
        """Replace one model's route (None removes it) and wake who waits for it; returns the upstreams that left."""
        before = self._routes.get(model)
        if route is None:
            self._routes.pop(model, None)
        else:
            self._routes[model] = route
        for waiter in self._waiters.pop(model, ()):
            if not waiter.done():
                waiter.set_result(None)
        now = set(route.upstreams if route else ())
        left = set(before.upstreams if before else ()) - now
        self._serving = (self._serving - left) | now
        return left

    def claim(self, model: str, *, avoid: Collection[Upstream] = ()) -> Claim | None:
        """The least busy worker of the active generation, counted from now; None where the request must wait.

        avoid: workers that this request just failed to reach. Raises Refusal(MODEL_NOT_FOUND | MODEL_NOT_LOADED).
        """
        route = self.route(model)
        candidates = [upstream for upstream in route.upstreams if upstream not in avoid]
        if not candidates:
            if not route.upstreams and route.state in _SETTLED:
                raise not_loaded(model, route)
            return None
        upstream = min(candidates, key=self._outstanding.__getitem__)
        self._outstanding[upstream] += 1
        self._in_flight[model, route.generation] += 1
        return Claim(model, route, upstream)

    def release(self, claim: Claim) -> None:
        """The request is over, however it ended."""
        _decrement(self._outstanding, claim.upstream)
        _decrement(self._in_flight, (claim.model, claim.route.generation))

    def in_flight(self, model: str, generation: int | None) -> int:
        """Claimed requests of this generation that are not over."""
        return self._in_flight[model, generation]

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


def _decrement(counts: Counter[Any], key: Any) -> None:
    counts[key] -= 1
    if counts[key] <= 0:
        del counts[key]
