"""The worker's listening socket and its connections: accept, count, drain without losing one. It knows no request."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
import sys
from typing import Dict, Optional, Set

from sandbox import sockets
from sandbox.connection import App, Connection

_BACKLOG = 4096
_BATCH = 64


class Listener:
    """Listens as `name` in the folder of sockets. `drain` ends it once nobody is connected or about to be."""

    def __init__(self, loop: asyncio.AbstractEventLoop, folder: str, name: str, app: App) -> None:
        self._loop = loop
        self._name = name
        self._app = app
        self._directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self._socket: Optional[socket.socket] = sockets.listen(self._directory, name, _BACKLOG)
        # Each connection's socket is kept so that a forked child of the model can close it.
        self._connections: Dict[Connection, socket.socket] = {}
        self._coming: Set[asyncio.Task[None]] = set()
        self._draining = False
        self._cutting = False
        self.drained: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._socket.fileno(), self._accept)

    def drain(self) -> None:
        """From now on, end as soon as no connection is left. Who is in the backlog is still served."""
        self._draining = True
        self._end_if_unused()

    def cut(self) -> int:
        """Close everything now. Returns how many requests were cut; 0 where that was done before."""
        cut = 0 if self._cutting else sum(connection.busy for connection in self._connections)
        self._cutting = True
        self._close()
        for connection in list(self._connections):
            connection.cut()
        return cut

    def forget_in_child(self) -> None:
        """In a forked child: close what belongs to the parent, or its clients would wait for ever."""
        for open_socket in (self._socket, *self._connections.values()):
            if open_socket is not None:
                open_socket.close()

    def _accept(self) -> None:
        listening = self._socket
        for _ in range(_BATCH):
            if listening is None:
                return
            try:
                accepted, _address = listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                    self._rest(listening, error)
                    return
                continue  # this client is already gone
            accepted.setblocking(False)
            connection = Connection(self._app, self._lost)
            self._connections[connection] = accepted
            task = self._loop.create_task(self._connect(connection, accepted))
            self._coming.add(task)
            task.add_done_callback(self._coming.discard)

    async def _connect(self, connection: Connection, accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: connection, accepted)
        except OSError:
            self._lost(connection)

    def _rest(self, listening: socket.socket, error: OSError) -> None:
        """Out of descriptors: they wait in the backlog, for a second at a time."""
        print(f"cannot accept a connection: {error.strerror}", file=sys.stderr)
        self._loop.remove_reader(listening.fileno())
        self._loop.call_later(1.0, self._resume)

    def _resume(self) -> None:
        if self._socket is not None:
            self._loop.add_reader(self._socket.fileno(), self._accept)

    def _lost(self, connection: Connection) -> None:
        self._connections.pop(connection, None)
        if self._draining:
            self._end_if_unused()

    def _end_if_unused(self) -> None:
        if self._connections or self._socket is None:
            return
        # With the name gone nobody new can come; whoever connected before is in the backlog, and is taken in.
        sockets.discard(self._directory, self._name)
        if select.select([self._socket], [], [], 0)[0]:
            self._accept()
        if not self._connections:
            self._close()

    def _close(self) -> None:
        if self._socket is None:
            return
        self._loop.remove_reader(self._socket.fileno())
        sockets.discard(self._directory, self._name)
        self._socket.close()
        self._socket = None
        if not self.drained.done():
            self.drained.set_result(None)
