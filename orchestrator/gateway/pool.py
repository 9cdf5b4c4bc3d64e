"""Connections to workers, kept between exchanges: per worker the idle ones, closed at once when it leaves its route."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial

from orchestrator import sockets
from orchestrator.gateway.upstream import Connection, Head, Header, request_head
from orchestrator.ports import Upstream

# Idle connections kept per worker; more are closed when their exchange ends.
MAX_IDLE = 256


class Pool:
    """All connections of one gateway. A worker never closes an idle one first, so what is kept can be used.

    serves: whether a worker still has a route; a connection to one that has not is closed when its exchange ends.
    """

    def __init__(self, serves: Callable[[Upstream], bool]) -> None:
        self._serves = serves
        self._idle: dict[Upstream, list[Connection]] = {}
        self._open: set[Connection] = set()

    async def acquire(self, upstream: Upstream) -> Connection:
        """An idle connection, or a new one. Raises sockets.SocketRefused (Busy, Absent)."""
        idle = self._idle.get(upstream)
        while idle:
            connection = idle.pop()
            if connection.reusable:
                return connection
        connection = await dial(upstream, partial(self._forget, upstream))
        self._open.add(connection)
        return connection

    def release(self, upstream: Upstream, connection: Connection) -> None:
        """The exchange is over: keep the connection where it is in order and its worker still has a route."""
        if not connection.finish():
            return
        idle = self._idle.setdefault(upstream, []) if self._serves(upstream) else None
        if idle is None or len(idle) >= MAX_IDLE:
            connection.abort()
        else:
            idle.append(connection)

    def retire(self, upstreams: Iterable[Upstream]) -> None:
        """These workers left their routes: close what is idle now."""
        for upstream in upstreams:
            for connection in self._idle.pop(upstream, ()):
                connection.abort()

    def close(self) -> None:
        """Close everything."""
        for connection in list(self._open):
            connection.abort()

    def _forget(self, upstream: Upstream, connection: Connection) -> None:
        self._open.discard(connection)
        idle = self._idle.get(upstream)
        if idle and connection in idle:
            idle.remove(connection)


async def dial(upstream: Upstream, lost: Callable[[Connection], None]) -> Connection:
    """A new connection; `lost` is told when it ends. Raises sockets.SocketRefused (Busy, Absent)."""
    sock = sockets.connect(upstream.directory, upstream.socket, uid=upstream.uid)
    try:
        _, connection = await asyncio.get_running_loop().create_connection(partial(Connection, sock, lost), sock=sock)
    except OSError as error:
        sock.close()
        raise sockets.SocketRefused(f"{upstream.socket}: {error.strerror}") from error
    except BaseException:
        sock.close()
        raise
    return connection


async def fetch(upstream: Upstream, path: str, headers: Iterable[Header], deadline: float) -> tuple[Head, bytes]:
    """One GET on a connection of its own; the whole answer within `deadline` seconds.

    Raises sockets.SocketRefused, upstream.NeverStarted, upstream.Died, TimeoutError.
    """
    async with asyncio.timeout(deadline):
        connection = await dial(upstream, lambda _: None)
        try:
            connection.send(request_head("GET", path, [*headers, ("Connection", "close")]))
            head = await connection.head()
            chunks = []
            while chunk := await connection.read():
                chunks.append(chunk)
            return head, b"".join(chunks)
        finally:
            connection.abort()
