"""Opening what a replica owns (sockets, logs) without trusting it; it knows file descriptors, nothing of protocols.

The folder of a replica's sockets is writable by the model, which may put anything there: a symbolic link to the Docker
engine's socket, a device, a pipe, a hard link. So a name is opened under a descriptor of its folder without following
links, looked at, and only then connected to or read; the peer's user is checked by the kernel's word.
"""

from __future__ import annotations

import os
import socket
import stat
import struct

# What Linux has and others lack. O_PATH opens the name itself, with no effect on what it names.
_O_PATH: int = getattr(os, "O_PATH", 0)
_PROC = "/proc/self/fd"
_SO_PEERCRED: int = getattr(socket, "SO_PEERCRED", 0)
_LOCAL_PEERCRED = 0x001  # macOS: getsockopt(SOL_LOCAL = 0), struct xucred {u32 version, u32 uid, …}


class SocketRefused(Exception):  # noqa: N818 (a refusal of ours, as a sentence)
    """A name that is not what it must be, or nobody listens there. Nothing was sent."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class SocketAbsent(SocketRefused):
    """There is no such name, or nobody listens on it (any more)."""


class SocketBusy(SocketRefused):
    """The listener's backlog is full (EAGAIN): it lives; try again a little later."""


def connect(directory: str, name: str, *, uid: int | None) -> socket.socket:
    """A connected, non-blocking stream socket to the unix socket `name` in `directory`; never waits.

    uid: the user that the listener must have; None leaves it unchecked.
    Raises SocketBusy, SocketAbsent or SocketRefused.
    """
    folder = _folder(directory)
    try:
        peer = _connect_under(folder, directory, name)
    finally:
        os.close(folder)
    owner = _peer_uid(peer)
    if owner is None or uid not in (None, owner):
        peer.close()
        raise SocketRefused(f"{name}: its listener runs as user {owner}, not {uid}")
    return peer


def open_regular(directory: str, name: str, *, uid: int | None) -> int:
    """A read-only descriptor of the regular file `name` in `directory`: one link, owned by `uid` (None: anyone).

    Raises FileNotFoundError where there is none, SocketRefused where it is something else.
    """
    folder = _folder(directory)
    try:
        descriptor = os.open(
            _plain(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY, dir_fd=folder
        )
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SocketRefused(f"{name}: {error.strerror}") from error
    finally:
        os.close(folder)
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and uid in (None, found.st_uid):
        return descriptor
    os.close(descriptor)
    raise SocketRefused(f"{name}: not a regular file of user {uid} with one link")


def _folder(directory: str) -> int:
    try:
        return os.open(directory, _O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        kind = SocketAbsent if isinstance(error, FileNotFoundError) else SocketRefused
        raise kind(f"{directory}: {error.strerror}") from error


def _plain(name: str) -> str:
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise SocketRefused(f"{name!r} is no file name")
    return name


def _connect_under(folder: int, directory: str, name: str) -> socket.socket:
    """Connect to `name` in the opened folder, through /proc where there is one, so that what was looked at is what is
    connected to, however long the path is.
    """
    try:
        if _O_PATH and os.path.isdir(_PROC):
            entry = os.open(_plain(name), _O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            try:
                _require_socket(os.fstat(entry).st_mode, name)
                return _dial(f"{_PROC}/{entry}")
            finally:
                os.close(entry)
        # Elsewhere between the look and the connect a link could appear; the peer's user is still checked.
        _require_socket(os.stat(_plain(name), dir_fd=folder, follow_symlinks=False).st_mode, name)
        return _dial(os.path.join(directory, name))
    except BlockingIOError as error:
        raise SocketBusy(f"{name}: its backlog is full") from error
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise SocketAbsent(f"{name}: nobody listens ({error.strerror})") from error
    except OSError as error:
        raise SocketRefused(f"{name}: {error.strerror}") from error


def _require_socket(mode: int, name: str) -> None:
    if not stat.S_ISSOCK(mode):
        raise SocketRefused(f"{name}: not a socket")


def _dial(path: str) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        peer.setblocking(False)
        peer.connect(path)
    except BaseException:
        peer.close()
        raise
    return peer


def _peer_uid(peer: socket.socket) -> int | None:
    """The user that listened on the other end, by the kernel's word; None where it cannot be known."""
    try:
        if _SO_PEERCRED:
            _, owner, _ = struct.unpack("iII", peer.getsockopt(socket.SOL_SOCKET, _SO_PEERCRED, struct.calcsize("iII")))
        else:
            _, owner = struct.unpack_from("II", peer.getsockopt(0, _LOCAL_PEERCRED, 76))
    except OSError:
        return None
    return int(owner)
