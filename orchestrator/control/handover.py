"""Control's end of handover.sock: gives the listener, and who serves on it, to a keeper that takes over.

Only the owner of the state folder (0700) can reach the socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Callable, Sequence

from orchestrator import folders


class Handover:
    """Listens on `path`. gateways: gives the connected gateways' process ids by worker number."""

    def __init__(self, path: str, listener: int, gateways: Callable[[], Sequence[int]]) -> None:
        self._path = path
        self._listener = listener
        self._gateways = gateways
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Listen, in the running event loop."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with folders.socket_address(self._path) as address:
            self._socket.bind(address)
        os.chmod(self._path, 0o600)
        self._socket.listen(8)
        self._socket.setblocking(False)
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._accept)

    def _accept(self) -> None:
        if self._socket is None:
            return
        with contextlib.suppress(OSError):  # a keeper that left again
            connection, _ = self._socket.accept()
            with connection:
                connection.setblocking(False)  # the message is small: a fresh socket's buffer takes it whole
                socket.send_fds(connection, [self._message()], [self._listener])

    def _message(self) -> bytes:
        gateways = [
            {"pid": pid, "start_time": folders.start_time(pid), "worker": worker}
            for worker, pid in enumerate(self._gateways())
        ]
        own = {"pid": os.getpid(), "start_time": folders.start_time(os.getpid())}
        return json.dumps({"control": own, "gateways": gateways}).encode() + b"\n"

    def close(self) -> None:
        """Stop listening."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
