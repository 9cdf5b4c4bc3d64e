"""Deaths of one sandbox's containers as they happen, through every break of the engine's event stream."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import docker
import requests
from docker.errors import DockerException
from docker.types.daemon import CancellableStream

from orchestrator.errors import RuntimeFailure
from orchestrator.ports import ReplicaExit
from orchestrator.runtimes.container import LABEL, death, replica_filter

RETRY_FIRST = 0.2
RETRY_MOST = 5.0
JOIN_DEADLINE = 2.0
REMEMBERED = 1000


async def deaths(connect: Callable[[], docker.DockerClient], sandbox: str) -> AsyncIterator[ReplicaExit]:
    """Every death once, those of containers found dead at the start too. connect: makes a client of its own for it."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[ReplicaExit | Exception] = asyncio.Queue()

    def put(item: ReplicaExit | Exception) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody listens any more
            loop.call_soon_threadsafe(queue.put_nowait, item)

    feed = _Feed(connect, sandbox, put)
    try:
        while True:
            item = await queue.get()
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        feed.close()
        await asyncio.to_thread(feed.join)


class _Feed:
    """A thread that reads events; when the stream ends it lists, then reads on from the last event's time."""

    def __init__(
        self,
        connect: Callable[[], docker.DockerClient],
        sandbox: str,
        put: Callable[[ReplicaExit | Exception], None],
    ) -> None:
        self._connect = connect
        self._filters: dict[str, Any] = replica_filter(sandbox)
        self._put = put
        self._closed = threading.Event()
        self._stream: CancellableStream[dict[str, Any]] | None = None
        # A little back: the engine answers a moment before it listens to its own events.
        self._since = int(time.time()) - 1
        # In order of telling. A stream that reopens repeats the second in which it broke.
        self._told: deque[str] = deque(maxlen=REMEMBERED)
        self._oom: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="docker events", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Tell the thread to end."""
        self._closed.set()
        if (stream := self._stream) is not None:
            # The socket may be gone already, which is what is wanted.
            with contextlib.suppress(OSError, AttributeError, DockerException):
                stream.close()

    def join(self) -> None:
        """Wait for the thread, but not for an engine that hangs: the thread keeps nothing from ending."""
        self._thread.join(JOIN_DEADLINE)

    def _run(self) -> None:
        pause = RETRY_FIRST
        while not self._closed.is_set():
            try:
                client = self._connect()
                with contextlib.closing(client):
                    pause = RETRY_FIRST
                    self._read(client)
            except (RuntimeFailure, DockerException, requests.RequestException, OSError):
                # The engine is away: that ends no replica, and its return is waited for.
                pause = min(pause * 2, RETRY_MOST)
            except Exception as error:  # noqa: BLE001 (raised where the deaths are awaited)
                self._put(error)
                return
            self._closed.wait(pause)

    def _read(self, client: docker.DockerClient) -> None:
        # Events first, list second: what dies in between is seen twice rather than never.
        filters = {**self._filters, "type": "container", "event": ["die", "oom"]}
        stream = self._stream = client.api.events(since=self._since, filters=filters, decode=True)
        try:
            if not self._closed.is_set():
                self._list(client)
                for event in stream:
                    self._since = event["time"]
                    self._take(event)
        finally:
            # The client's own close leaves the socket of a stream that broke to the garbage collector.
            stream._response.close()  # type: ignore[attr-defined]  # noqa: SLF001

    def _list(self, client: docker.DockerClient) -> None:
        found = client.api.containers(all=True, filters=self._filters)
        for container in found:
            if container["State"] in {"exited", "dead"} and container["Id"] not in self._told:
                with contextlib.suppress(docker.errors.NotFound):
                    state = client.api.inspect_container(container["Id"])["State"]
                    self._tell(container["Id"], container["Labels"], state["ExitCode"], oom=state["OOMKilled"])

    def _take(self, event: Mapping[str, Any]) -> None:
        identity = event["Actor"]["ID"]
        attributes = event["Actor"]["Attributes"]
        match event["Action"]:
            case "oom":
                self._oom.add(identity)
            case "die":
                oom = identity in self._oom
                self._oom.discard(identity)
                self._tell(identity, attributes, int(attributes["exitCode"]), oom=oom)

    def _tell(self, identity: str, labels: Mapping[str, str], exit_code: int, *, oom: bool) -> None:
        if identity in self._told:
            return
        self._told.append(identity)
        cause, memory = death(exit_code, oom=oom)
        self._put(ReplicaExit(labels[f"{LABEL}incarnation"], cause, memory))
