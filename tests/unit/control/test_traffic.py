"""A route is confirmed once every gateway that lives goes by it, those that are away included."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.control import traffic
from orchestrator.control.traffic import GatewayFeed
from orchestrator.ports import Route, Upstream

OLD = Route("running", 1, upstreams=(Upstream("a-1", "/s", "g1-1.sock", 0),))
NEW = Route("running", 2, upstreams=(Upstream("a-2", "/s", "g2-2.sock", 0),))
PID = 77


class Gateway:
    """The gateway's end, played step by step."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def say(self, **message: object) -> None:
        self.writer.write(json.dumps(message).encode() + b"\n")

    async def heard(self) -> dict:
        return json.loads(await asyncio.wait_for(self.reader.readline(), 10))


@pytest.fixture
def living() -> set[int]:
    return set()


@pytest.fixture
async def feed(living: set[int]) -> AsyncIterator[GatewayFeed]:
    with tempfile.TemporaryDirectory(prefix="tr") as folder:
        path = str(Path(folder) / "traffic.sock")
        feed = GatewayFeed(path, {}, lambda _model, _socket: None, lambda: living)
        await feed.start()
        yield feed
        await feed.close()


async def dial(feed: GatewayFeed) -> Gateway:
    gateway = Gateway(*await asyncio.open_unix_connection(feed._path))
    gateway.say(type="hello", version=1, pid=PID, worker=0)
    return gateway


async def test_a_gateway_that_lives_and_has_not_found_this_control_yet_is_waited_for(
    feed: GatewayFeed, living: set[int]
) -> None:
    living.add(PID)
    await feed.route("one", OLD)  # as adopted: nothing is newer than what the gateway knows
    swap = asyncio.create_task(feed.route("one", NEW))
    gateway = await dial(feed)
    sync = await gateway.heard()
    assert sync["models"]["one"]["generation"] == 2
    assert not swap.done()

    gateway.say(type="applied", seq=sync["seq"])

    await asyncio.wait_for(swap, 10)
    gateway.writer.close()


async def test_a_gateway_that_dies_is_waited_for_no_longer(feed: GatewayFeed, living: set[int]) -> None:
    living.add(PID)
    await feed.route("one", OLD)
    swap = asyncio.create_task(feed.route("one", NEW))
    await asyncio.sleep(0)
    assert not swap.done()

    living.clear()

    await asyncio.wait_for(swap, 10)


async def test_no_gateway_holds_a_route_up_for_ever(
    feed: GatewayFeed, living: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic, "CONFIRM_WITHIN", 0.05)
    living.add(PID)
    await feed.route("one", OLD)

    await asyncio.wait_for(feed.route("one", NEW), 10)
