"""The gateway's own settings while it runs: `gateway:` of sandbox.yaml comes into force without a restart.

Limits and names are told to the gateways. Another address or number of processes is asked of the keeper, which binds
first; whoever is connected to the old address is served to the end, and what cannot be had leaves all as it was.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from orchestrator import relisten
from orchestrator.control.journal import Journal
from orchestrator.control.meters import Meters
from orchestrator.control.told import Told
from orchestrator.control.traffic import GatewayFeed
from orchestrator.plan.changes import classify_gateway
from orchestrator.plan.types import GatewayDesired


class Front:
    """gateway: what is in force; its port is the one that was bound. listener: the descriptor where control has it."""

    def __init__(self, state: str, orders: Mapping[str, Any], listener: int) -> None:
        self._state = state
        self._listener = listener
        port = socket.socket(fileno=os.dup(listener)).getsockname()[1]
        self.gateway = GatewayDesired(str(orders["host"]), port, int(orders.get("workers") or 1))
        self._told = Told(state)
        self._said: GatewayDesired | None = None  # by the file, when it was last read
        self._lock = asyncio.Lock()

    @property
    def policy(self) -> dict[str, Any]:
        """What the gateways are told (docs/internals.md, `policy`)."""
        kept = self._told.policy
        if self._said is None and kept is not None:  # the file cannot be read: what was in force stays so
            return {**kept, "host": self.gateway.host, "port": self.gateway.port}
        return self._told.tell(self.gateway)

    @property
    def url(self) -> str:
        """Where the gateway answers, for people."""
        host = self.gateway.host
        shown = "localhost" if host in {"127.0.0.1", "0.0.0.0", "::", "::1"} else host  # noqa: S104 - shown, not bound
        return f"http://{shown}:{self.gateway.port}"

    async def apply(self, wanted: GatewayDesired, feed: GatewayFeed, journal: Journal, meters: Meters) -> None:
        """Bring what the file says into force, and tell of it once every gateway has it."""
        async with self._lock:
            began = time.monotonic()
            said, self._said = self._said, wanted
            before = self.gateway
            # What an earlier control was started for may have come from another environment: only an edit moves it.
            moved = said is not None and _address(said) != _address(wanted)
            if moved:
                await self._move(wanted, journal)
            elif said is None:
                self._tell_of_difference(wanted, journal)
            self.gateway = replace(wanted, host=self.gateway.host, port=self.gateway.port, workers=self.gateway.workers)
            policy = self.policy
            try:
                self._told.keep()  # first: a key that the gateways have is one that our own commands find
            except OSError as error:
                journal.add("spec", f"the gateway's policy is not kept: {error}")
            await feed.policy(policy)
            if moved:
                await feed.all_here()
            change = classify_gateway(before, self.gateway)
            if said is None or change.tier == "none":
                return
            took, cause = time.monotonic() - began, ", ".join(change.causes)
            phases = {"total": round(took, 6)}
            meters.reload("", "live", "ok", phases)
            note = f"✔ in {took * 1000:.0f} ms (live: {cause})"
            journal.add("reload", note, ok=True, result="ok", tier="live", cause=cause, files=[], phases=phases)

    async def _move(self, wanted: GatewayDesired, journal: Journal) -> None:
        port = wanted.port or self.gateway.port
        try:
            answer, listener = await asyncio.to_thread(relisten.ask, self._state, wanted.host, port, wanted.workers)
        except OSError as error:
            answer, listener = {"error": {"reference": "control", "message": f"no keeper answers: {error}"}}, None
        if listener is None:
            told = answer["error"]
            note = f"✖ gateway: {told['message']}; {self.gateway.host}:{self.gateway.port} stays"
            journal.add("spec", note, ok=False, reference=told["reference"])
            return
        os.dup2(listener, self._listener)
        os.close(listener)
        self.gateway = replace(self.gateway, host=wanted.host, port=int(answer["port"]), workers=wanted.workers)

    def _tell_of_difference(self, wanted: GatewayDesired, journal: Journal) -> None:
        for key in ("host", "port", "workers"):
            now, there = getattr(wanted, key), getattr(self.gateway, key)
            if now != there and (key, now) != ("port", 0):
                note = (
                    f"gateway.{key} is {there} here, {now} in the file: applies once it is edited, or after down and up"
                )
                journal.add("spec", note)


def _address(gateway: GatewayDesired) -> tuple[str, int, int]:
    return gateway.host, gateway.port, gateway.workers
