"""Control's end of the feed to the gateways, with pretend gateways on a real socket."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import exposition
from orchestrator.control import traffic
from orchestrator.control.traffic import GatewayFeed
from orchestrator.ports import Route, Upstream


class PretendGateway:
    """Answers as a gateway would, unless told to be silent."""

    def __init__(self, path: str, pid: int, *, silent: bool = False) -> None:
        self.path, self.pid, self.silent = path, pid, silent
        self.table: dict[str, Any] = {}
        self.requests = 0
        self.synced = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    async def dial(self) -> PretendGateway:
        self.reader, self.writer = await asyncio.open_unix_connection(self.path)
        self.say({"type": "hello", "version": 1, "pid": self.pid, "worker": 0})
        self.task = asyncio.create_task(self.listen())
        async with asyncio.timeout(5):
            await self.synced.wait()
        return self

    def say(self, message: dict[str, Any]) -> None:
        self.writer.write(json.dumps(message).encode() + b"\n")

    async def listen(self) -> None:
        while line := await self.reader.readline():
            message = json.loads(line)
            if message["type"] == "sync":
                self.table = dict(message["models"])
                self.synced.set()
            elif self.silent:
                continue
            elif message["type"] == "route":
                self.table[message["model"]] = message["route"]
            elif message["type"] == "collect":
                family = exposition.counter("requests_total", "", (), {(): float(self.requests)})
                self.say({"type": "metrics", "seq": message["seq"], "families": [family]})
                continue
            self.say({"type": "applied", "seq": message["seq"]})

    async def leave(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()
        if self.task is not None:
            await self.task


@pytest.fixture
async def feed() -> AsyncIterator[GatewayFeed]:
    folder = Path(tempfile.mkdtemp(prefix="sbx"))
    made = GatewayFeed(str(folder / "traffic.sock"), {}, lambda _model, _socket: None)
    await made.start()
    yield made
    await made.close()
    shutil.rmtree(folder)


async def gateway(feed: GatewayFeed, pid: int, **more: Any) -> PretendGateway:
    return await PretendGateway(feed._path, pid, **more).dial()


async def total(feed: GatewayFeed) -> float:
    [family] = exposition.merge(await feed.metrics())
    return family["series"][0][1]


async def test_a_route_is_confirmed_by_every_gateway_before_it_is_acknowledged(feed: GatewayFeed) -> None:
    both = [await gateway(feed, 1), await gateway(feed, 2)]
    await feed.route("hello", Route("running", generation=3))
    assert [each.table["hello"]["generation"] for each in both] == [3, 3]
    for each in both:
        await each.leave()


async def test_a_gateway_that_comes_late_is_given_the_whole_table(feed: GatewayFeed) -> None:
    await feed.route("hello", Route("running", generation=3))
    late = await gateway(feed, 1)
    assert late.table["hello"]["generation"] == 3
    await late.leave()


async def test_a_gateway_that_does_not_confirm_is_cut_off(feed: GatewayFeed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "CONFIRM_WITHIN", 0.05)
    silent = await gateway(feed, 1, silent=True)
    await feed.route("hello", Route("running", generation=3))
    assert silent.task is not None
    async with asyncio.timeout(5):
        await asyncio.gather(silent.task, return_exceptions=True)
    silent.writer.close()


async def test_counters_never_fall_when_gateways_die(feed: GatewayFeed) -> None:
    for pid in range(1, traffic.MOST_AWAY + 5):
        one = await gateway(feed, pid)
        one.requests = 10
        assert await total(feed) == 10 * pid
        await one.leave()
        while feed.pids:  # noqa: ASYNC110 - until the loop has seen it leave
            await asyncio.sleep(0)
    assert await total(feed) == 10 * (traffic.MOST_AWAY + 4)


async def test_a_gateway_that_had_only_lost_control_is_not_counted_twice(feed: GatewayFeed) -> None:
    for _ in range(2):
        one = await gateway(feed, 7)
        one.requests = 10
        assert await total(feed) == 10
        await one.leave()
        while feed.pids:  # noqa: ASYNC110 - until the loop has seen it leave
            await asyncio.sleep(0)


async def test_a_model_is_not_ready_as_long_as_a_gateway_that_is_away_would_not_know_it(
    feed: GatewayFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "_living", lambda: {7})
    ready = Route("running", generation=1, upstreams=(Upstream("a-1", "/s", "g1-1.sock", 0),))
    telling = asyncio.create_task(feed.route("hello", ready))
    await asyncio.wait([telling], timeout=0.05)
    assert not telling.done()
    late = await gateway(feed, 7)
    await telling
    assert "hello" in late.table
    await late.leave()
