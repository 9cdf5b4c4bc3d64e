"""How an attempt comes by a process for its job: one that waits forked, a fork of the zygote, or a new interpreter.

It knows the ways and their order, not what the job is.
"""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, NamedTuple, Optional

from sandbox import blame, children, start, wire
from sandbox.child import Child
from sandbox.children import Children, Pipes
from sandbox.loop import Loop
from sandbox.nursery import Nursery
from sandbox.output import Capture
from sandbox.peer import Peer
from sandbox.spares import Spares


class Cradle(NamedTuple):
    """What bears the processes of one replica."""

    loop: Loop
    brood: Children
    nursery: Nursery
    spares: Spares
    capture: Callable[[int, int, str], Capture]


class Wanted(NamedTuple):
    """hear: gets its messages; ended: its cause of death. born: the child and "fork" or "spawn"; stillborn: why there
    is none, and what to tell of it.
    """

    job: start.Job
    mode: str
    generation: int
    hear: Callable[[wire.Message], None]
    ended: Callable[[str], None]
    born: Callable[[Child, str], None]
    stillborn: Callable[[str, Dict[str, Any]], None]


def bear(cradle: Cradle, wanted: Wanted) -> None:
    """Have a process: forked where a zygote is ready and `mode` allows, else spawned."""
    if wanted.mode != "spawn":
        waiting = cradle.spares.take(wanted.job, wanted.generation, wanted.hear, wanted.ended)
        if waiting is not None:
            wanted.born(waiting, "fork")
            return
    pipes = Pipes()
    if wanted.mode == "spawn" or not cradle.nursery.ready:
        _spawn(cradle, wanted, pipes)
        return

    def forked(pid: Optional[int], _error: str) -> None:
        if pid is None:
            _spawn(cradle, wanted, pipes)
        else:
            _announce(cradle, wanted, pipes, pid, "fork")

    cradle.nursery.fork(wanted.job, pipes.theirs, forked)


def _spawn(cradle: Cradle, wanted: Wanted, pipes: Pipes) -> None:
    try:
        pid = children.spawn(
            ["child"], wanted.job, pipes.theirs, dict(os.environ), out=pipes.theirs.out, err=pipes.theirs.err
        )
    except OSError as error:
        pipes.discard()
        wanted.stillborn(str(error), blame.no_process(error))
        return
    _announce(cradle, wanted, pipes, pid, "spawn")


def _announce(cradle: Cradle, wanted: Wanted, pipes: Pipes, pid: int, how: str) -> None:
    captures = [
        cradle.capture(pipes.out, wanted.generation, "out"),
        cradle.capture(pipes.err, wanted.generation, "err"),
    ]
    pipes.given()
    child = Child(
        cradle.loop,
        cradle.brood,
        pid,
        Peer(cradle.loop, pipes.channel),
        captures=captures,
        trace_fd=pipes.trace,
        receive=wanted.hear,
        ended=wanted.ended,
    )
    child.born()
    wanted.born(child, how)
