"""A project of its own on the real product: its files, its commands, its events, and what it leaves."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from orchestrator import folders
from tests.e2e import remains
from tests.e2e.client import Answer, Client, Load

Json = dict[str, Any]
COMMAND = [os.path.join(os.path.dirname(sys.executable), "sandbox")]
DEADLINE = 90.0
# For what should follow a save or a death.
SOON = 20.0
# Between two looks at something that no event announces.
LOOK = 0.05


class Sandbox:
    """One project folder. Use `model`, `spec`, `up`, then calls, saves and waits; `close` is the fixture's business.

    root: a short path, since unix sockets are below it; project: holds sandbox.yaml; models are folders in it.
    """

    def __init__(self, runtime: str, cache: Path) -> None:
        self.runtime = runtime
        self.root = Path(tempfile.mkdtemp(prefix="sb"))
        self.root.chmod(0o755)
        self.project = self.root / "p"
        self.project.mkdir()
        self.environ = {**os.environ, "XDG_STATE_HOME": str(self.root / "s"), "XDG_CACHE_HOME": str(cache)}
        self.environ.pop("COMPOSE_PROFILES", None)
        self.id = folders.sandbox_id(str(self.project))
        self.state = self.root / "s" / folders.APPLICATION / self.id
        self.events: list[Json] = []
        self._news = threading.Condition()
        self._follower: tuple[subprocess.Popen[str], threading.Thread] | None = None
        self._client: Client | None = None
        self._spec: Json = {}

    # Files

    def model(self, name: str, source: str, **files: str) -> Path:
        """Write a model directory named `name`; files: other files, with `__` for a dot and `___` for a slash."""
        folder = self.project / name
        folder.mkdir(exist_ok=True)
        (folder / "main.py").write_text(source)
        for key, text in files.items():
            path = folder / key.replace("___", "/").replace("__", ".")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return folder

    def data(self, name: str) -> Path:
        """A data folder that a model may write to, whatever its user is."""
        folder = self.project / name / "data"
        folder.mkdir()
        folder.chmod(0o777)
        return folder

    def spec(self, models: Json, **more: Any) -> None:
        """Write sandbox.yaml in one step. models: name → its entry, a mapping without `path`, or None."""
        entries = {name: {"path": name, **(entry or {})} for name, entry in models.items()}
        gateway = {"port": 0, **more.pop("gateway", {})}
        self._spec = {"name": "e2e", "runtime": self.runtime, "gateway": gateway, **more, "models": entries}
        self.save("sandbox.yaml", yaml.safe_dump(self._spec, sort_keys=False))

    def save(self, path: str, text: str, *, rename: bool = True) -> None:
        """Save a file of the project as an editor does: written aside and renamed over it, or written in place."""
        target = self.project / path
        if not rename:
            target.write_text(text)
            return
        aside = target.with_name(f".#{target.name}")
        aside.write_text(text)
        aside.replace(target)

    # Commands

    def cli(self, *args: str, code: int | None = 0, deadline: float = DEADLINE) -> subprocess.CompletedProcess[str]:
        """Run `sandbox ARGS` in the project; code: what it must exit with (None: anything)."""
        done = subprocess.run(
            [*COMMAND, *args],
            cwd=self.project,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=deadline,
            check=False,
        )
        if code is not None:
            shown = f"sandbox {' '.join(args)} exited with {done.returncode}:\n{done.stdout}\n{done.stderr}"
            assert done.returncode == code, shown
        return done

    def up(self, *args: str, code: int | None = 0, deadline: float = DEADLINE) -> subprocess.CompletedProcess[str]:
        """`sandbox up -d`, and follow its events from there on."""
        began = _now()
        done = self.cli("up", "-d", *args, code=code, deadline=deadline)
        if self._follower is None and (self.state / "keeper.json").exists():
            self.follow(began)
        return done

    def down(self, *args: str) -> subprocess.CompletedProcess[str]:
        """`sandbox down`; the follower of its events ends by itself."""
        done = self.cli("down", *args)
        self._ended()
        return done

    def rows(self) -> dict[str, Json]:
        """`sandbox ps --format json`, by name."""
        lines = self.cli("ps", "--format", "json").stdout.splitlines()
        return {row["name"]: row for row in map(json.loads, lines)}

    def row(self, model: str) -> Json:
        return self.rows()[model]

    def identity(self, row: Json) -> Json:
        """What tells whether a row's agents and workers still are the same processes."""
        found = {kind: row["pids"][kind] for kind in ("agent", "workers")}
        if self.runtime == "docker":
            found["containers"] = remains.containers(self.id, row["name"])
        return found

    @property
    def keeper(self) -> Json:
        """keeper.json: pids of keeper, control and gateways, the port."""
        found = folders.read_json(str(self.state / "keeper.json"))
        assert found is not None, "no sandbox runs"
        return found

    @property
    def port(self) -> int:
        return int(self.keeper["port"])

    def host_pid(self, row: Json, kind: str) -> int:
        """The pid that the host knows a row's only process of this kind by; `ps` shows those that a container sees."""
        (pid,) = row["pids"][kind]
        return self.host_process(row["name"], int(pid))

    def host_process(self, model: str, pid: int) -> int:
        """The pid that the host knows a process of a model by, given the one that it has in its replica."""
        if self.runtime == "process":
            return pid
        inside = os.readlink(f"/proc/{remains.container_pid(self.id, model)}/ns/pid")
        for found, _ in remains.processes(self.root, self.id):
            status = Path(f"/proc/{found}/status").read_text()
            names = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:]
            if names[-1] == str(pid) and os.readlink(f"/proc/{found}/ns/pid") == inside:
                return found
        raise LookupError(f"no process {pid} in the container of {model}")

    # Calls

    def request(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """A request to the gateway on the sandbox's own keep-alive connection."""
        if self._client is None:
            self._client = Client(self.port)
        return self._client.request(method, path, body, headers)

    @contextlib.contextmanager
    def another_client(self) -> Iterator[Client]:
        """A connection beside the one of `request`."""
        client = Client(self.port)
        try:
            yield client
        finally:
            client.close()

    def disconnect(self) -> None:
        """Close the connection of `request`; the next one opens another."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def call(self, model: str, body: Json | None = None) -> Answer:
        """POST /models/{model}/predict."""
        return self.request("POST", f"/models/{model}/predict", body or {})

    def info(self, model: str) -> Json:
        """The data of /models/{model}/info."""
        found: Json = self.request("GET", f"/models/{model}/info").body["data"]
        return found

    def load(self, model: str, payload: Callable[[str], Json] = lambda _: {}, **more: Any) -> Load:
        """A load on `model`: `with sandbox.load("hello").running() as load:`."""
        return Load(self.port, f"/models/{model}/predict", payload, **more)

    # Events

    def follow(self, since: str) -> None:
        """Collect events into `events` by the real command, until the sandbox ends."""
        follower = subprocess.Popen(
            [*COMMAND, "events", "-f", "--format", "json", "--since", since],
            cwd=self.project,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        thread = threading.Thread(target=self._read, args=(follower,), name="events")
        thread.start()
        self._follower = follower, thread

    def unfollow(self) -> None:
        """Stop following: where control dies too, the follower would be the command that restores supervision."""
        if self._follower is not None:
            self._follower[0].terminate()
            self._ended()

    def _read(self, follower: subprocess.Popen[str]) -> None:
        assert follower.stdout is not None
        with follower.stdout as lines:
            for line in lines:
                with self._news:
                    self.events.append({**json.loads(line), "seen": time.monotonic()})
                    self._news.notify_all()

    def _ended(self) -> None:
        if self._follower is not None:
            follower, thread = self._follower
            self._follower = None
            try:
                follower.wait(10)
            except subprocess.TimeoutExpired:
                follower.kill()
                raise
            finally:
                thread.join()
        self.disconnect()

    def mark(self) -> int:
        """The number of events so far: `since` for `event`."""
        with self._news:
            return len(self.events)

    def event(self, model: str | None, kind: str, since: int = 0, deadline: float = SOON, **data: Any) -> Json:
        """Wait for an event of this kind after `since` whose data holds `data`; it has "seen", when it reached us."""

        def found() -> Json | None:
            for each in self.events[since:]:
                fits = each["model"] == model and each["event"] == kind
                if fits and all(each["data"].get(key) == value for key, value in data.items()):
                    return each
            return None

        with self._news:
            self._news.wait_for(lambda: found() is not None, deadline)
            one = found()
        assert one is not None, f"no event {kind} of {model} with {data} after {since}:\n{self.story()}"
        return one

    def edit(self, path: str, text: str, *, rename: bool = True, deadline: float = SOON) -> Json:
        """Save a model's file and wait for the acknowledgement; its event. The model is the first folder of `path`."""
        since = self.mark()
        self.save(path, text, rename=rename)
        return self.event(path.split("/", maxsplit=1)[0], "reload", since, ok=True, deadline=deadline)

    def until(self, condition: Callable[[], Any], deadline: float = SOON) -> Any:
        """Wait until `condition` returns something true, looking again at each event and every moment; return that."""
        end = time.monotonic() + deadline
        while not (found := condition()):
            assert time.monotonic() < end, f"it never came true:\n{self.story()}"
            with self._news:
                self._news.wait(LOOK)
        return found

    def answered(self, load: Load, count: int = 30) -> None:
        """Wait until a load has had `count` more good answers."""

        def good() -> int:
            return sum(each.status == 200 for each in load.samples)

        wanted = good() + count
        self.until(lambda: good() >= wanted)

    def state_of(self, model: str, *states: str, deadline: float = SOON) -> Json:
        """Wait until `ps` shows `model` in one of `states`; its row."""

        def look() -> Json | None:
            found = self.row(model)
            return found if found["state"] in states else None

        found: Json = self.until(look, deadline)
        return found

    @contextlib.contextmanager
    def attached(self, *args: str) -> Iterator[Terminal]:
        """`sandbox up` in the foreground; what it prints is the terminal's lines. Left by Ctrl-C's signal."""
        began = _now()
        process = subprocess.Popen(
            [*COMMAND, "up", *args],
            cwd=self.project,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        terminal = Terminal(process)
        try:
            terminal.line("http://", deadline=DEADLINE)
            self.follow(began)
            yield terminal
        finally:
            terminal.interrupt()
            self._ended()

    # The end

    def remains(self, deadline: float = 5.0) -> list[str]:
        """What is left; a process that is about to exit may take a moment."""
        end = time.monotonic() + deadline
        while left := remains.find(self.root, self.id, docker=self.runtime == "docker"):
            if time.monotonic() > end:
                return left
            with self._news:
                self._news.wait(LOOK)
        return []

    def close(self) -> list[str]:
        """Take everything down; what the product failed to remove, which is then removed by force."""
        left = []
        try:
            done = self.cli("down", "-t", "0", code=None)
            if done.returncode != 0:
                left.append(f"down failed: {done.stdout}{done.stderr}")
            self._ended()
            left += self.remains()
        except (subprocess.TimeoutExpired, OSError) as error:
            left.append(f"{error}\n{self.story()}")
        finally:
            if left:
                remains.remove(self.root, self.id, docker=self.runtime == "docker")
            if self._follower is not None:
                self._follower[0].kill()
                self._ended()
            if self.runtime == "docker":
                remains.remove_images(self.id)
        return left

    def story(self) -> str:
        """What happened here, for the report of a failed test."""
        lines = [f"{each['time']} {each['model']} {each['event']}: {each['message']}" for each in self.events]
        for log in sorted((self.project / ".sandbox" / "logs").glob("*.log")):
            lines += [f"--- {log.name}", *log.read_text(errors="replace").splitlines()[-40:]]
        return "\n".join(lines)


class Terminal:
    """The lines that an attached `up` prints, as they come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._read, name="terminal")
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                with self._news:
                    self.lines.append(line.rstrip())
                    self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def line(self, *parts: str, deadline: float = SOON) -> str:
        """Wait for a line that holds all of `parts`."""

        def found() -> list[str]:
            return [line for line in self.lines if all(part in line for part in parts)]

        with self._news:
            self._news.wait_for(lambda: bool(found()) or not self._thread.is_alive(), deadline)
            shown = "\n".join(self.lines)
            assert found(), f"no line with {parts}:\n{shown}"
            return found()[0]

    def interrupt(self) -> int:
        """Ctrl-C, and its exit code once it has stopped everything."""
        if self.process.poll() is None:
            self.process.send_signal(2)
        try:
            return self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            self._thread.join()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
