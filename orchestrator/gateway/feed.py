"""The gateway's end of traffic.sock: what control says is applied in one step of the event loop, then confirmed.

While control is away the gateway serves on with what it knows and dials again. See docs/internals.md for the messages.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Mapping
from typing import Any

from orchestrator import sockets
from orchestrator.gateway.general import Gateway
from orchestrator.gateway.policy import Policy
from orchestrator.ports import Route, Upstream

VERSION = 1
SOCKET = "traffic.sock"
# A message from control is trusted, and a table of many models with their schemas is one line.
LONGEST_MESSAGE = 16 * 1024 * 1024
FIRST_PAUSE = 0.02
LONGEST_PAUSE = 1.0
METRICS_EVERY = 1.0
# Suspicions not yet sent; more say nothing new.
MAX_SUSPECTS = 1000

_logger = logging.getLogger(__name__)


class Feed:
    """Dials control for as long as it runs. state: the folder with the socket."""

    def __init__(self, gateway: Gateway, state: str, worker: int = 0) -> None:
        self._gateway = gateway
        self._state = state
        self._worker = worker
        self._writer: asyncio.StreamWriter | None = None
        self._suspects: set[tuple[str, Upstream]] = set()

    def suspect(self, model: str, upstream: Upstream) -> None:
        """Tell control that a worker could not be reached (once per worker and connection)."""
        if self._writer is None or (model, upstream) in self._suspects or len(self._suspects) >= MAX_SUSPECTS:
            return
        self._suspects.add((model, upstream))
        self._send({"type": "suspect", "model": model, "upstream": upstream.id, "socket": upstream.socket})

    async def run(self) -> None:
        """Dial, listen, dial again, until cancelled."""
        pause = FIRST_PAUSE
        while True:
            try:
                reader, writer = await self._dial()
            except (sockets.SocketRefused, OSError) as error:
                _logger.debug("control cannot be reached: %s", error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            try:
                await self._converse(reader, writer)
                pause = FIRST_PAUSE
            except OSError as error:
                _logger.debug("control is gone: %s", error)
                pause = FIRST_PAUSE
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                # A message that cannot be read leaves the table in doubt: the next connection brings all of it.
                _logger.warning("control wrote what cannot be read: %r", error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        sock = sockets.connect(self._state, SOCKET, uid=os.geteuid())
        return await asyncio.open_connection(sock=sock, limit=LONGEST_MESSAGE)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._suspects.clear()
        self._send({"type": "hello", "version": VERSION, "pid": os.getpid(), "worker": self._worker})
        figures = asyncio.create_task(self._figures())
        try:
            while line := await reader.readline():
                self._apply(json.loads(line))
        finally:
            self._writer = None
            figures.cancel()
            writer.close()
            await asyncio.gather(figures, return_exceptions=True)

    async def _figures(self) -> None:
        while True:
            await asyncio.sleep(METRICS_EVERY)
            self._metrics(None)

    def _apply(self, message: Mapping[str, Any]) -> None:
        """One message, in one step: nothing here awaits."""
        gateway = self._gateway
        seq = message.get("seq")
        match message.get("type"):
            case "sync":
                policy = Policy.parse(message["policy"])
                routes = {name: parse_route(route) for name, route in message["models"].items()}
                gateway.use(policy)
                gateway.pool.retire(gateway.routes.replace(routes))
            case "route":
                route = message["route"]
                left = gateway.routes.apply(message["model"], None if route is None else parse_route(route))
                gateway.pool.retire(left)
                # A worker that has just got its route may be suspected afresh.
                self._suspects = {each for each in self._suspects if each[0] != message["model"]}
            case "policy":
                gateway.use(Policy.parse(message["policy"]))
            case "collect":
                self._metrics(seq)
                return
            case _:
                return
        self._send({"type": "applied", "seq": seq})

    def _metrics(self, seq: int | None) -> None:
        self._send({"type": "metrics", "seq": seq, "families": self._gateway.recorder.families()})

    def _send(self, message: Mapping[str, Any]) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")


def parse_route(data: Mapping[str, Any]) -> Route:
    """ports.Route from JSON; unknown fields are ignored. Raises KeyError, TypeError, ValueError."""
    known = {key: value for key, value in data.items() if key in Route.__dataclass_fields__ and key != "upstreams"}
    upstreams = tuple(
        Upstream(str(each["id"]), str(each["directory"]), str(each["socket"]), int(each["uid"]))
        for each in data.get("upstreams", ())
    )
    return Route(**known, upstreams=upstreams)
