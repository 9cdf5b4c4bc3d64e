"""One zygote process as the agent sees it: started, probed, given orders, reaped. Which zygote is used is not its."""

from __future__ import annotations

import itertools
import json
import os
import socket
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from sandbox import blas, children, output, proc, start, trace
from sandbox.loop import Loop, Timer
from sandbox.steering import CUDA_CHECK
from sandbox.steps import Step

OOM_SCORE = 500
_PROBE_SECONDS = 300.0
_ORDER_SECONDS = 10.0
# Asking NVML instead of CUDA leaves the driver untouched, so that a fork stays safe.
_CUDA_CHECK = {CUDA_CHECK: "1"}

# pid and "", or None and why there is none.
Forked = Callable[[Optional[int], str], None]
# What a zygote is to set and to import, in order.
Wish = Tuple[Step, ...]
MakeCapture = Callable[[int, str], output.Capture]


class Birth(NamedTuple):
    """Of a zygote that is forked from another: `job` says what it does first."""

    parent: Forker
    job: start.Job


class Forker:
    """`changed` is called when `state` is: starting → ready or unsafe → dead; a forked one may also be failed or unfit.

    error, module: what a failed or an unfit one says.
    """

    def __init__(
        self,
        loop: Loop,
        brood: children.Children,
        wish: Wish,
        capture: MakeCapture,
        changed: Callable[[Forker], None],
        *,
        cpus: Optional[float] = None,
        birth: Optional[Birth] = None,
    ) -> None:
        self.wish = wish
        self._cpus = cpus
        self.state = "starting"
        self.reason = ""
        # How often it said that it had imported; once more after each `bring`.
        self.probes = 0
        self.skipped: Dict[str, str] = {}
        self.pid, self.pidfd = 0, -1
        self._changed = changed
        self._loop = loop
        self._brood = brood
        self._orders: Dict[int, Forked] = {}
        self._numbers = itertools.count(1)
        self._captures: List[output.Capture] = []
        self._trace = -1
        self._doomed = False
        self._deadline: Optional[Timer] = None
        self.error: Optional[Dict[str, Any]] = None
        self.module = ""
        if birth is not None:
            self._fork_from(birth, capture)
            return
        try:
            self._spawn(wish, capture)
        except OSError as error:
            # No process could be had (a pids or memory limit): told as a death, so that another comes after a back-off.
            self.state, self.reason = "dead", f"it could not be started: {error}"
            loop.later(0.0, lambda: changed(self))

    def _spawn(self, wish: Wish, capture: MakeCapture) -> None:
        self._sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sock.setblocking(False)
        out, out_end = os.pipe()
        err, err_end = os.pipe()
        job = {"steps": wish, "environment": {**blas.pinned(os.environ, self._cpus), **_CUDA_CHECK}}
        try:
            self.pid = children.spawn(["zygote"], job, [theirs.fileno()], dict(os.environ), out=out_end, err=err_end)
        except OSError:
            self._sock.close()
            os.close(out)
            os.close(err)
            raise
        finally:
            theirs.close()
            os.close(out_end)
            os.close(err_end)
        self._attend(capture(out, "out"), capture(err, "err"))
        proc.set_oom_score(self.pid, OOM_SCORE)
        self._deadline = self._loop.later(_PROBE_SECONDS, self.kill)

    def _fork_from(self, birth: Birth, capture: MakeCapture) -> None:
        pipes = children.Pipes(socket.SOCK_SEQPACKET)
        self._sock, self._trace = pipes.channel, pipes.trace
        self._sock.setblocking(False)

        def forked(pid: Optional[int], error: str) -> None:
            if pid is None:
                pipes.given()
                for fd in (pipes.out, pipes.err):
                    os.close(fd)
                self._close()
                self.state, self.reason = "dead", error
                self._changed(self)
                return
            self.pid = pid
            pipes.given()
            self._attend(capture(pipes.out, "out"), capture(pipes.err, "err"))
            if self._doomed:
                self.kill()

        birth.parent.fork(
            {**birth.job, "pinned": {**blas.pinned(os.environ, birth.job["cpus"]), **_CUDA_CHECK}}, pipes.theirs, forked
        )

    def _attend(self, out: output.Capture, err: output.Capture) -> None:
        """It lives: listen to it, and be told of its end."""
        self.pidfd = os.pidfd_open(self.pid)
        self._captures = [out, err]
        self._brood.expect(self.pid, self._exited)
        self._loop.reading(self._sock.fileno(), self.read)
        for end in self._captures:
            self._loop.reading(end.fd, self._reader(end))

    @property
    def imports(self) -> List[str]:
        return [step[1] for step in self.wish if step[0] == "import" and step[1] not in self.skipped]

    @property
    def alive(self) -> bool:
        return self.pidfd >= 0

    @property
    def busy(self) -> bool:
        return bool(self._orders)

    def fork(self, job: start.Job, ends: Sequence[int], forked: Forked) -> None:
        """Order a child. A zygote that does not answer in time is killed, which answers."""
        order = next(self._numbers)
        self._orders[order] = forked
        job_fd = start.write_job(job)
        try:
            socket.send_fds(self._sock, [json.dumps({"type": "fork", "order": order}).encode()], [job_fd, *ends])
        except OSError as error:
            self._answer(order, None, f"the zygote takes no orders: {error}")
            self.kill()
            return
        finally:
            os.close(job_fd)
        self._loop.later(_ORDER_SECONDS, lambda: self.kill() if order in self._orders else None)

    def read(self) -> None:
        """Take every message that has arrived."""
        while self._sock.fileno() >= 0:
            try:
                data = self._sock.recv(262144)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._loop.forget(self._sock.fileno())
                return
            message = json.loads(data)
            if message["type"] == "forked":
                self._answer(message["order"], message.get("pid"), message.get("error", ""))
            elif message["type"] == "probed":
                self._stop_deadline()
                self.probes += 1
                self.state, self.reason, self.skipped = message["state"], message["reason"], message["skipped"]
                self.error, self.module = message.get("error"), str(message.get("module", ""))
                # One that ran preload.py came as a candidate does.
                proc.set_oom_score(self.pid, OOM_SCORE)
                self._changed(self)

    def dismiss(self) -> None:
        """Let it end by itself once its last order is answered: it leaves when its socket closes."""
        if self.busy:
            self._loop.later(0.05, self.dismiss)
        else:
            self._close()

    def bring(self, wish: Wish) -> None:
        """Have a zygote that is ready take other steps as well; `changed` is called when it has."""
        try:
            self._sock.send(json.dumps({"type": "import", "steps": wish}).encode())
        except OSError:
            self.kill()
            return
        self.wish = wish
        self._deadline = self._loop.later(_PROBE_SECONDS, self.kill)

    def ask_place(self) -> None:
        """Have one that was forked write its stacks."""
        if self.pidfd >= 0 and self._trace >= 0:
            children.kill(self.pidfd, trace.ASK)

    @property
    def stacks(self) -> str:
        return "" if self._trace < 0 else trace.read(self._trace)

    def kill(self) -> None:
        self._doomed = True
        if self.pidfd >= 0:
            children.kill(self.pidfd)

    def _answer(self, order: int, pid: Optional[int], error: str) -> None:
        forked = self._orders.pop(order, None)
        if forked is not None:
            forked(pid, error)
            self._brood.order_closed()

    def _exited(self, status: int) -> None:
        self.read()
        if self.state in ("starting", "ready"):
            # One that is unsafe or failed leaves because of that, and that is what matters.
            self.state, self.reason = "dead", children.cause(status)
        self._stop_deadline()
        self._close()
        for end in self._captures:
            self._loop.forget(end.fd)
            end.finish()
        os.close(self.pidfd)
        self.pidfd = -1
        for order in list(self._orders):
            self._answer(order, None, f"the zygote died ({self.reason})")
        self._changed(self)
        if self._trace >= 0:
            os.close(self._trace)
            self._trace = -1

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()

    def _close(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.forget(self._sock.fileno())
            self._sock.close()

    def _reader(self, end: output.Capture) -> Callable[[], None]:
        def read() -> None:
            if not end.read():
                self._loop.forget(end.fd)

        return read
