"""The keeper: owns the listening socket, starts control and the gateways, and starts either again when it dies.

It knows no model, no spec and no message of control's API; it must be too small to fail. Standard library only, and
little of that. Deaths arrive by pidfd, so that those which another keeper started are watched like our own.

It is no subreaper: what control or an agent leaves behind is adopted by its next owner over a socket, and belongs to
init meanwhile; a keeper that had to reap strangers would hide their death from whoever waits for it.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING

from orchestrator import folders, handover, relisten
from orchestrator.listener import PortError, listen
from orchestrator.supervised import Supervised

if TYPE_CHECKING:
    from typing import Any

CONTROL = (sys.executable, "-P", "-m", "orchestrator.app", "control")
GATEWAY = (sys.executable, "-P", "-m", "orchestrator.gateway.process")
# `down` drains requests first: what a model may take at most, and then some. After it control is killed.
STOP_DEADLINE = 90.0
# Gateways have nothing left to do once control is done.
GATEWAY_DEADLINE = 5.0
# Those that are replaced while the sandbox runs finish what they have; they give up themselves somewhat before.
LEAVE_DEADLINE = 35.0
# How often the logs of control and gateways are looked at, to keep them bounded.
TRIM_INTERVAL = 60.0


class Keeper:
    """One sandbox's processes. `run` returns the exit code once control has finished a `down`."""

    def __init__(self, state: str, orders: dict[str, Any], control: Sequence[str], gateway: Sequence[str]) -> None:
        self._state = state
        self._orders = orders
        self._id = os.path.basename(state)
        self._stopping: float | None = None
        self._recorded = False
        self._listener = _take_over(state) or handover.Taken(listen(orders["host"], int(orders["port"])))
        self.port: int = self._listener.socket.getsockname()[1]
        self._control = Supervised("control", control, self._environment(), self._log("control"))
        self._gateway = gateway
        self._gateways = [self._new_gateway(number) for number in range(max(1, int(orders.get("workers") or 1)))]
        self._leaving: list[Supervised] = []  # gateways that finish what they have
        self._leave_by = 0.0
        self._desk = relisten.Desk(state)
        self._adopt()

    def _new_gateway(self, number: int) -> Supervised:
        environment = self._environment(SANDBOX_GATEWAY_WORKER=str(number))
        return Supervised("gateway", self._gateway, environment, self._log("gateway"))

    def _environment(self, **more: str) -> dict[str, str]:
        project = self._orders["project"]
        return {**os.environ, "SANDBOX_STATE": self._state, "SANDBOX_PROJECT": project} | {
            "SANDBOX_ORDERS": json.dumps(self._orders),
            **more,
        }

    def _log(self, name: str) -> str:
        return os.path.join(self._orders["project"], ".sandbox", "logs", f"{name}.log")

    def _adopt(self) -> None:
        self._control.adopt(self._listener.control)
        for gateway, record in zip(self._gateways, self._listener.gateways, strict=False):
            gateway.adopt(record)

    @property
    def _all(self) -> list[Supervised]:
        return [self._control, *self._gateways]

    def start(self) -> None:
        """Start whatever does not run yet, and say so in keeper.json and the registry."""
        due = [one for one in self._all if one.due(time.monotonic())]
        for one in due:
            one.start(self._listener.socket.fileno())
        if due or not self._recorded:
            self._record()
            self._recorded = True

    def _record(self) -> None:
        host, directory = self._orders["host"], self._orders["project"]
        me = {"pid": os.getpid(), "start_time": folders.start_time(os.getpid())}
        common = {"version": 1, "boot_id": folders.boot_id(), "host": host, "port": self.port}
        children = {"control": self._control.record(), "gateways": [one.record() for one in self._gateways]}
        folders.write_json(
            os.path.join(self._state, "keeper.json"), {**me, **common, **children, "orders": self._orders}
        )
        name = self._orders.get("name") or os.path.basename(directory)
        registry = folders.private(folders.registry_folder())
        entry = {"id": self._id, "name": name, "directory": directory, "keeper": me, **common}
        folders.write_json(os.path.join(registry, f"{self._id}.json"), entry)

    def run(self, signals: int) -> int:
        """Watch until control ends for good. signals: a descriptor that becomes readable when we are to stop."""
        trim_at = time.monotonic() + TRIM_INTERVAL
        while True:
            poll = select.poll()
            poll.register(signals, select.POLLIN)
            poll.register(self._desk, select.POLLIN)
            for one in [*self._all, *self._leaving]:
                if one.descriptor is not None:
                    poll.register(one.descriptor, select.POLLIN)
            now = time.monotonic()
            dues = [one.due_at for one in self._all if one.descriptor is None and self._stopping is None]
            leave_by = [self._leave_by] if self._leaving else []
            wake = min([trim_at, *dues, *leave_by, *([self._stopping] if self._stopping else [])])
            ready = {descriptor for descriptor, _ in poll.poll(max(0.0, wake - now) * 1000 + 1)}
            if signals in ready:
                self._stop(os.read(signals, 64))
            if self._desk.fileno() in ready and self._stopping is None:
                self._hear()
            self._let_go(ready)
            if any(self._ended(one) for one in self._all if one.descriptor in ready):
                break
            now = time.monotonic()
            if self._stopping is not None and (now >= self._stopping or self._control.descriptor is None):
                break
            if self._stopping is None:
                self.start()
            if now >= trim_at:
                trim_at = now + TRIM_INTERVAL
                for one in self._all:
                    one.trim_log()
        self._end()
        return 0

    def _hear(self) -> None:
        """Control asks for another address or number of gateways. What is refused changes nothing."""
        heard = self._desk.hear()
        if heard is None:
            return
        connection, asked = heard
        before = (self._orders["host"], self.port)
        if (asked["host"], asked["port"]) != before:
            try:
                listener = listen(asked["host"], asked["port"])
            except PortError as error:
                relisten.answer(connection, _error(error.reference, error.message, error.hint))
                return
            old, self._listener.socket = self._listener.socket, handover.Taken(listener).socket
            self.port = self._listener.socket.getsockname()[1]
            self._leaving += self._gateways
            self._gateways = []
        else:
            old = None
            self._leaving += self._gateways[asked["workers"] :]
            del self._gateways[asked["workers"] :]
        self._orders |= asked
        self._gateways += [self._new_gateway(number) for number in range(len(self._gateways), asked["workers"])]
        self._control.order(self._environment())
        for number, one in enumerate(self._gateways):
            one.order(self._environment(SANDBOX_GATEWAY_WORKER=str(number)))
        self._recorded = False
        self.start()  # the new ones serve before the old ones stop accepting
        relisten.answer(connection, {"ok": True, "port": self.port}, self._listener.socket)
        if old is not None:
            old.close()
        for one in self._leaving:
            one.signal(signal.SIGTERM)
        self._leave_by = time.monotonic() + LEAVE_DEADLINE

    def _let_go(self, ready: set[int]) -> None:
        """Forget gateways that have finished what they had; none is started again."""
        for one in self._leaving:
            if one.descriptor in ready:
                one.reap(time.monotonic())
        self._leaving = [one for one in self._leaving if one.descriptor is not None]
        if self._leaving and time.monotonic() >= self._leave_by:
            for one in self._leaving:
                one.signal(signal.SIGKILL)

    def _ended(self, one: Supervised) -> bool:
        """Note a death; True where it is control's, after a finished `down`."""
        code = one.reap(time.monotonic())
        if one is not self._control:
            if self._stopping is None:
                _say(f"gateway ended ({_cause(code)}), starting it again")
            return False
        # A control that another keeper started leaves us no exit code; it removes its socket as its last act.
        finished = code == 0 or (code is None and not os.path.exists(os.path.join(self._state, "control.sock")))
        if not finished:
            _say(f"control ended ({_cause(code)})" + ("" if self._stopping else ", starting it again"))
        return finished

    def _stop(self, signals: bytes) -> None:
        """The first signal asks control for a `down`, a second ends it at once."""
        again = self._stopping is not None or len(signals) > 1
        if self._stopping is None:
            self._stopping = time.monotonic() + STOP_DEADLINE
        self._control.signal(signal.SIGKILL if again else signal.SIGTERM)

    def _end(self) -> None:
        self._control.end(0.0)
        gateways = [*self._gateways, *self._leaving]
        for gateway in gateways:
            gateway.signal(signal.SIGTERM)
        deadline = time.monotonic() + GATEWAY_DEADLINE
        for gateway in gateways:
            gateway.end(max(0.0, deadline - time.monotonic()))
        names = (
            "control.sock",
            "traffic.sock",
            "handover.sock",
            relisten.NAME,
            "keeper.json",
            "keeper.lock",
            folders.REFUSAL,
            folders.DECISIONS,
        )
        paths = [os.path.join(self._state, name) for name in names]
        for path in [*paths, os.path.join(folders.registry_folder(), f"{self._id}.json")]:
            with suppress(FileNotFoundError):
                os.unlink(path)
        for folder in (os.path.join(self._state, "r"), self._state):
            with suppress(OSError):  # not empty: what is left there is not ours to judge
                os.rmdir(folder)


