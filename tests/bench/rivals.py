"""The proxies that `gateway.py` measures: how each is started before the same upstreams, and ended. It measures nothing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

CONFIGURATIONS = Path(__file__).parent / "proxies"
STARTS_WITHIN = 15.0
LARGE = 1024 * 1024
KEY = "sk-bench-0123456789abcdef"
MODELS = ("tiny", "large", "events")

# What each row needs besides Python; all of them are packages of Debian.
PROGRAMS = {
    "nginx": "nginx",
    "nginx, policies": "nginx",
    "haproxy": "haproxy",
    "caddy": "caddy",
    "upstream": "nginx",
    "load": "wrk",
}


def missing() -> list[str]:
    """Programs that are not installed."""
    return sorted({program for program in PROGRAMS.values() if shutil.which(program) is None})


class World:
    """A folder with the upstreams' sockets, and every process that was started. Ends them all at the end."""

    def __init__(self, workers: int = 1) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="gwb"))
        self.folder.chmod(0o755)
        self.workers = workers
        self.direct: dict[str, int] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with self._stack:
            self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            (self.folder / "large.json").write_bytes(b'"' + b"x" * (LARGE - 2) + b'"')
            self.direct = {model: free_port() for model in MODELS}
            text = self._written("upstream.conf", self.direct["tiny"], self.direct["large"])
            self._program(["nginx", "-p", str(self.folder), "-c", text], self.direct["tiny"])
            events = [sys.executable, "-m", "tests.bench.proxies.events", str(self.folder / "events.sock")]
            self._program([*events, str(self.direct["events"])], self.direct["events"])
            for name in MODELS:
                (self.folder / f"{name}.sock").chmod(0o666)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, row: str) -> int:
        """Start this row's proxy; its port."""
        port = free_port()
        match row:
            case "nginx":
                words = ["nginx", "-p", str(self.folder), "-c", self._written("nginx.conf", port)]
            case "nginx, policies":
                words = ["nginx", "-p", str(self.folder), "-c", self._written("nginx-policies.conf", port)]
            case "haproxy":
                words = ["haproxy", "-q", "-f", self._written("haproxy.cfg", port)]
            case "caddy":
                words = ["caddy", "run", "--adapter", "caddyfile", "--config", self._written("Caddyfile", port)]
            case "aiohttp":
                words = [sys.executable, "-m", "tests.bench.proxies.plain", str(self.folder), str(port)]
            case "us":
                return self._ours({})
            case "us, policies":
                return self._ours({"rate_limit": [1_000_000_000, 1.0]})
            case _:
                raise ValueError(row)
        self._program(words, port)
        return port

    def _written(self, name: str, port: int, second: int = 0) -> str:
        """A configuration with this run's folder and ports, where it is."""
        text = (CONFIGURATIONS / name).read_text()
        for mark, value in (("FOLDER", self.folder), ("PORT2", second), ("PORT", port), ("WORKERS", self.workers)):
            text = text.replace(f"@{mark}@", str(value))
        path = self.folder / name
        path.write_text(text)
        return str(path)

    def _program(self, words: list[str], port: int, **more: object) -> None:
        environ = {**os.environ, "GOMAXPROCS": str(self.workers), "HOME": str(self.folder)}
        log = self._stack.enter_context((self.folder / f"{port}.log").open("wb"))
        process = subprocess.Popen(words, env=environ, stdout=log, stderr=log)
        self._stack.callback(_end, process)
        deadline = time.monotonic() + STARTS_WITHIN
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{words[0]} does not serve:\n{(self.folder / f'{port}.log').read_text()}")
            time.sleep(0.02)

    def _ours(self, policy: Mapping[str, object]) -> int:
        """Gateway processes on one inherited listener, told their routes by a control of the benchmark's own."""
        state = self.folder / f"state-{time.monotonic_ns()}"
        state.mkdir(mode=0o700)
        listener = self._stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=4096))
        control = self._stack.enter_context(socket.socket(socket.AF_UNIX))
        control.bind(str(state / "traffic.sock"))
        control.listen()
        log = self._stack.enter_context((state / "gateway.log").open("wb"))
        words = [sys.executable, "-m", "orchestrator.gateway.process"]
        os.set_inheritable(listener.fileno(), True)
        for number in range(self.workers):
            environ = {
                **os.environ,
                "SANDBOX_LISTENER_FD": str(listener.fileno()),
                "SANDBOX_STATE": str(state),
                "SANDBOX_GATEWAY_WORKER": str(number),
            }
            process = subprocess.Popen(words, env=environ, pass_fds=[listener.fileno()], stdout=log, stderr=log)
            self._stack.callback(_end, process)
            self._tell(control, policy)
        return int(listener.getsockname()[1])

    def _tell(self, control: socket.socket, policy: Mapping[str, object]) -> None:
        """Send one gateway the models, and read on for as long as it lives."""
        control.settimeout(STARTS_WITHIN)
        peer, _ = control.accept()
        stream = peer.makefile("rwb")
        stream.readline()
        owner = os.stat(self.folder / "tiny.sock").st_uid
        models = {
            name: {
                "state": "running",
                "generation": 1,
                "content": "0" * 64,
                "upstreams": [{"id": name, "directory": str(self.folder), "socket": f"{name}.sock", "uid": owner}],
            }
            for name in MODELS
        }
        sync = {"type": "sync", "seq": 1, "policy": policy, "models": models}
        stream.write(json.dumps(sync).encode() + b"\n")
        stream.flush()
        while json.loads(stream.readline()).get("type") != "applied":
            pass
        threading.Thread(target=_drain, args=(stream,), daemon=True).start()
        self._stack.callback(peer.close)


def _drain(stream: Iterator[bytes]) -> None:
    """A gateway sends its figures each second."""
    with contextlib.suppress(OSError, ValueError):
        for _ in stream:
            pass


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
