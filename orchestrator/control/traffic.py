"""Control's end of traffic.sock: tells every gateway which worker answers for which model, and waits until each has."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from orchestrator import exposition
from orchestrator.ports import Route

VERSION = 1
LONGEST_MESSAGE = 16 * 1024 * 1024
CONFIRM_WITHIN = 5.0
COLLECT_WITHIN = 0.5
MOST_AWAY = 16
# How often it is looked whether a gateway that is waited for still lives.
LOOK_EVERY = 0.1

Families = Sequence[Mapping[str, Any]]


@dataclass(eq=False)
class _Gateway:
    writer: asyncio.StreamWriter
    worker: int = 0
    pid: int = 0
    synced: bool = False
    pending: dict[int, asyncio.Future[Any]] = field(default_factory=dict)
    families: Families = ()

    def send(self, message: Mapping[str, Any]) -> None:
        self.writer.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    def gone(self) -> None:
        for future in self.pending.values():
            if not future.done():
                future.set_result(None)


class GatewayFeed:
    """ports.Traffic over a unix socket. The table kept here is what a gateway is given when it (re)connects.

    living: pids of the gateways that run now. One that has not found a new control yet still answers by the old table.
    """

    def __init__(
        self,
        path: str,
        policy: Mapping[str, Any],
        on_suspect: Callable[[str, str], None],
        living: Callable[[], Collection[int]] = tuple,
    ) -> None:
        self._path = path
        self._policy = policy
        self._on_suspect = on_suspect
        self._living = living
        self._arrived = asyncio.Event()
        self._routes: dict[str, Mapping[str, Any]] = {}
        self._gateways: set[_Gateway] = set()
        self._sequence = itertools.count(1)
        self._server: asyncio.Server | None = None
        # By pid: what gateways that are not connected last said. The oldest are summed: those will not be back.
        self._gone: dict[int, Families] = {}
        self._past: Families = ()

    @property
    def pids(self) -> list[int]:
        """Process ids of the connected gateways, by worker number."""
        return [each.pid for each in sorted(self._gateways, key=lambda each: each.worker)]

    async def start(self) -> None:
        """Listen. A socket left by a dead control is replaced."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        self._server = await asyncio.start_unix_server(self._serve, self._path, limit=LONGEST_MESSAGE)
        os.chmod(self._path, 0o600)

    async def close(self) -> None:
        """Stop listening and let the gateways go; they serve on with what they know."""
        if self._server is not None:
            self._server.close()
        for gateway in list(self._gateways):
            gateway.writer.close()

    async def route(self, model: str, route: Route | None) -> None:
        """See ports.Traffic."""
        encoded = None if route is None else _encode(route)
        before = self._routes.get(model)
        if before == encoded:
            return
        if encoded is None:
            self._routes.pop(model, None)
        else:
            self._routes[model] = encoded
        await self._tell({"type": "route", "model": model, "route": encoded})
        if before is not None and before["upstreams"]:
            await self._all_told()
        elif encoded is not None and encoded["upstreams"] and self._server is not None:
            await self.all_here()  # "ready" is a lie as long as one answers that there is no such model

    async def _all_told(self) -> None:
        """Wait until each gateway that lives has the table: those that were away get all of it as they come."""
        await self.all_here()
        for pid in set(self._living()) - self._synced:
            _kill(pid)

    async def all_here(self) -> None:
        """Wait until each gateway that lives is connected and has the table; not for long."""
        loop = asyncio.get_running_loop()
        until = loop.time() + CONFIRM_WITHIN
        while loop.time() < until and not self._synced.issuperset(self._living()):
            self._arrived.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await self._arrived.wait()

    @property
    def _synced(self) -> set[int]:
        return {each.pid for each in self._gateways if each.synced}

    async def policy(self, policy: Mapping[str, Any]) -> None:
        """Replace the gateway settings that apply at once."""
        if policy != self._policy:
            self._policy = policy
            await self._tell({"type": "policy", "policy": policy})

    async def metrics(self) -> Sequence[Families]:
        """See ports.Traffic. A gateway that does not answer in time is counted as it last said."""
        await self._tell({"type": "collect"}, within=COLLECT_WITHIN)
        return [self._past, *self._gone.values(), *(each.families for each in self._gateways)]

    async def _tell(self, message: Mapping[str, Any], within: float | None = None) -> None:
        sequence = next(self._sequence)
        loop = asyncio.get_running_loop()
        waiting = []
        for gateway in self._gateways:
            gateway.pending[sequence] = future = loop.create_future()
            gateway.send({**message, "seq": sequence})
            waiting.append((gateway, future))
        if not waiting:
            return
        _, late = await asyncio.wait(
            [future for _, future in waiting], timeout=CONFIRM_WITHIN if within is None else within
        )
        for gateway, future in waiting:
            gateway.pending.pop(sequence, None)
            if future in late and message["type"] != "collect":
                self._end(gateway)

    def _end(self, gateway: _Gateway) -> None:
        """End a gateway that lives and does not confirm: what it answered once it woke would be by the old table.

        The keeper starts another. Its connection is still open, so the pid cannot have become somebody else's.
        """
        gateway.writer.transport.abort()
        if gateway.pid in self._living():
            _kill(gateway.pid)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gateway = _Gateway(writer)
        try:
            while line := await reader.readline():
                self._receive(gateway, json.loads(line))
        except (OSError, ValueError):
            pass  # a gateway that died or speaks nonsense is let go; the keeper starts another
        finally:
            self._gateways.discard(gateway)
            if gateway.families:
                self._remember(gateway)
            gateway.gone()
            writer.close()

    def _remember(self, gateway: _Gateway) -> None:
        """Keep what must not fall when its gateway is gone: all but gauges."""
        self._gone[gateway.pid] = exposition.without_gauges(gateway.families)
        while len(self._gone) > MOST_AWAY:
            oldest = self._gone.pop(next(iter(self._gone)))
            self._past = exposition.merge([self._past, oldest])

    def _receive(self, gateway: _Gateway, message: Mapping[str, Any]) -> None:
        kind, sequence = message.get("type"), message.get("seq")
        if kind == "hello":
            gateway.pid, gateway.worker = int(message["pid"]), int(message.get("worker", 0))
            self._gateways.add(gateway)
            self._gone.pop(gateway.pid, None)  # it had only lost us
            gateway.send({"type": "sync", "seq": next(self._sequence), "policy": self._policy, "models": self._routes})
        elif kind == "metrics":
            gateway.families = message["families"]
        elif kind == "suspect":
            self._on_suspect(str(message["model"]), str(message.get("upstream", "")))
        elif kind == "applied" and not gateway.synced:  # the table is the first thing that it is sent
            gateway.synced = True
            self._arrived.set()
        future = gateway.pending.get(sequence) if isinstance(sequence, int) else None
        if future is not None and not future.done():
            future.set_result(None)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _encode(route: Route) -> Mapping[str, Any]:
    return json.loads(json.dumps(asdict(route)))  # type: ignore[no-any-return]
