"""The gateway's TCP listener: made once, inherited by all; and who holds a port that is taken. It accepts nothing."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress

BACKLOG = 4096
# /proc/net/tcp: a socket in state 0A listens.
LISTENING = "0A"


class PortError(Exception):
    """The listener cannot be had. reference and hint are those of a SandboxError."""

    def __init__(self, reference: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.reference = reference
        self.message = message
        self.hint = hint


def listen(host: str, port: int) -> socket.socket:
    """A non-blocking listening socket; port 0 takes any. Raises PortError.

    SO_REUSEADDR lets a restart pass the sockets in TIME_WAIT. Never SO_REUSEPORT: with it two sandboxes would share a
    port in silence.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise PortError(
            "bad-value", f"gateway.host: {host}: {error.strerror}", "write an address of this machine"
        ) from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _refusal(host, port, error) from error
    listener.setblocking(False)
    return listener


def _refusal(host: str, port: int, error: OSError) -> PortError:
    if error.errno == errno.EADDRINUSE:
        owner = port_owner(port)
        who = f"by {owner}" if owner else "by another program"
        return PortError(
            "port-in-use",
            f"port {port} is taken {who}",
            "stop it, or choose another with SANDBOX_PORT=… or gateway.port in sandbox.yaml",
        )
    if error.errno == errno.EACCES:
        return PortError(
            "bad-value",
            f"gateway.port: {port}: {error.strerror}",
            "ports below 1024 need privileges: choose a higher one",
        )
    return PortError("bad-value", f"gateway.host: {host}: {error.strerror}", "write an address of this machine")


def port_owner(port: int) -> str:
    """The process that listens on `port`, as "nginx (pid 812)"; "" where it cannot be seen (another user's)."""
    inodes = {f"socket:[{inode}]" for inode in _listening(port)}
    if not inodes:
        return ""
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            for descriptor in os.listdir(f"/proc/{entry}/fd"):
                # A descriptor may close between the listing and the look.
                with suppress(OSError):
                    if os.readlink(f"/proc/{entry}/fd/{descriptor}") in inodes:
                        with open(f"/proc/{entry}/comm", encoding="utf-8", errors="replace") as file:
                            return f"{file.read().strip()} (pid {entry})"
    return ""


def _listening(port: int) -> set[str]:
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError), open(table, encoding="ascii") as file:
            for line in list(file)[1:]:
                fields = line.split()
                if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    found.add(fields[9])
    return found
