"""A model's own ASGI application under /app: requests to its scopes, its events to answers (ASGI 3.0, spec 2.4).

A WebSocket scope is not offered. It knows nothing of what the application does.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, Dict, List, Optional, Tuple
from urllib.parse import unquote

from sandbox.connection import BODILESS
from sandbox.lifespan import VERSION, ApplicationError, Event
from sandbox.protocols.turn import Turn
from sandbox.service import Service

PREFIX = "/app"
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# What describes one hop, or is ours to say.
_NOT_THEIRS = (b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"content-length", b"x-request-id")


async def call(service: Service, turn: Turn) -> None:
    """Let the application answer one request."""
    lease = await turn.admit(service)
    exchange = _Exchange(turn)
    try:
        await service.app(_scope(service, turn), exchange.receive, exchange.send)
        exchange.finish()
    except BaseException as error:
        refusal = turn.refusal(service, error)
        if not exchange.answered:
            raise refusal from error
        turn.connection.abort()  # its head is gone already: a cut, never a clean end
    finally:
        lease.drop()


class _Exchange:
    """One request as the application receives it, and its answer as it sends it."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._connection = turn.connection
        self._head: Optional[Tuple[int, str]] = None
        self._given = False
        self._ended = False
        self.answered = False

    async def receive(self) -> Event:
        if not self._given:
            self._given = True
            return {"type": "http.request", "body": self._turn.request.body, "more_body": False}
        # There is nothing more to receive but the client's leaving, and that cancels this call.
        await asyncio.get_running_loop().create_future()
        return {"type": "http.disconnect"}

    async def send(self, event: Event) -> None:
        kind = event.get("type")
        if kind == "http.response.start" and self._head is None:
            self._head = (int(event["status"]), _lines(event.get("headers") or ()) + self._turn.headers)
        elif kind == "http.response.body" and self._head is not None and not self._ended:
            await self._body(bytes(event.get("body") or b""), bool(event.get("more_body", False)))
        else:
            raise ApplicationError(f"the application sent {kind!r:.60} out of turn")

    def finish(self) -> None:
        """The application returned. Raises ApplicationError where it owes the rest of its answer."""
        if not self._ended:
            raise ApplicationError("the application returned before its answer was whole")

    async def _body(self, data: bytes, more: bool) -> None:
        status, lines = self._head or (500, "")
        if not self.answered and (not more or status in BODILESS):
            self.answered = self._ended = True
            self._connection.respond(status, lines, data)
            return
        if not self.answered:
            self.answered = True
            self._connection.begin(status, lines)
        if data:
            self._connection.write(data)
            await self._connection.writable()
        if not more:
            self._ended = True
            self._connection.end()


def _scope(service: Service, turn: Turn) -> Dict[str, Any]:
    request = turn.request
    path, _, query = request.path.partition("?")
    root = f"/models/{service.name}{PREFIX}"
    raw = f"/models/{service.name}{path}"
    return {
        "type": "http",
        "asgi": VERSION,
        "http_version": "1.1",
        "method": request.method,
        "scheme": request.headers.get("x-forwarded-proto", "http"),
        "path": unquote(raw),
        "raw_path": raw.encode("ascii"),
        "query_string": query.encode("ascii"),
        "root_path": root,
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in request.headers.items()],
        "client": (request.headers.get("x-forwarded-for", "").split(",")[-1].strip() or "unix", 0),
        "server": None,
        "state": dict(service.app_state),
    }


def _lines(headers: Any) -> str:
    """Header lines. Raises ApplicationError for what would not stay a line."""
    lines: List[str] = []
    for name, value in headers:
        if not _NAME.fullmatch(name) or b"\r" in value or b"\n" in value:
            raise ApplicationError(f"the application sent a header that is none: {name!r:.60}")
        if name.lower() not in _NOT_THEIRS:
            lines.append(f"{name.decode('latin-1')}: {value.decode('latin-1')}\r\n")
    return "".join(lines)
