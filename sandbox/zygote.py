"""A clean interpreter that imported what models need, and forks. One thread, no event loop, never a user's file.

It is told steps, in the order in which the model would take them: variables to set and modules to import (scan.py).

It answers orders of the agent on a SOCK_SEQPACKET socket (a message is a packet; descriptors travel with theirs):

  agent → zygote   {"type": "fork", "order": n}, with the job's memfd and the six descriptors of start.Ends
                   {"type": "import", "steps": [Step]}: take these too (of a second-level zygote), and say `probed`
  zygote → agent   {"type": "probed", "state": "ready" | "unsafe", "reason", "skipped": {module: why}}
                   of a second-level zygote also state "failed" with "error" or "unfit" with "module"; then it ends
                   {"type": "forked", "order": n, "pid"} or {"type": "forked", "order": n, "error"}
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import socket
import sys
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

from sandbox import blas, hugepages, packages, preloading, proc, start
from sandbox.heritage import Heritage
from sandbox.steering import Steering
from sandbox.steps import Step

_CUDA_NOT_INITIALISED = 3


class Birth(NamedTuple):
    """In a forked child: what it is to become."""

    job: start.Job
    ends: start.Ends


def main(wish: start.Job, control: int) -> None:
    """Import, probe, then fork on order until the agent is gone. In a child this goes on as that child's life."""
    sock = socket.socket(fileno=control)
    os.environ.update(wish["environment"])
    _import_own()
    steering = Steering()
    skipped = _take(wish["steps"], steering)
    setters, reason = _probed()
    _say(sock, {"type": "probed", "state": "unsafe" if reason else "ready", "reason": reason, "skipped": skipped})
    birth = _serve(sock, steering, setters)
    if birth is not None:
        start.run(birth.job, birth.ends, Heritage(setters, steering))


def second(job: start.Job, ends: start.Ends, heritage: Heritage) -> None:
    """Forked from a clean zygote: run preload.py, probe, then fork on order. In a child this goes on as its life."""
    sock = socket.socket(fileno=ends.channel)
    for fd in (ends.out_read, ends.err_read):
        os.close(fd)
    os.environ.clear()
    os.environ.update({**job["environment"], **job["pinned"]})
    steering = heritage.steering
    steering.begin(lambda: None)
    gc.enable()
    try:
        preloaded = preloading.run(job["assignment"], steering, to_fork=True)
    except preloading.PreloadError as failed:
        stale = steering.stale
        news = {"state": "unfit", "module": stale.module} if stale else {"state": "failed", "error": failed.error}
        _say(sock, {"type": "probed", "reason": stale.reason if stale else str(failed), "skipped": {}, **news})
        return
    hugepages.gather()
    setters, reason = _probed()
    _say(sock, {"type": "probed", "state": "unsafe" if reason else "ready", "reason": reason, "skipped": {}})
    birth = _serve(sock, steering, setters)
    if birth is not None:
        start.run(birth.job, birth.ends, Heritage(setters, steering, preloaded))


def _probed() -> Tuple[List[blas.Setter], str]:
    """Make this process one to fork from: what sets its libraries' threads, and why it must not be, or ""."""
    reason = _unsafe()
    setters = blas.setters()
    gc.collect()
    gc.disable()
    gc.freeze()
    return setters, reason


def _serve(sock: socket.socket, steering: Steering, setters: List[blas.Setter]) -> Optional[Birth]:
    """Answer orders. Returns in a child; None in the zygote itself once the agent has closed."""
    while True:
        data, fds, _, _ = socket.recv_fds(sock, 65536, 16)
        if not data:
            return None
        message = json.loads(data)
        if message["type"] == "import":
            skipped = _take(message["steps"], steering)
            setters[:], reason = _probed()
            state = "unsafe" if reason else "ready"
            _say(sock, {"type": "probed", "state": state, "reason": reason, "skipped": skipped})
            continue
        order = message["order"]
        try:
            pid = _fork(sock, order)
        except OSError as error:
            _say(sock, {"type": "forked", "order": order, "error": str(error)})
            pid = -1
        if pid == 0:
            return Birth(start.read_job(fds[0]), start.Ends(*fds[1:]))
        for fd in fds:
            os.close(fd)


def _fork(sock: socket.socket, order: int) -> int:
    """Fork twice, so that the child becomes the agent's; 0 in the child, once the agent was told of it.

    The one in between ends at once. The child waits at a gate: a death that the agent could not name must not happen.
    """
    told, tell = os.pipe()
    gate, key = os.pipe()
    try:
        between = os.fork()
        if between == 0:
            _fork_again(sock, tell, gate, (told, key))
            return 0
        os.waitpid(between, 0)
        os.close(tell)
        tell = -1
        answer = json.loads(os.read(told, 1024) or b'{"error": "the process in between died"}')
        _say(sock, {"type": "forked", "order": order, **answer})
        os.write(key, b"!")
    finally:
        for fd in (told, tell, gate, key):
            if fd >= 0:
                _close(fd)
    return between


def _fork_again(sock: socket.socket, tell: int, gate: int, others: Tuple[int, int]) -> None:
    """In the first child: fork, tell, end. Returns only in the second, when the gate has opened."""
    try:
        pid = os.fork()
    except OSError as error:
        os.write(tell, json.dumps({"error": str(error)}).encode())
        os._exit(1)
    if pid:
        os.write(tell, json.dumps({"pid": pid}).encode())
        os._exit(0)
    sock.close()
    for fd in others:
        os.close(fd)
    if not os.read(gate, 1):
        os._exit(1)  # the zygote died before it could announce this child


def _close(fd: int) -> None:
    """In the second child two of the four are closed already."""
    try:
        os.close(fd)
    except OSError:
        return


def _say(sock: socket.socket, message: Mapping[str, Any]) -> None:
    try:
        sock.send(json.dumps(message).encode())
    except OSError:
        sys.exit(0)  # the agent is gone: nobody to fork for


def _import_own() -> None:
    """What every child needs, imported once and shared."""
    for name in ("sandbox.worker", "sandbox.checker"):
        importlib.import_module(name)


def _take(steps: List[Step], steering: Steering) -> Dict[str, str]:
    """Set and import what can be; the rest with its reason. A library that fails here may still work in a worker."""
    skipped: Dict[str, str] = {}
    places = packages.folders()
    for kind, name, *value in steps:
        if kind == "set" or (kind == "default" and name not in os.environ):
            steering.set(name, value[0])
        elif kind == "import":
            try:
                if packages.installed(name.partition(".")[0], places):
                    steering.bring(name)
                else:
                    skipped[name] = "not a package of this environment"
            except (Exception, SystemExit) as error:  # noqa: BLE001 - foreign code, and its reason is reported
                skipped[name] = f"{type(error).__name__}: {error}"[:200]
    return skipped


def _unsafe() -> str:
    """Why this process must not be forked, or ""."""
    tasks = proc.tasks()
    if tasks != 1:
        return f"{tasks} threads run after importing"
    if _cuda_is_initialised():
        return "CUDA was initialised while importing"
    return ""


def _cuda_is_initialised() -> bool:
    """Ask the driver, if anything loaded it: a context does not survive a fork."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        if "libcuda.so" not in file.read():
            return False
    try:
        driver = ctypes.CDLL("libcuda.so.1", mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
    except OSError:
        return False
    return bool(driver.cuDeviceGetCount(ctypes.byref(ctypes.c_int())) != _CUDA_NOT_INITIALISED)
