"""The parent of everything in a replica: takes control's orders, keeps attempts and zygotes, survives control.

It never runs or compiles user code and never forks: what could hang, grow or crash does so in a child.
"""

from __future__ import annotations

import collections
import json
import os
import signal
import sys
from typing import Any, Callable, Deque, Dict, List, Optional

from sandbox import isolation, proc, sockets, wire
from sandbox.adoption import Adoption
from sandbox.attempt import Attempt
from sandbox.birth import Cradle
from sandbox.children import Children
from sandbox.loop import Loop
from sandbox.nursery import TRIAL_SECONDS, Nursery
from sandbox.orders import well_formed
from sandbox.output import Capture, Echo, LogFile
from sandbox.peer import Peer
from sandbox.replica import Replica
from sandbox.roster import Key, Roster
from sandbox.spares import Spares

SOCKET = "agent.sock"
# Who goes first when memory ends: a candidate, then what drains, the zygote, what answers, and this last.
OOM_SCORE = 0
_LOGGED_SECONDS = 0.05
# Phases that end in quick succession are told at once, and with what follows them: each message wakes control, which
# then takes the processor from the candidate that is being waited for.
_PHASES_SECONDS = 0.05
_UNDELIVERED = 100
_LAST_GRACE = 1.0


def main(text: str) -> None:
    """text: CONFIG_JSON of docs/internals.md."""
    try:
        config = json.loads(text)
        version = config["version"]
    except (ValueError, KeyError, TypeError):
        sys.exit("the agent's one argument is its configuration, JSON with a version")
    if version != wire.VERSION:
        sys.exit(f"this agent speaks version {wire.VERSION}, not {version}")
    not_enforced = isolation.enter(config["isolation"]) if config["isolation"] is not None else []
    if os.getpid() != 1:
        proc.become_subreaper()
    proc.set_oom_score(os.getpid(), OOM_SCORE)
    Agent(config, not_enforced).run()


