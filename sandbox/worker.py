"""One worker: loads one generation, serves it on its socket, obeys its agent, and outlives it for a while."""

from __future__ import annotations

import asyncio
import gc
import os
import selectors
import signal
import socket
import sys
import threading
from typing import Any, Callable, Dict, NoReturn, Optional

from sandbox import output, sockets, wire
from sandbox.heritage import Heritage
from sandbox.link import Link, say
from sandbox.listener import Listener
from sandbox.loading import Loaded, LoadError, Loading, Stale
from sandbox.protocols.routes import App

# How often and how long a worker looks for a new agent after the old one died.
_DIAL_EVERY = 0.1
_DIAL_FOR = 30.0
# How long it then finishes what it holds: nobody is left to set a deadline.
_DRAIN_ALONE = 30.0
# What an application's own shutdown may take.
_SHUTDOWN = 5.0
# Time for the calls that a cut cancelled to run their `finally`, and for the last message to be written.
_LAST_WORDS = 0.5


def run(assignment: Dict[str, Any], channel: socket.socket, heritage: Optional[Heritage] = None) -> NoReturn:
    """Be this worker until it ends. channel: the connected socket to the agent. heritage: of the zygote, if any."""
    channel.setblocking(True)
    selector = selectors.DefaultSelector()
    loop = asyncio.SelectorEventLoop(selector)
    asyncio.set_event_loop(loop)

    def phase_done(phase: str, seconds: float) -> None:
        say(channel, {"type": "phase", "phase": phase, "seconds": seconds})

    try:
        loaded = Loading(assignment, loop, phase_done, heritage, lambda: _pause(assignment, channel)).run()
        asyncio.set_event_loop(loop)  # a `load` that ran a loop of its own has unset ours
        worker = _Worker(assignment, loaded, loop)
        announcement = worker.announcement
    except Stale as stale:
        say(channel, {"type": "stale", "what": stale.what, "module": stale.module, "reason": str(stale)})
        _leave(0)
    except LoadError as failed:
        print(failed.error["traceback"], end="", file=sys.stderr)
        say(channel, {"type": "failed", "phase": failed.phase, "error": failed.error})
        _leave(1)
    # What is loaded stays: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    _let_fork(lambda: worker.forget_in_child(channel, selector))
    say(channel, announcement)
    loop.run_until_complete(worker.serve(channel))
    _leave(0)


def _pause(assignment: Dict[str, Any], channel: socket.socket) -> None:
    """Say so, and wait for `proceed`: two generations do not fit, and the old one ends first.

    Limits that come meanwhile are taken over. Read byte by byte: what follows is the worker's. Without an agent there
    is nobody to make room, nor to tell: it ends, and is loaded anew.
    """
    say(channel, {"type": "paused"})
    lines = wire.Lines()
    while True:
        try:
            data = channel.recv(1)
        except OSError:
            data = b""
        if not data:
            _leave(1)
        for message in lines.feed(data):
            if message.get("type") == "proceed":
                return
            if message.get("type") == "configure":
                assignment["serving"] = wire.mapping(message.get("serving"))


def try_out(assignment: Dict[str, Any], channel: socket.socket, heritage: Optional[Heritage]) -> NoReturn:
    """Load, answer the example of config.yaml where there is one, say whether that went well, and end."""
    loop = asyncio.SelectorEventLoop()
    asyncio.set_event_loop(loop)
    fault = ""
    try:
        Loading({**assignment, "warmup": True, "pause": None}, loop, lambda _phase, _seconds: None, heritage).run()
    except Stale as stale:
        say(channel, {"type": "stale", "what": stale.what, "module": stale.module, "reason": str(stale)})
        _leave(0)
    except LoadError as failed:
        fault = f"a trial fork failed in {failed}"
    say(channel, {"type": "tried", "fault": fault})
    _leave(0)