def _take_over(state: str) -> handover.Taken | None:
    """The listener of a sandbox whose keeper died, with its processes; None where nothing of it is left."""
    record = folders.read_json(os.path.join(state, "keeper.json")) or {}
    if record.get("boot_id") != folders.boot_id():
        record = {}
    return handover.receive(state, record) or handover.salvage(record)


def lock(path: str) -> int | None:
    """The descriptor that holds the keeper's lock, or None where another keeper holds it.

    A keeper removes the file while it holds the lock, so the file we locked must still be the one at `path`.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        with suppress(FileNotFoundError):
            if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        os.close(descriptor)


def keep(
    state: str,
    orders: dict[str, Any],
    answer: Callable[[dict[str, Any]], None],
    control: Sequence[str] = CONTROL,
    gateway: Sequence[str] = GATEWAY,
) -> int:
    """Keep one sandbox until it is taken down; return the exit code. `answer` is called exactly once."""
    folders.private(state)
    held = lock(os.path.join(state, "keeper.lock"))
    if held is None:
        answer(
            _error("locked", "another command is at work in this project", "wait until it has ended, then try again")
        )
        return 1
    receive, send = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(send, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        folders.project_folder(os.path.join(orders["project"], ".sandbox"))
        keeper = Keeper(state, orders, control, gateway)
        keeper.start()
    except PortError as error:
        _forget(state)  # before the command that started us can look
        answer(_error(error.reference, _with_sandbox(error, int(orders["port"])), error.hint))
        return 1
    except OSError as error:
        answer(_error("start", f"the keeper cannot start: {error}"))
        return 1
    answer({"ok": True, "pid": os.getpid(), "port": keeper.port})
    return keeper.run(receive)


def _forget(state: str) -> None:
    """Leave nothing behind of a sandbox that never was."""
    with suppress(OSError):
        os.unlink(os.path.join(state, "keeper.lock"))
        os.rmdir(state)


def _with_sandbox(error: PortError, port: int) -> str:
    """The message, naming the sandbox that has the port where it is one of ours."""
    registry = folders.registry_folder()
    for name in os.listdir(registry) if os.path.isdir(registry) else ():
        entry = folders.read_json(os.path.join(registry, name)) or {}
        if error.reference == "port-in-use" and entry.get("port") == port and folders.living(entry.get("keeper")):
            return f"port {port} is taken by the sandbox in {entry.get('directory')}"
    return error.message


def _error(reference: str, message: str, hint: str = "") -> dict[str, Any]:
    return {"error": {"reference": reference, "message": message, "hint": hint, "at": ""}}


def _cause(code: int | None) -> str:
    if code is None:
        return "cause unknown: another keeper started it"
    return f"signal {-code}" if code < 0 else f"exit {code}"


def _say(text: str) -> None:
    """One line for keeper.log. A full disk loses it: a keeper that ended for it would leave its children alone."""
    with suppress(OSError):
        sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}\n")
        sys.stderr.flush()


def main(argv: Sequence[str], control: Sequence[str] = CONTROL, gateway: Sequence[str] = GATEWAY) -> int:
    """`python -m orchestrator.keeper STATE_FOLDER`, orders on standard input, one JSON line on standard output."""
    (state,) = argv
    orders = json.load(sys.stdin)
    os.chdir(orders["project"])
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)

    def answer(line: dict[str, Any]) -> None:
        _write(sys.stdout, line)
        os.dup2(nowhere, 1)  # whoever started us reads to the end

    return keep(state, orders, answer, control, gateway)


def _write(stream: IO[str], line: dict[str, Any]) -> None:
    with suppress(BrokenPipeError):
        stream.write(json.dumps(line) + "\n")
        stream.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
