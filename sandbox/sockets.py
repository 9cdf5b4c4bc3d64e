"""Unix sockets under a directory descriptor, so that a deep folder never meets the 108 bytes of a socket path."""

from __future__ import annotations

import os
import socket
import struct
from typing import NamedTuple, Tuple


class Credentials(NamedTuple):
    pid: int
    uid: int
    gid: int


def path(directory: int, name: str) -> str:
    """A short path to `name` under an open directory."""
    return f"/proc/self/fd/{directory}/{name}"


def listen(directory: int, name: str, backlog: int = 64) -> socket.socket:
    """Listen as `name`, mode 0666, in place of whatever bore that name; it appears only once it accepts."""
    aside = f".{name}.{os.getpid()}"
    discard(directory, aside)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path(directory, aside))
        # The host may be another user; who may come near is settled by the folder above, which is private.
        os.chmod(aside, 0o666, dir_fd=directory)  # noqa: S103
        sock.listen(backlog)
        os.rename(aside, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def discard(directory: int, name: str) -> None:
    """Remove a socket that may not exist."""
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return


def pair() -> Tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


def credentials(sock: socket.socket) -> Credentials:
    """Who is at the other end, as the kernel says."""
    size = struct.calcsize("3i")
    return Credentials(*struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)))
