"""A name in a folder that a model may write is opened only where it is what it must be."""

from __future__ import annotations

import os
import socket

import pytest

from orchestrator import sockets
from orchestrator.sockets import SocketAbsent, SocketRefused


@pytest.fixture
def listener(state):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.path.join(state, "s"))
        sock.listen()
        yield sock


def test_a_socket_of_the_right_user_is_connected(state, listener):
    with sockets.connect(state, "s", uid=os.getuid()) as sock:
        assert not sock.getblocking()
        sock.send(b"hello")
        peer, _ = listener.accept()
        with peer:
            assert peer.recv(5) == b"hello"


def test_a_path_longer_than_an_address_is_connected(state):
    deep = os.path.join(state, *["d" * 50] * 4)
    os.makedirs(deep)
    folder = os.open(deep, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(f"/proc/self/fd/{folder}/s")
            sock.listen()
            sockets.connect(deep, "s", uid=os.getuid()).close()
    finally:
        os.close(folder)


def test_without_proc_it_still_connects_and_refuses_links(state, listener, monkeypatch):
    monkeypatch.setattr(sockets, "_PROC", "/nowhere")
    sockets.connect(state, "s", uid=os.getuid()).close()
    os.symlink("s", os.path.join(state, "link"))
    with pytest.raises(SocketRefused, match="not a socket"):
        sockets.connect(state, "link", uid=None)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd", "a\0b"])
def test_only_a_plain_name_is_opened(state, name):
    with pytest.raises(SocketRefused, match="no file name"):
        sockets.connect(state, name, uid=None)
    with pytest.raises(SocketRefused, match="no file name"):
        sockets.open_regular(state, name, uid=None)


def test_absent_names_folders_and_listeners_are_told_apart_from_refused_ones(state, listener):
    for folder, name in ((state, "none"), (os.path.join(state, "none"), "s")):
        with pytest.raises(SocketAbsent):
            sockets.connect(folder, name, uid=None)
    listener.close()
    with pytest.raises(SocketAbsent):
        sockets.connect(state, "s", uid=None)


def test_nothing_stays_open(state, listener):
    before = set(os.listdir("/proc/self/fd"))
    for uid in (os.getuid(), os.getuid() + 1):
        try:
            sockets.connect(state, "s", uid=uid).close()
        except SocketRefused:
            assert uid != os.getuid()
    for name in ("none", "s"):
        with pytest.raises((SocketRefused, FileNotFoundError)):
            sockets.open_regular(state, name, uid=None)
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_log_is_opened_only_where_it_is_a_regular_file_of_its_user_with_one_link(state):
    path = os.path.join(state, "log.jsonl")
    with pytest.raises(FileNotFoundError):
        sockets.open_regular(state, "log.jsonl", uid=None)
    with open(path, "wb") as file:
        file.write(b"line")
    descriptor = sockets.open_regular(state, "log.jsonl", uid=os.getuid())
    assert os.read(descriptor, 10) == b"line"
    os.close(descriptor)
    with pytest.raises(SocketRefused):
        sockets.open_regular(state, "log.jsonl", uid=os.getuid() + 1)
    os.symlink(path, os.path.join(state, "link"))
    os.mkfifo(os.path.join(state, "fifo"))
    os.mkdir(os.path.join(state, "folder"))
    os.link(path, os.path.join(state, "hard"))
    for name in ("link", "fifo", "folder", "hard", "log.jsonl"):
        with pytest.raises(SocketRefused):
            sockets.open_regular(state, name, uid=os.getuid())
