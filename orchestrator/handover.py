"""How a new keeper comes by the listener of a sandbox whose keeper died. It knows the wire, and decides nothing more.

1. Control lives: it sends the listener, and who serves, over `handover.sock`.
2. Control is gone, a gateway lives: the listener is copied out of that gateway where the kernel permits it.
3. Otherwise what is left is ended, so that the address is free for a fresh start.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from orchestrator import folders
from orchestrator.supervised import LISTENER_DESCRIPTOR

if TYPE_CHECKING:
    from typing import Any

ANSWER_DEADLINE = 5.0
# How long a gateway that cannot be kept may finish what it has in flight.
GATEWAY_GRACE = 2.0
LONGEST_MESSAGE = 1 << 20
# x86-64, arm64 and every later architecture: pidfd_getfd(2), Linux 5.6.
PIDFD_GETFD = 438


class Taken:
    """The listener, and the records (`{"pid", "start_time"}`) of the processes that go on with it."""

    __slots__ = ("control", "gateways", "socket")

    def __init__(self, listener: socket.socket, control: Any = None, gateways: Sequence[Any] = ()) -> None:
        self.socket = _out_of_the_way(listener)
        self.control = control
        self.gateways = list(gateways)


def _out_of_the_way(listener: socket.socket) -> socket.socket:
    """The same socket above the descriptors that children expect: `dup2` onto itself would keep close-on-exec."""
    if listener.fileno() > LISTENER_DESCRIPTOR:
        return listener
    import fcntl  # noqa: PLC0415 - rarely needed

    moved = socket.socket(fileno=fcntl.fcntl(listener.fileno(), fcntl.F_DUPFD_CLOEXEC, LISTENER_DESCRIPTOR + 1))
    listener.close()
    return moved


def receive(state: str, record: Mapping[str, Any]) -> Taken | None:
    """Ask the living control; None where none answers. record: the dead keeper's keeper.json, or {}."""
    path = os.path.join(state, "handover.sock")
    data = b""
    descriptors: list[int] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_DEADLINE)
        try:
            with folders.socket_address(path) as address:
                connection.connect(address)
            while not data.endswith(b"\n") and len(data) < LONGEST_MESSAGE:
                more, received, _, _ = socket.recv_fds(connection, 65536, 1)
                descriptors += received
                data += more
                if not more:
                    break
            message = json.loads(data)
        except (OSError, ValueError):
            message = None
    if not isinstance(message, dict) or not descriptors:
        for descriptor in descriptors:
            os.close(descriptor)
        return None
    os.set_inheritable(descriptors[0], False)
    # What the dead keeper wrote down counts first: a gateway that is just dialling control again is in no list of its.
    gateways = [one for one in record.get("gateways") or () if folders.living(one)]
    known = {one["pid"] for one in gateways}
    gateways += [one for one in message.get("gateways") or () if isinstance(one, dict) and one.get("pid") not in known]
    return Taken(socket.socket(fileno=descriptors[0]), message.get("control"), gateways)


def salvage(record: Mapping[str, Any]) -> Taken | None:
    """What can be kept where control does not answer. record: the dead keeper's keeper.json."""
    _end(record.get("control"), 0.0)  # it hangs, if it lives at all; a new one adopts everything
    gateways = [one for one in record.get("gateways") or () if folders.living(one)]
    for gateway in gateways:
        listener = _copy_listener(gateway)
        if listener is not None:
            return Taken(listener, None, gateways)
    for gateway in gateways:
        _end(gateway, GATEWAY_GRACE)
    return None


def _copy_listener(record: Any) -> socket.socket | None:
    import ctypes  # noqa: PLC0415 - rarely needed, and a keeper is to be small

    with suppress(OSError):
        process = os.pidfd_open(record["pid"])
        try:
            descriptor = ctypes.CDLL(None, use_errno=True).syscall(PIDFD_GETFD, process, LISTENER_DESCRIPTOR, 0)
        finally:
            os.close(process)
        if descriptor >= 0:
            listener = socket.socket(fileno=descriptor)
            with suppress(OSError):
                if listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    return listener
            listener.close()
    return None


def _end(record: Any, grace: float) -> None:
    """End a process that is no child of ours: SIGTERM, grace, SIGKILL; at once where grace is 0."""
    with suppress(OSError, TypeError, KeyError):
        process = os.pidfd_open(record["pid"])
        try:
            if not folders.living(record):
                return
            poll = select.poll()
            poll.register(process, select.POLLIN)
            if grace:
                signal.pidfd_send_signal(process, signal.SIGTERM)
            if not grace or not poll.poll(grace * 1000):
                signal.pidfd_send_signal(process, signal.SIGKILL)
                poll.poll(ANSWER_DEADLINE * 1000)
        finally:
            os.close(process)