class Agent:
    def __init__(self, config: Dict[str, Any], not_enforced: List[str]) -> None:
        self._config = config
        self._not_enforced = not_enforced
        self._loop = Loop()
        self._sockets = os.open(config["sockets"], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._log = LogFile(self._sockets)
        self._echo = Echo() if os.getpid() == 1 else None
        self._nursery = Nursery(
            self._loop,
            self._zygote_capture,
            self._zygote_changed,
            cpus=config["cpus"],
            trial_seconds=config.get("trial_seconds", TRIAL_SECONDS),
        )
        self._brood = Children(self._loop, self._nursery.look, lambda: not self._nursery.busy)
        self._spares = Spares(self._loop, self._brood, self._nursery, self._capture, config["cpus"])
        self._replica = Replica(
            cradle=Cradle(self._loop, self._brood, self._nursery, self._spares, self._capture),
            config=config,
            sockets=self._sockets,
            report=self._report_of_worker,
            oom_kills=self._oom_kills,
        )
        self._attempts: Dict[Key, Attempt] = {}
        self._active: Optional[Key] = None
        self._serving: Optional[Dict[str, Any]] = None
        self._roster = Roster(self._sockets)
        self._control: Optional[Peer] = None
        self._greeted = False
        self._undelivered: Deque[wire.Message] = collections.deque(maxlen=_UNDELIVERED)
        self._phases: List[wire.Message] = []
        self._logged = False
        self._logging = False
        self._stopping = False
        self._terminated = False

    def run(self) -> None:
        """Until told to stop."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.on_signal(number, self._terminate)
        # Children ignore it by their own choice; here a reader that leaves must not end everything.
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        self._nursery.open(self._brood)
        active, survivors = self._roster.read()
        self._active = active
        self._adoption = Adoption(self._loop, self._sockets, survivors, self._adopt, self._listen)
        self._loop.run()

    # Control

    def _listen(self) -> None:
        """Open to control: what survived an earlier agent is known now."""
        if self._active not in self._attempts:
            self._active = None
        self._listener = sockets.listen(self._sockets, SOCKET)
        self._loop.reading(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        if self._control is not None:
            self._control.close()
        self._greeted = False
        self._control = Peer(self._loop, sock)
        self._control.receive, self._control.closed = self._take, self._lost

    def _lost(self, _reason: str) -> None:
        self._phases.clear()
        self._control = None
        self._greeted = False

    def _take(self, message: wire.Message) -> None:
        orders: Dict[str, Callable[[wire.Message], None]] = {
            "hello": self._hello,
            "load": self._load,
            "kill": self._kill,
            "proceed": self._proceed,
            "activate": self._activate,
            "retire": self._retire,
            "configure": self._configure,
            "preload": self._preload,
            "learned": lambda order: self._nursery.hand(wire.names(order["imports"])),
            "usage": self._usage,
            "stop": lambda order: self._stop(order["drain"], order["grace"]),
        }
        order = orders.get(str(message.get("type")))
        if order is None:
            return
        if not well_formed(message):
            print(f"sandbox agent: a malformed {message['type']!r} message was dropped", file=sys.stderr)
            return
        order(message)

    def _report(self, message: wire.Message) -> None:
        """To control; how attempts ended is kept while there is none."""
        if self._control is not None and self._greeted:
            if message["type"] == "phase":
                self._phases.append(message)
                if len(self._phases) == 1:
                    self._loop.later(_PHASES_SECONDS, self._tell)
            else:
                self._tell(message)
        elif message["type"] in ("failed", "exited"):
            self._undelivered.append(message)

    def _tell(self, *messages: wire.Message) -> None:
        """To control, after the phases that wait to be told."""
        told, self._phases = [*self._phases, *messages], []
        if self._control is not None and told:
            self._control.send_line(b"".join(map(wire.encode, told)))

    def _hello(self, _order: wire.Message) -> None:
        self._greeted = True
        state = {
            "type": "state",
            "version": wire.VERSION,
            "pid": os.getpid(),
            "incarnation": self._config["incarnation"],
            "python": ".".join(map(str, sys.version_info[:3])),
            "workers": [attempt.view for attempt in self._attempts.values()],
            "active": self._active[0] if self._active else None,
            "zygote": self._nursery.state,
            "not_enforced": self._not_enforced,
        }
        try:
            wire.encode(state)
        except wire.WireError:
            # Many generations with large descriptions: control has seen them in `ready`.
            state["workers"] = [{**attempt.view, "info": {}} for attempt in self._attempts.values()]
        self._report(state)
        while self._undelivered:
            self._report(self._undelivered.popleft())

    # Orders

    def _load(self, order: wire.Message) -> None:
        key = (order["generation"], order["attempt"])
        known = self._attempts.get(key)
        if known is not None:
            # Control asks again after its own restart.
            if known.state == "ready":
                known.say_ready()
            return
        if self._stopping:
            return
        attempt = self._attempts[key] = Attempt(self._replica, order, self._changed, self._ended)
        attempt.start()

    def _kill(self, order: wire.Message) -> None:
        attempt = self._named(order)
        if attempt is not None:
            attempt.kill()

    def _proceed(self, order: wire.Message) -> None:
        attempt = self._named(order)
        if attempt is not None:
            attempt.proceed()

    def _activate(self, order: wire.Message) -> None:
        attempt = self._named(order)
        if attempt is None:
            return
        if attempt.state == "ready":
            if self._active in self._attempts:
                self._attempts[self._active].active = False
            self._active = attempt.key
            attempt.activate()
            self._record()
            self._report({"type": "activated", "generation": attempt.key[0]})

    def _retire(self, order: wire.Message) -> None:
        attempt = self._named(order)
        if attempt is not None:
            if attempt.key == self._active:
                self._active = None
            attempt.retire(order["drain"], order["grace"])

    def _configure(self, order: wire.Message) -> None:
        for attempt in self._attempts.values():
            attempt.configure(order["serving"], order.get("load_timeout"))
        self._report({"type": "configured"})

    def _preload(self, order: wire.Message) -> None:
        self._nursery.preload(wire.names(order["imports"]), order.get("environment") or {})

    def _usage(self, _order: wire.Message) -> None:
        workers = []
        for attempt in self._attempts.values():
            used = None if attempt.pid is None else proc.usage(attempt.pid)
            if used is not None:
                workers.append({"pid": attempt.pid, "generation": attempt.key[0], **used})
        memory = proc.memory(isolation.oom_file(self._config["isolation"]))
        self._report({"type": "usage", "workers": workers, "memory": memory})

    def _named(self, order: wire.Message) -> Optional[Attempt]:
        """The attempt that an order means. One that is gone is said to be: control must not wait for it."""
        key = (order["generation"], order["attempt"])
        if key not in self._attempts:
            gone = {"pid": None, "cause": "killed", "active": False, "cut": 0}
            self._report({"type": "exited", "generation": key[0], "attempt": key[1], **gone})
        return self._attempts.get(key)

    # Attempts

    def _report_of_worker(self, message: wire.Message) -> None:
        if self._terminated and message.get("cause") == "exit 0":
            message["cause"] = "stopped"  # by whoever ended this agent: it did not leave by itself
        self._report(message)

    def _changed(self, attempt: Attempt) -> None:
        self._record()
        if attempt.state == "ready":
            self._spares.refill()

    def _ended(self, attempt: Attempt) -> None:
        del self._attempts[attempt.key]
        if attempt.key == self._active:
            self._active = None
        self._record()
        self._spares.refill()
        if self._stopping and not self._attempts:
            self._leave()

    def _adopt(self, said: wire.Message, peer: Peer, deadline: float) -> None:
        """A worker that an earlier agent left has dialled in. said: its `adopt`."""
        key = (said["generation"], said["attempt"])
        if key in self._attempts or self._stopping:
            peer.close()
            return
        order = {"generation": key[0], "attempt": key[1], "content": said["content"], "tree": "", "load_timeout": 0.0}
        attempt = Attempt(self._replica, order, self._changed, self._ended)
        try:
            child = attempt.adopt(said, peer, deadline)
        except ProcessLookupError:
            peer.close()
            return
        self._attempts[key] = attempt
        if key == self._active:
            attempt.active = True
        child.adopted()
        self._record()

    def _record(self) -> None:
        workers = [
            {"generation": attempt.key[0], "attempt": attempt.key[1], "pid": attempt.pid, "deadline": attempt.deadline}
            for attempt in self._attempts.values()
            if attempt.pid is not None
        ]
        self._roster.write(self._active, workers)

    def _oom_kills(self) -> int:
        known = isolation.oom_kills(self._config["isolation"])
        return proc.oom_kills() if known is None else known

    # Zygotes and output

    def _zygote_changed(self, state: Dict[str, Any]) -> None:
        self._spares.look()
        self._report({"type": "zygote", **state})

    def _zygote_capture(self, fd: int, stream: str) -> Capture:
        return self._capture(fd, 0, stream)

    def _capture(self, fd: int, generation: int, stream: str) -> Capture:
        return Capture(fd, generation, stream, self._log, self._wrote)

    def _wrote(self, lines: List[str]) -> None:
        if self._echo is not None:
            self._echo.write(lines)
        self._logged = True
        if not self._logging:
            self._tell_logged()

    def _tell_logged(self) -> None:
        """Say so now, and then at most once in a while."""
        self._logging = self._logged
        if self._logged:
            self._logged = False
            self._report({"type": "logged"})
            self._loop.later(_LOGGED_SECONDS, self._tell_logged)

    # The end

    def _terminate(self) -> None:
        """SIGTERM or SIGINT: an orderly stop; a second one does not wait."""
        if self._stopping:
            for attempt in list(self._attempts.values()):
                attempt.kill()
        else:
            self._terminated = True
            self._stop(self._config["grace"], _LAST_GRACE)

    def _stop(self, drain: float, grace: float) -> None:
        self._stopping = True
        for attempt in list(self._attempts.values()):
            attempt.retire(drain, grace)
        if not self._attempts:
            self._leave()

    def _leave(self) -> None:
        """Nothing serves any more: end the zygotes and what else is left, then this."""
        self._nursery.close()
        self._spares.close()
        self._loop.later(_LAST_GRACE, self._loop.stop)
        self._nursery.when_gone(lambda: self._brood.settle(self._depart))

    def _depart(self) -> None:
        for name in (SOCKET, self._adoption.NAME):
            sockets.discard(self._sockets, name)
        self._roster.remove()
        self._loop.stop()
