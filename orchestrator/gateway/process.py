"""The gateway as a process of its own: the inherited listener, signals, and an orderly end. Started by the keeper.

`SANDBOX_LISTENER_FD` is the listener's descriptor, `SANDBOX_STATE` the folder with control's sockets,
`SANDBOX_GATEWAY_WORKER` this process's number, `SANDBOX_LOG` a level.
It serves on when control or the keeper die.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import uvloop

from orchestrator.gateway.body import Deadlines
from orchestrator.gateway.feed import Feed
from orchestrator.gateway.front import Front
from orchestrator.gateway.general import Gateway
from orchestrator.ports import Upstream

BACKLOG = 4096
# What requests in flight have to finish after SIGTERM.
STOP_WITHIN = 30.0
DEADLINES = Deadlines()

Lane = Callable[[Gateway, socket.socket], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def fast(gateway: Gateway, listener: socket.socket) -> AsyncIterator[None]:
    """Serve through the fast lane, with aiohttp behind it for what is unusual. Ends in order, within STOP_WITHIN."""
    front = Front(gateway)
    server = await asyncio.get_running_loop().create_server(front.connect, sock=listener, backlog=BACKLOG)
    try:
        yield
    finally:
        server.close()
        await front.stop(STOP_WITHIN)


async def serve(
    listener: socket.socket,
    state: str,
    worker: int,
    stop: asyncio.Event,
    *,
    deadlines: Deadlines = DEADLINES,
    lane: Lane = fast,
) -> None:
    """Serve until `stop` is set; then stop accepting, finish what is in flight (at most STOP_WITHIN), close all."""
    feed: Feed

    def suspect(model: str, upstream: Upstream) -> None:
        feed.suspect(model, upstream)

    gateway = Gateway(state=state, deadlines=deadlines, suspect=suspect)
    feed = Feed(gateway, state, worker)
    async with asyncio.TaskGroup() as tasks:
        dialling = tasks.create_task(feed.run())
        async with lane(gateway, listener):
            await stop.wait()
        dialling.cancel()
    gateway.pool.close()
    gateway.journal.flush()


async def _run(environment: Mapping[str, str]) -> None:
    listener = socket.socket(fileno=int(environment["SANDBOX_LISTENER_FD"]))
    listener.setblocking(False)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    # Ctrl-C in a terminal reaches the whole group; who started us decides what it means.
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    await serve(listener, environment["SANDBOX_STATE"], int(environment.get("SANDBOX_GATEWAY_WORKER", "0")), stop)


def main() -> None:
    """`python -m orchestrator.gateway.process`."""
    level = os.environ.get("SANDBOX_LOG", "warning").upper()
    logging.basicConfig(stream=sys.stderr, level=level, format="%(levelname)s %(name)s: %(message)s")
    uvloop.run(_run(os.environ))


if __name__ == "__main__":
    main()
