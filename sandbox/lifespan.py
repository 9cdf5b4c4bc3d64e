"""An ASGI application's startup before its worker is ready, and its shutdown before it ends. It knows no request."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Awaitable, Callable, Dict, MutableMapping, Optional

Event = MutableMapping[str, Any]
Application = Callable[..., Awaitable[None]]
VERSION = {"version": "3.0", "spec_version": "2.4"}


class ApplicationError(Exception):
    """The application broke the rules of ASGI, or says that it cannot start."""


class Lifespan:
    """Runs an application's startup before the worker is ready, and its shutdown before it ends."""

    def __init__(self, app: Application, state: Dict[str, Any]) -> None:
        self._app = app
        self._state = state
        self._to_app: asyncio.Queue[Event] = asyncio.Queue()
        self._from_app: asyncio.Queue[Optional[str]] = asyncio.Queue()
        self._task: Optional[asyncio.Task[None]] = None

    async def start(self) -> None:
        """Raises ApplicationError where startup failed. An application that knows no lifespan needs none."""
        self._task = asyncio.get_running_loop().create_task(self._run())
        await self._tell("lifespan.startup")

    async def stop(self) -> None:
        """Run shutdown; the caller sets the deadline."""
        if self._task is None or self._task.done():
            return
        try:
            await self._tell("lifespan.shutdown")
        except ApplicationError as error:
            print(error, file=sys.stderr)
        await asyncio.gather(self._task, return_exceptions=True)

    async def _tell(self, kind: str) -> None:
        await self._to_app.put({"type": kind})
        failed = await self._from_app.get()
        if failed is not None:
            raise ApplicationError(f"{kind}: {failed}")

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": VERSION, "state": self._state}
        try:
            await self._app(scope, self._to_app.get, self._send)
        except Exception as error:  # noqa: BLE001 - by the specification: whoever raises here has no lifespan
            del error
        # Whoever waits for a word of an application that went without one is let go.
        await self._from_app.put(None)

    async def _send(self, event: Event) -> None:
        kind = str(event.get("type"))
        await self._from_app.put(str(event.get("message") or "failed") if kind.endswith(".failed") else None)
