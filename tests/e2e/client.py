"""Calling a sandbox's gateway: one call at a time, or a load that never pauses. It knows HTTP, nothing of reloads."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
DEADLINE = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the gateway."""

    status: int
    headers: dict[str, str]
    body: Any

    @property
    def generation(self) -> int:
        return int(self.headers["x-sandbox-generation"])

    @property
    def content(self) -> str:
        return self.headers["x-sandbox-content"]

    @property
    def prediction(self) -> Any:
        assert self.status == 200, self.body
        return self.body["data"]["prediction"]

    @property
    def code(self) -> str:
        return str(self.body["error"]["code"])


class Client:
    """One keep-alive connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)

    def request(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        text = None if body is None else json.dumps(body).encode()
        try:
            self._connection.request(method, path, body=text, headers=headers or {})
            response = self._connection.getresponse()
            data = response.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, found, json.loads(data) if "json" in found.get("content-type", "") else data)

    def close(self) -> None:
        self._connection.close()


@dataclass(frozen=True, slots=True)
class Sample:
    """One request of a load: when its first byte was sent, and what became of it (status 0: no answer)."""

    id: str
    sent: float
    done: float
    status: int
    generation: int = 0
    body: Any = None


@dataclass(slots=True)
class Load:
    """Requests without a pause. keep: connections kept alive; fresh: clients that connect anew for each request;
    pause: seconds from an answer to that client's next request.

    A request's input is `payload(id)`. Samples are complete once the `with` block of `running` is left.
    """

    port: int
    path: str
    payload: Callable[[str], Json]
    keep: int = 24
    fresh: int = 8
    pause: float = 0.0
    samples: list[Sample] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _first: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[Load]:
        thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load")
        thread.start()
        try:
            assert self._first.wait(DEADLINE)
            yield self
        finally:
            self._stop.set()
            thread.join()

    def failures(self) -> list[Sample]:
        return [each for each in self.samples if each.status != 200]

    def outage(self, since: float) -> str:
        """How many requests were lost, how long after `since` (monotonic) answers were back (the first good one to a
        request that was sent after the last lost one), and the longest time without one; the model's own included.
        """
        lost = self.failures()
        last = max((each.sent for each in lost), default=since)
        back = min(each.done for each in self.samples if each.status == 200 and each.sent > max(since, last))
        answers = [since, *sorted(each.done for each in self.samples if each.status == 200 and each.done > since)]
        silence = max(later - earlier for earlier, later in itertools.pairwise(answers))
        times = f"back after {(back - since) * 1000:.0f} ms, silent for {silence * 1000:.0f} ms"
        return f"{len(lost)} of {len(self.samples)} lost, {times}"

    def stale(self, acknowledged: list[tuple[float, int]]) -> list[Sample]:
        """Answered by an older generation than one acknowledged before the first byte was sent: (moment, generation)."""
        return [
            each
            for each in self.samples
            if each.status == 200
            and each.generation < max((number for moment, number in acknowledged if moment <= each.sent), default=0)
        ]

    async def _run(self) -> None:
        clients = [self._client(keep=True) for _ in range(self.keep)]
        clients += [self._client(keep=False) for _ in range(self.fresh)]
        async with asyncio.timeout(600):
            await asyncio.gather(*clients)

    async def _client(self, *, keep: bool) -> None:
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not self._stop.is_set():
            sent = time.monotonic()
            name = f"r{next(self._numbers)}"
            try:
                if connection is None:
                    connection = await asyncio.open_connection("127.0.0.1", self.port)
                sent = time.monotonic()
                status, generation, body, last = await self._call(*connection, name)
                self.samples.append(Sample(name, sent, time.monotonic(), status, generation, body))
            except (OSError, asyncio.IncompleteReadError) as error:
                self.samples.append(Sample(name, sent, time.monotonic(), 0, body=repr(error)))
                last = True
            self._first.set()
            if connection is not None and (last or not keep):
                connection[1].close()
                connection = None
            await asyncio.sleep(self.pause)
        if connection is not None:
            connection[1].close()

    async def _call(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str
    ) -> tuple[int, int, Any, bool]:
        data = json.dumps(self.payload(name)).encode()
        head = f"POST {self.path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
        writer.write(head.encode() + data)
        async with asyncio.timeout(DEADLINE):
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {key.lower(): value for key, _, value in (line.partition(": ") for line in lines[1:] if line)}
            body = await reader.readexactly(int(headers["content-length"]))
        last = headers.get("connection", "").lower() == "close"
        generation = int(headers.get("x-sandbox-generation", 0))
        return int(lines[0].split()[1]), generation, json.loads(body), last
