"""From a bare process to the model's code: what a forked or spawned child does first. It knows nothing of HTTP.

A child gets a job, JSON in a memfd, and six descriptors, always in this order (see `Ends`).
"""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import socket
import sys
from functools import partial
from typing import Any, Dict, NamedTuple, Optional

from sandbox import blas, proc, steering, trace
from sandbox.heritage import Heritage

CANDIDATE_OOM_SCORE = 1000

Job = Dict[str, Any]


class Ends(NamedTuple):
    """Descriptors of a child: its channel, where it writes, the read ends it keeps for an agentless time, its trace."""

    channel: int
    out: int
    err: int
    out_read: int
    err_read: int
    trace: int


def write_job(job: Job) -> int:
    """A memfd that holds the job: no limit but memory, nothing in `ps`, nothing to clean up."""
    fd = os.memfd_create("job")
    with open(os.dup(fd), "wb") as file:
        file.write(json.dumps(job).encode())
    return fd


def read_job(fd: int) -> Job:
    """Read and close."""
    with open(fd, "rb") as file:
        file.seek(0)
        job: Job = json.load(file)
    return job


def run(job: Job, ends: Ends, heritage: Optional[Heritage] = None) -> None:
    """Become what the job says, and return when that has ended. heritage: a zygote's; None where there was none.

    "kind" is "check", "worker", "trial" (worker.try_out); "wait": get ready to be any of these, then do the job that
    comes over the channel; or "preload": a zygote that runs preload.py, its orders on the channel.
    """
    _settle(ends)
    if job["kind"] == "preload" and heritage is not None:
        from sandbox import zygote

        trace.arm(ends.trace)
        zygote.second(job, ends, heritage)
        return
    # What the model's children leave behind stays under the worker, so that its end is theirs.
    proc.become_subreaper()
    channel = socket.socket(fileno=ends.channel)
    if job["kind"] != "check":
        trace.arm(ends.trace)
        os.environ.clear()
        os.environ.update(job["environment"])
        threads = partial(blas.restore, [] if heritage is None else heritage.setters, os.environ, job["cpus"])
        threads()
        if heritage is not None:
            if heritage.preloaded is not None:
                steering.apply(heritage.preloaded.environment)
            heritage.steering.begin(threads)
        _reseed()
        gc.enable()
        sys.dont_write_bytecode = True
    if job["kind"] == "wait":
        # One byte with a descriptor and no line, so that nothing meant for the worker is read here.
        data, fds, _, _ = socket.recv_fds(channel, 1, 1)
        if not data:
            return
        job = read_job(fds[0])
    if job["kind"] == "trial":
        from sandbox import worker

        _be_silent()
        worker.try_out(job["assignment"], channel, heritage)
    elif job["kind"] == "check":
        from sandbox import checker

        checker.run(job, channel)
    else:
        from sandbox import worker

        worker.run({**job["assignment"], "output": [ends.out_read, ends.err_read]}, channel, heritage)


def _settle(ends: Ends) -> None:
    """A session, standard streams and signals of its own; first to go when memory ends."""
    if os.getsid(0) != os.getpid():
        os.setsid()
    proc.set_oom_score(os.getpid(), CANDIDATE_OOM_SCORE)
    for source, target in ((ends.out, 1), (ends.err, 2)):
        os.dup2(source, target)
        os.close(source)
    for fd in (ends.channel, ends.out_read, ends.err_read, ends.trace):
        os.set_inheritable(fd, False)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]
    _reset_signals()


def _be_silent() -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    for fd in (1, 2):
        os.dup2(null, fd)
    os.close(null)


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if signal.getsignal(number) not in (signal.SIG_DFL, None) and number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
    # At its default a client that leaves would kill the worker.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _reseed() -> None:
    """Else every worker of one zygote draws the same numbers."""
    random.seed()
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
    torch = sys.modules.get("torch")
    if torch is not None:
        # The CPU's generator by itself: torch.seed() would look at CUDA.
        torch.default_generator.manual_seed(int.from_bytes(os.urandom(7), "little"))


def take_job() -> Job:
    """The job on standard input, which then is /dev/null. For a process that was just spawned."""
    job = read_job(os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    return job
