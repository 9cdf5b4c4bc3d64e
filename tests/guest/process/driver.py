"""A real agent driven over its own socket, as control would."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PATIENCE = 20.0
GOOD = "import sandbox\n\n\ndef predict(x: float) -> float:\n    return x * 2\n"


def eventually(found: Callable[[], Any], what: str) -> Any:
    """What `found` returns once that is true."""
    deadline = time.monotonic() + PATIENCE
    pause = threading.Event()
    while not (value := found()):
        assert time.monotonic() < deadline, f"never: {what}"
        pause.wait(0.01)
    return value


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


class Control:
    """One connection to agent.sock; messages are kept until somebody waits for them."""

    def __init__(self, path: Path) -> None:
        self._sock = eventually(lambda: _connect(path), f"a listener on {path}")
        self._sock.settimeout(PATIENCE)
        self._file = self._sock.makefile("rb")
        self.seen: list[dict[str, Any]] = []
        self.state = self.ask({"type": "hello", "version": 1}, "state")

    def send(self, message: dict[str, Any]) -> None:
        self._sock.sendall(json.dumps(message).encode() + b"\n")

    def ask(self, message: dict[str, Any], answer: str, **fields: Any) -> dict[str, Any]:
        self.send(message)
        return self.wait(answer, **fields)

    def wait(self, *kinds: str, **fields: Any) -> dict[str, Any]:
        """The first message of one of `kinds` with these fields, taken out of what was seen."""
        while True:
            for message in self.seen:
                if message["type"] in kinds and all(message.get(name) == value for name, value in fields.items()):
                    self.seen.remove(message)
                    return message
            line = self._file.readline()
            assert line, f"the agent closed before {kinds} {fields}; seen: {self.seen}"
            self.seen.append(json.loads(line))

    def closed(self) -> bool:
        """Read to the end of the connection."""
        while line := self._file.readline():
            self.seen.append(json.loads(line))
        return True

    def close(self) -> None:
        self._file.close()
        self._sock.close()


def _connect(path: Path) -> socket.socket | None:
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.connect(str(path))
    except OSError:
        sock.close()
        return None
    return sock


class Replica:
    """An agent in folders of its own, and what a control would do with it."""

    def __init__(
        self,
        folder: Path,
        python: str,
        guest_folder: str,
        environment: dict[str, str] | None = None,
        **config: Any,
    ) -> None:
        self._config = config
        self.python = python
        self.sockets = folder / "s"
        self.generations = folder / "generations"
        self.source = folder / "model"
        for path in (self.sockets, self.generations, self.source):
            path.mkdir(parents=True, exist_ok=True)
        self._guest = guest_folder
        self._environment = {"PATH": os.defpath, "HOME": str(folder), "LANG": "C.UTF-8", **(environment or {})}
        self._controls: list[Control] = []
        self.agents: list[subprocess.Popen[bytes]] = []
        self.workers: set[int] = set()
        self.data: str | None = None
        self.control = self.start()

    def restart(self, data: str) -> None:
        """Another agent, with a data folder."""
        self.control.close()
        self.agent.terminate()
        self.agent.wait(10)
        self.data = data
        self.start()

    def start(self) -> Control:
        """Start an agent and dial it."""
        config = {
            "version": 1,
            "sandbox": "0123456789ab",
            "model": "hello",
            "incarnation": "ab12cd34",
            "index": 0,
            "sockets": str(self.sockets),
            "generations": str(self.generations),
            "data": self.data,
            "source": str(self.source),
            "cpus": None,
            "isolation": None,
            "grace": 1.0,
            **self._config,
        }
        arguments = [self.python, "-I", "-B", self._guest, json.dumps(config)]
        agent = subprocess.Popen(arguments, env=self._environment, stdin=subprocess.DEVNULL, start_new_session=True)
        self.agents.append(agent)
        self.control = self.dial()
        return self.control

    def dial(self) -> Control:
        control = Control(self.sockets / "agent.sock")
        self._controls.append(control)
        return control

    @property
    def agent(self) -> subprocess.Popen[bytes]:
        return self.agents[-1]

    def tree(self, generation: int, **files: str) -> str:
        """A snapshot; `main="…"` is main.py."""
        tree = self.generations / f"tree-{generation}"
        tree.mkdir()
        for name, text in files.items():
            (tree / f"{name}.py").write_text(text)
        return tree.name

    def load(self, generation: int, main: str = GOOD, **fields: Any) -> None:
        """Order `load` of a generation with this main.py, checked first."""
        files = fields.pop("files", {})
        tree = self.tree(generation, main=main, **files)
        for name, text in fields.pop("texts", {}).items():
            (self.generations / tree / name).write_text(text)
        if self.data is not None:
            (self.generations / tree / "data").symlink_to(self.data)
        order = {
            "type": "load",
            "generation": generation,
            "attempt": 1,
            "content": f"{generation:064x}",
            "tree": tree,
            "config": {},
            "entry": None,
            "serving": {"concurrency": 4, "queue_size": 10, "queue_timeout": 5.0, "max_batch": 10, "debug": False},
            "load_timeout": 15.0,
            "warmup": False,
            "check": ["main.py", *(f"{name}.py" for name in files)],
            "mode": "fork",
        }
        self.control.send({**order, **fields})

    def ready(self, generation: int, main: str = GOOD, **fields: Any) -> dict[str, Any]:
        """Load and expect it to become ready."""
        self.load(generation, main, **fields)
        message = self.control.wait("ready", "failed", generation=generation)
        assert message["type"] == "ready", message
        self.workers.add(message["pid"])
        return message

    def failed(self, generation: int, main: str = GOOD, **fields: Any) -> dict[str, Any]:
        """Load and expect it to fail; the error."""
        self.load(generation, main, **fields)
        message = self.control.wait("ready", "failed", generation=generation)
        assert message["type"] == "failed", message
        return dict(message["error"], phase=message["phase"])

    def activate(self, generation: int) -> None:
        self.control.ask({"type": "activate", "generation": generation, "attempt": 1}, "activated")

    def request(self, socket_name: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """One call to a worker: status and JSON."""
        with self.open(socket_name, method, path, body) as file:
            status = int(file.readline().split()[1])
            while file.readline().strip():
                pass
            text = file.read()
        return status, json.loads(text)

    @contextlib.contextmanager
    def open(self, socket_name: str, method: str, path: str, body: Any = None, accept: str = "") -> Iterator[Any]:
        """A call's raw answer, to be read as it comes."""
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(data)}\r\n"
        head += "Content-Type: application/json\r\n" + (f"Accept: {accept}\r\n" if accept else "")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(str(self.sockets / socket_name))
            sock.sendall(head.encode() + b"\r\n" + data)
            with sock.makefile("rb") as file:
                yield file

    def predict(self, socket_name: str, **inputs: Any) -> Any:
        status, body = self.request(socket_name, "POST", "/predict", inputs)
        assert status == 200, body
        return body["data"]["prediction"]

    def log(self) -> list[dict[str, Any]]:
        """Every line of the log, oldest file first."""
        files = [self.sockets / name for name in ("log.jsonl.2", "log.jsonl.1", "log.jsonl")]
        return [json.loads(line) for file in files if file.exists() for line in file.read_text().splitlines()]

    def zygote(self) -> dict[str, Any]:
        return self.control.ask({"type": "hello", "version": 1}, "state")["zygote"]

    def end(self) -> None:
        """Leave nothing behind, whatever the test did."""
        for control in self._controls:
            control.close()
        for agent in self.agents:
            if agent.poll() is None:
                agent.terminate()
                try:
                    agent.wait(10)
                except subprocess.TimeoutExpired:
                    agent.kill()
                    agent.wait()
        for pid in self.workers:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
