"""One attempt to have a generation serve, from its check to its end: what happens when, and what is said of it.

checking → forking → loading → probing → ready → draining, and from each of them to the end, which is said exactly
once: `failed` before it was ready, `exited` afterwards or when control had it killed. A `load` with `pause` has
it wait, paused, before that phase until control says `proceed`.
"""

from __future__ import annotations

import signal
import time
from typing import Any, Callable, Dict, List, Optional

from sandbox import blame, check, jobs, proc, sockets, wire
from sandbox.check import Check
from sandbox.child import Child
from sandbox.delivery import Delivery, Expecting
from sandbox.health import Probe
from sandbox.loop import Timer
from sandbox.peak import Peak
from sandbox.peer import Peer
from sandbox.replica import Replica
from sandbox.roster import Key
from sandbox.scout import Scout
from sandbox.steps import preloads

OOM_SCORES = {"active": 200, "draining": 700}
# A worker that said `failed` or `drained` is about to leave by itself.
_LEAVE_SECONDS = 1.0
# Time for the stacks of a hanging worker to be written.
_ASK_SECONDS = 0.1
_MAX_PHASES = 16
_UNREADY = ("loading", "paused")
_FOLLOWING = {"preload": "import", "import": "load", "load": "warmup"}


class Attempt:
    """`order` is the `load` message. `changed` is called after each step, `ended` once, after the last report."""

    def __init__(
        self,
        replica: Replica,
        order: Dict[str, Any],
        changed: Callable[["Attempt"], None],
        ended: Callable[["Attempt"], None],
    ) -> None:
        self.key: Key = (order["generation"], order["attempt"])
        self.order = order
        self.state = "loading"
        self.socket = f"g{self.key[0]}-{self.key[1]}.sock"
        self.phases: Dict[str, float] = {}
        self.info: Dict[str, Any] = {}
        self._imports: List[str] = []
        self.active = False
        self.child: Optional[Child] = None
        # Until when it may load, or finish what it holds (monotonic).
        self.deadline = 0.0
        self._replica = replica
        self._tree = jobs.tree(order, replica.config)
        self._changed = changed
        self._ended = ended
        self._phase = "check"
        self._check: Optional[Check] = None
        self._scout = Scout(replica.cradle)
        expecting = Expecting(
            self._phase_begins, self._phase_done, self._hear, self._worker_ended, self._born, self._not_born
        )
        self._delivery = Delivery(replica, order, self.socket, expecting)
        self._stacks = ""
        self._error: Optional[Dict[str, Any]] = None
        self._killed = False
        self._over = False
        self._cut = 0
        self._oom_kills = 0
        self._probe: Optional[Probe] = None
        self._peak: Optional[Peak] = None
        self._timers: List[Timer] = []

    # Orders of control

    def start(self) -> None:
        self.deadline = time.monotonic() + check.SECONDS + self.order["load_timeout"]
        # Only a check has the checker's short deadline; whatever loads has load_timeout.
        self._phase, begin = ("check", self._look) if self.order["check"] else ("fork", self._bear)
        # A bare zygote on its way is quicker than an interpreter of one's own.
        if self._replica.cradle.nursery.soon:
            self._replica.cradle.nursery.when_settled(begin)
        else:
            begin()

    def adopt(self, said: Dict[str, Any], peer: Peer, deadline: float) -> Child:
        """Go on with a worker that another agent left. said: its `adopt`. Raises ProcessLookupError."""
        child = Child(
            self._replica.cradle.loop,
            self._replica.cradle.brood,
            said["pid"],
            peer,
            captures=[],
            trace_fd=None,
            receive=self._hear,
            ended=self._worker_ended,
        )
        self.child = child
        self.state, self.phases, self.info = said["state"], wire.mapping(said["phases"]), wire.mapping(said.get("info"))
        self.deadline = deadline
        child.send({"type": "adopted"})
        if self.state == "loading":
            self._phase = _following(self.phases)
            self._later(max(0.0, deadline - time.monotonic()), self._time_out)
        elif self.state == "draining":
            self._expire(max(0.0, deadline - time.monotonic()), self._replica.config["grace"])
        return child

    def proceed(self) -> None:
        """Go on after a pause: there is room now."""
        if self.state == "paused":
            self.state = "loading"
            self._send({"type": "proceed"})
            self._load_from_now()
            self._changed(self)

    def activate(self) -> None:
        self.active = True
        self._send({"type": "active"})
        self._set_oom_score("active")

    def configure(self, serving: Dict[str, Any], load_timeout: Optional[float]) -> None:
        """New limits. Those of a load that is under way count from when it began, so that it may have ended by now."""
        self.order["serving"] = serving
        self._send({"type": "configure", "serving": serving})
        known = self.order["load_timeout"]  # 0: another agent began it
        if load_timeout is not None and known and self.state == "loading" and self._phase not in ("check", "fork"):
            self.deadline += load_timeout - known
            self.order["load_timeout"] = load_timeout
            self._time_out()

    def kill(self) -> None:
        """End it now; `exited` says "killed"."""
        self._killed = True
        if self._check is not None:
            self._check.kill()
        self._kill_child()
        if self._delivery.abandon():
            self._end("killed")

    def retire(self, drain: float, grace: float) -> None:
        """Let it finish what it holds for `drain` seconds, cut the rest, and kill what is left `grace` later.

        One that drains already goes on with that: of two deadlines the earlier one holds.
        """
        if self.state in _UNREADY:
            self.kill()
            return
        deadline = time.monotonic() + drain
        self._expire(drain, grace)
        if self.state == "ready":
            self.state, self.active, self.deadline = "draining", False, deadline
            self._send({"type": "drain"})
            self._set_oom_score("draining")
        self.deadline = min(self.deadline, deadline)
        self._changed(self)

    def _expire(self, drain: float, grace: float) -> None:
        self._later(drain, self._cut_off)
        self._later(drain + grace, self._kill_child)

    def _cut_off(self) -> None:
        """The drain deadline: it counts what it cuts. The signal is for what the model itself may have to end."""
        self._send({"type": "cut"})
        self._kill_child(signal.SIGTERM)

    @property
    def view(self) -> Dict[str, Any]:
        """Its entry in `state`."""
        return {
            "generation": self.key[0],
            "attempt": self.key[1],
            "content": self.order["content"],
            "state": self.state,
            "pid": self.pid,
            "socket": self.socket,
            "info": self.info,
            "phases": self.phases,
            "peak": self.peak,
        }

    @property
    def peak(self) -> Dict[str, int]:
        """Bytes of its own that it took at most, by phase; {} where nobody looked."""
        return {} if self._peak is None else self._peak.bytes

    @property
    def pid(self) -> Optional[int]:
        return None if self.child is None else self.child.pid

    # Check and birth

    def _look(self) -> None:
        if self._killed:
            self._end("killed")
        else:
            job = jobs.check(self.order, self._replica.config)
            self._check = Check(self._replica.cradle, job, self.key[0], self._scout, self._checked)

    def _checked(self, error: Optional[Dict[str, Any]], seconds: float, cause: str) -> None:
        self._check = None
        if error is not None or self._killed:
            self._error = error
            self._end(cause)
            return
        self._phase_done("check", seconds)
        self._phase = "fork"
        self._bear()

    def _bear(self) -> None:
        self._oom_kills = self._replica.oom_kills()
        self._delivery.begin()

    def _bear_again(self, stale: wire.Message) -> None:
        """What the zygote preloaded does not fit these files."""
        self._stop_timers()
        self._scout.tell()
        self.child, self._phase = None, "fork"
        self.phases.pop("fork", None)
        self._oom_kills = self._replica.oom_kills()
        self._delivery.again(stale)

    def _not_born(self, cause: str, error: Optional[Dict[str, Any]], stacks: str) -> None:
        self._stacks = stacks
        self._error = error or self._error
        self._end(cause)

    def _born(self, child: Child, how: str, seconds: float) -> None:
        self.child = child
        if self._killed:
            self._kill_child()
            return
        self._phase_done(how, seconds)
        self._phase = "preload" if how == "spawn" and preloads(self._tree) else "import"
        self._peak = Peak(self._replica.cradle.loop, child.pid, forked=how == "fork")
        self._load_from_now()
        self._changed(self)
        if not self.order["check"]:
            self._scout.look(jobs.check(self.order, self._replica.config), self.key[0])

    # Loading

    def _load_from_now(self) -> None:
        self.deadline = time.monotonic() + self.order["load_timeout"]
        self._later(self.order["load_timeout"], self._time_out)
        if self._peak is not None:
            self._peak.watch(self._phase)

    def _hear(self, message: wire.Message) -> None:
        kind = message.get("type")
        if kind == "phase" and self.state == "loading" and len(self.phases) < _MAX_PHASES:
            phase = str(message.get("phase"))
            self._phase_done(phase, wire.number(message.get("seconds")))
            self._phase = _FOLLOWING.get(phase, self._phase)
            self._scout.tell()
            if self._peak is not None:
                self._peak.watch(phase)  # once more, where it may have been more than ever
                self._peak.watch(self._phase)
        elif kind == "stale" and self.state == "loading":
            self._bear_again(message)
        elif kind == "paused" and self.state == "loading" and self.order.get("pause"):
            self._stop_timers()
            self.state, self._phase = "paused", str(self.order["pause"])
            self._changed(self)
            self._report("paused")
        elif kind == "listening" and self.state == "loading" and self._probe is None:
            self._listening = message
            self._probe = Probe(self._replica.cradle.loop, self._replica.sockets, self.socket, self._probed)
        elif kind == "failed" and self.state == "loading" and self._error is None:
            self._phase = str(message.get("phase"))
            self._error = blame.reported(message.get("error"))
            self._later(_LEAVE_SECONDS, self._kill_child)
        elif kind == "drained":
            self._cut = int(wire.number(message.get("cut")))
            self._later(_LEAVE_SECONDS, self._kill_child)

    def _probed(self, wrong: str) -> None:
        if wrong:
            self._error = self._error or blame.unhealthy(wrong)
            self._kill_child()
            return
        self._stop_timers()
        self.state = "ready"
        said = self._listening
        self.info = wire.mapping(said.get("info"))
        self.phases.update({name: wire.number(spent) for name, spent in wire.mapping(said.get("phases")).items()})
        if self.child is not None:
            self.child.forget_stacks()
        self._imports = wire.names(said.get("imports"))
        self._changed(self)
        self.say_ready()
        if self.order.get("mode") == "fork" or self._delivery.why:
            spent = sum(self.phases.get(phase, 0.0) for phase in ("import", "load", "warmup"))
            self._replica.cradle.nursery.learn(self._imports, self._delivery.job, spent)

    def say_ready(self) -> None:
        ready = {
            "socket": self.socket,
            "pid": self.pid,
            "phases": self.phases,
            "imports": self._imports,
            "spawned": self._delivery.why,
        }
        self._report("ready", info=self.info, peak=self.peak, **ready)

    def _time_out(self) -> None:
        """load_timeout: ask where it hangs, then kill."""
        if self.child is None or self.state != "loading" or self._error is not None:
            return
        left = self.deadline - time.monotonic()
        if left > 0:  # it was given more time, or less
            self._later(left, self._time_out)
            return
        self._error = blame.timeout(self._phase, self.order["load_timeout"])
        self.child.ask_place()
        self._later(_ASK_SECONDS, self._kill_child)

    # The end

    def _kill_child(self, number: int = signal.SIGKILL) -> None:
        if self.child is not None:
            self.child.kill(number)

    def _worker_ended(self, cause: str) -> None:
        if cause == "signal 9" and not self._killed and self._replica.oom_kills() > self._oom_kills:
            cause = "out of memory"
        self._end(cause)

    def _end(self, cause: str) -> None:
        if self._over:
            return
        self._over = True
        self._stop_timers()
        self._scout.tell()
        if self._probe is not None:
            self._probe.cancel()
        sockets.discard(self._replica.sockets, self.socket)
        if self.state in _UNREADY and not self._killed:
            stacks = self._stacks if self.child is None else self.child.stacks
            roots = [self._replica.config["source"], self._tree]
            error = blame.place(self._error or blame.death(cause, self._phase), stacks, roots)
            self._report("failed", phase=self._phase, error=error)
            self._replica.cradle.nursery.stumbled()
        else:
            self._report(
                "exited", pid=self.pid, cause="killed" if self._killed else cause, active=self.active, cut=self._cut
            )
        self._ended(self)

    # Small things

    def _phase_begins(self, phase: str) -> None:
        self._phase = phase

    def _phase_done(self, phase: str, seconds: float) -> None:
        spent = round(seconds, 6)
        self.phases[phase] = spent
        self._report("phase", phase=phase, seconds=spent)

    def _report(self, kind: str, **fields: Any) -> None:
        self._replica.report({"type": kind, "generation": self.key[0], "attempt": self.key[1], **fields})

    def _send(self, message: wire.Message) -> None:
        if self.child is not None:
            self.child.send(message)

    def _set_oom_score(self, role: str) -> None:
        if self.pid is not None:
            proc.set_oom_score(self.pid, OOM_SCORES[role])

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        self._timers.append(self._replica.cradle.loop.later(seconds, call))

    def _stop_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        if self._peak is not None:
            self._peak.rest()


def _following(phases: Dict[str, float]) -> str:
    """The phase that a worker is in, from those that it has done."""
    return next((_FOLLOWING[phase] for phase in ("load", "import") if phase in phases), "import")
