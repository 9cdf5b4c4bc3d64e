"""How control asks its keeper for another address, or another number of gateways. It knows the wire, and binds nothing.

`keeper.sock` in the state folder (0700): one JSON line `{"host", "port", "workers"}`, answered by `{"ok", "port"}` with
the listener as SCM_RIGHTS, or by `{"error": {…}}`, after which everything is as it was.
"""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from orchestrator import folders

if TYPE_CHECKING:
    from typing import Any

NAME = "keeper.sock"
# Longer than a keeper takes for anything; it must not wait for a control that hangs.
ASK_DEADLINE = 10.0
HEAR_DEADLINE = 1.0
LONGEST_MESSAGE = 1 << 16


class Desk:
    """The keeper's end."""

    def __init__(self, state: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path = os.path.join(state, NAME)
        with suppress(FileNotFoundError):
            os.unlink(path)
        with folders.socket_address(path) as address:
            self._socket.bind(address)
            os.chmod(address, 0o600)
        self._socket.listen(2)
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """Readable when somebody asks."""
        return self._socket.fileno()

    def hear(self) -> tuple[socket.socket, dict[str, Any]] | None:
        """What is asked, with the connection to answer on; None where whoever came left again, or spoke nonsense."""
        try:
            connection, _ = self._socket.accept()
        except OSError:
            return None
        connection.settimeout(HEAR_DEADLINE)
        try:
            message = json.loads(_line(connection))
            asked = {"host": str(message["host"]), "port": int(message["port"]), "workers": int(message["workers"])}
        except (OSError, ValueError, TypeError, KeyError):
            connection.close()
            return None
        return connection, asked


def answer(connection: socket.socket, message: dict[str, Any], listener: socket.socket | None = None) -> None:
    """Answer, with the listener where there is one, and hang up. Whoever asked may have gone."""
    data = json.dumps(message).encode() + b"\n"
    with connection, suppress(OSError):
        if listener is None:
            connection.sendall(data)
        else:
            socket.send_fds(connection, [data], [listener.fileno()])


def ask(state: str, host: str, port: int, workers: int) -> tuple[dict[str, Any], int | None]:
    """Control's end: the keeper's answer, and the listener's descriptor. Raises OSError where no keeper answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ASK_DEADLINE)
        with folders.socket_address(os.path.join(state, NAME)) as address:
            connection.connect(address)
        connection.sendall(json.dumps({"host": host, "port": port, "workers": workers}).encode() + b"\n")
        data, descriptors, _, _ = socket.recv_fds(connection, LONGEST_MESSAGE, 1)
        try:
            message = json.loads(data if data.endswith(b"\n") else data + _line(connection))
        except ValueError:
            for descriptor in descriptors:
                os.close(descriptor)
            raise OSError("the keeper gave no answer") from None
        return message, descriptors[0] if descriptors else None


def _line(connection: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\n") and len(data) < LONGEST_MESSAGE:
        more = connection.recv(4096)
        if not more:
            break
        data += more
    return data
