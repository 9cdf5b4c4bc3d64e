"""Connections to workers, kept between exchanges: per worker the idle ones, closed at once when it leaves its route."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial

from orchestrator import sockets
from orchestrator.gateway.answers import Head
from orchestrator.gateway.awaited import Awaited
from orchestrator.gateway.routes import Replica
from orchestrator.gateway.upstream import Connection, Header, request_head
from orchestrator.ports import Upstream

# Idle connections kept per worker; more are closed when their exchange ends.
MAX_IDLE = 1024


class Pool:
    """All connections of one gateway. A worker never closes an idle one first, so what is kept can be used.

    A connection to a worker that no longer has a route is closed when its exchange ends.
    """

    def __init__(self) -> None:
        self._open: set[Connection] = set()

    def idle(self, replica: Replica) -> Connection | None:
        """A connection that waits for an exchange; None where a new one is needed."""
        idle = replica.idle
        while idle:
            connection = idle.pop()
            if connection.reusable:
                return connection
        return None

    async def acquire(self, replica: Replica) -> Connection:
        """An idle connection, or a new one. Raises sockets.SocketRefused (Busy, Absent)."""
        connection = self.idle(replica)
        if connection is None:
            connection = await dial(replica.upstream, partial(self._forget, replica))
            self._open.add(connection)
        return connection

    def release(self, replica: Replica, connection: Connection) -> None:
        """The exchange is over: keep the connection where it is in order and its worker still has a route."""
        if not connection.finish():
            return
        if replica.serving and len(replica.idle) < MAX_IDLE:
            replica.idle.append(connection)
        else:
            connection.abort()

    def retire(self, replicas: Iterable[Replica]) -> None:
        """These workers left their routes: close what is idle now."""
        for replica in replicas:
            idle, replica.idle = replica.idle, []
            for connection in idle:
                connection.abort()

    def close(self) -> None:
        """Close everything."""
        for connection in list(self._open):
            connection.abort()

    def _forget(self, replica: Replica, connection: Connection) -> None:
        self._open.discard(connection)
        if connection in replica.idle:
            replica.idle.remove(connection)


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
            exchange = Awaited()
            exchange.connection = connection
            connection.send(request_head("GET", path, [*headers, ("Connection", "close")]), exchange)
            head = await exchange.head()
            chunks = []
            while chunk := await exchange.read():
                chunks.append(chunk)
            return head, b"".join(chunks)
        finally:
            connection.abort()