class _Worker:
    """A loaded model that listens. Ends when it was drained, cut, or found no agent."""

    def __init__(self, assignment: Dict[str, Any], loaded: Loaded, loop: asyncio.AbstractEventLoop) -> None:
        self._assignment = assignment
        self._loaded = loaded
        self._loop = loop
        self._listener = Listener(loop, assignment["sockets"], assignment["socket"], App(loaded.service))
        self._link: Link = Link(self._receive, self._orphaned)
        self._cut = 0
        self._state = "ready"
        self._adopted = asyncio.Event()
        self._search: Optional[asyncio.Task[None]] = None
        self._drains_itself = False

    @property
    def announcement(self) -> wire.Message:
        """`listening`. Raises LoadError where it is too large to be sent."""
        message = {
            "type": "listening",
            "phases": self._loaded.phases,
            "imports": self._loaded.imports,
            "info": self._loaded.service.info,
        }
        try:
            wire.encode(message)
        except wire.WireError as error:
            told = {"type": "ValueError", "message": f"config.yaml is too large: {error}", "file": None, "line": None}
            raise LoadError("load", {**told, "traceback": ""}) from None
        return message

    async def serve(self, channel: socket.socket) -> None:
        """Serve until the end."""
        self._loop.add_signal_handler(signal.SIGTERM, self._cut_now)
        channel.setblocking(False)
        await self._loop.create_connection(lambda: self._link, sock=channel)
        await self._listener.drained
        if self._search is not None:
            self._search.cancel()
        await asyncio.wait([self._loop.create_task(self._loaded.service.stop())], timeout=_SHUTDOWN)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=_LAST_WORDS)
        self._link.send({"type": "drained", "cut": self._cut})
        await self._link.close(_LAST_WORDS)

    def forget_in_child(self, channel: socket.socket, selector: selectors.BaseSelector) -> None:
        """In a process that the model forked: let go of everything by which others would still take it for us."""
        self._listener.forget_in_child()
        channel.close()
        selector.close()

    def _receive(self, message: wire.Message) -> None:
        kind = message.get("type")
        if kind == "configure":
            self._loaded.service.configure(message.get("serving") or {})
        elif kind == "drain":
            self._state = "draining"
            self._listener.drain()
        elif kind == "cut":
            self._cut_now()
        elif kind == "adopted":
            self._adopted.set()

    def _cut_now(self) -> None:
        self._state = "draining"
        self._cut += self._listener.cut()

    def _orphaned(self) -> None:
        """The agent is gone. Serve on, keep the output flowing, look for a new one."""
        if self._listener.drained.done():
            return
        self._keep_output()
        if self._search is None or self._search.done():
            self._search = self._loop.create_task(self._find_agent())

    async def _find_agent(self) -> None:
        deadline = self._loop.time() + _DIAL_FOR
        while self._loop.time() < deadline:
            if await self._dial(deadline):
                return
            await asyncio.sleep(_DIAL_EVERY)
        self._state = "draining"
        self._listener.drain()
        await asyncio.sleep(_DRAIN_ALONE)
        self._cut_now()

    async def _dial(self, deadline: float) -> bool:
        """Whether an agent took us in."""
        self._adopted.clear()
        refused = asyncio.Event()
        link = Link(self._receive, refused.set)
        directory = os.open(self._assignment["sockets"], os.O_RDONLY | os.O_DIRECTORY)
        try:
            await self._loop.create_unix_connection(lambda: link, sockets.path(directory, "workers.sock"))
        except OSError:
            return False
        finally:
            os.close(directory)
        link.send(self._introduction)
        waits = [asyncio.ensure_future(event.wait()) for event in (self._adopted, refused)]
        await asyncio.wait(waits, timeout=deadline - self._loop.time(), return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if not self._adopted.is_set():
            await link.close(0.0)
            return False
        self._link = link
        link.on_loss(self._orphaned)
        return True

    @property
    def _introduction(self) -> wire.Message:
        given = self._assignment
        return {
            "type": "adopt",
            "generation": given["generation"],
            "attempt": given["attempt"],
            "content": given["content"],
            "pid": os.getpid(),
            "state": self._state,
            "socket": given["socket"],
            "info": self._loaded.service.info,
            "phases": self._loaded.phases,
        }

    def _keep_output(self) -> None:
        """Nobody reads our output pipes any more: drain them into the log ourselves, from now on."""
        ends = self._assignment.get("output")
        if ends and not self._drains_itself:
            self._drains_itself = True
            out, err = ends
            output.Orphan(self._assignment["sockets"], self._assignment["generation"], out, err).start()


def _let_fork(forget: Callable[[], None]) -> None:
    """Have the model's forks keep our SIGTERM: the loop learns of it by a descriptor that a child shares.

    A pool that ends its children that way would end this worker, and they would ignore it. Until a child has
    forgotten, the signal waits.
    """
    held = threading.local()

    def before() -> None:
        held.mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))

    def in_parent() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, held.mask)

    def in_child() -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        forget()
        signal.pthread_sigmask(signal.SIG_SETMASK, held.mask)

    os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=in_child)


def _leave(code: int) -> NoReturn:
    """End without waiting for threads: the model's may never end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue
    os._exit(code)
