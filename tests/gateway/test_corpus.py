"""What is not one request to everybody is refused by each parser of ours; what RFC 9112 allows is taken by each, alike."""

from __future__ import annotations

import pytest
from gateway_world import BOTH, Client, general, route
from http_corpus import BEFORE_AIOHTTP, REFUSED, REFUSED_BY_THE_GATEWAY, TAKEN, TAKEN_BY_THE_GATEWAY

from orchestrator.gateway.chunks import Framing
from orchestrator.gateway.envelope import Refusal
from orchestrator.gateway.heads import read_head
from sandbox.http import BadRequestError, Parser

LANES = BOTH


@pytest.mark.parametrize("name", [*REFUSED, *REFUSED_BY_THE_GATEWAY])
async def test_each_lane_refuses_it_and_closes(port, control, workers, name, lane):
    if lane is general and name in BEFORE_AIOHTTP:
        return
    worker = await workers()
    await control.sync({"hello": route(worker)})
    client = await Client.dial(port)
    client.writer.write((REFUSED | REFUSED_BY_THE_GATEWAY)[name])
    reply = await client.reply()
    assert (reply.status, reply.json["error"]["code"]) == (400, "INVALID_REQUEST")
    assert await client.closed()
    assert worker.requests == []


@pytest.mark.parametrize("name", TAKEN)
async def test_each_lane_takes_it_and_answers_the_next_request_too(port, control, workers, name):
    data, body = TAKEN[name]
    worker = await workers()
    await control.sync({"hello": route(worker)})
    client = await Client.dial(port)
    client.writer.write(data + data)
    for _ in range(2):
        assert (await client.reply()).json == {"path": "/predict", "got": body.decode()}
    assert [each.body for each in worker.requests] == [body, body]


@pytest.mark.parametrize("name", [*TAKEN, *TAKEN_BY_THE_GATEWAY])
async def test_the_gateway_takes_it_byte_by_byte(port, control, workers, name, lane):
    if lane is general:
        return
    data, body = (TAKEN | TAKEN_BY_THE_GATEWAY)[name]
    await control.sync({"hello": route(await workers())})
    client = await Client.dial(port)
    client.writer.get_extra_info("socket").setsockopt(6, 1, 1)  # TCP_NODELAY
    for at in range(len(data)):
        client.writer.write(data[at : at + 1])
        await client.writer.drain()
    assert (await client.reply()).json["got"] == body.decode()


class TestTheGuestsOwn:
    @pytest.mark.parametrize("name", REFUSED)
    def test_parser_refuses_it(self, name):
        parser = Parser()
        parser.feed(REFUSED[name])
        with pytest.raises(BadRequestError):
            parser.next_request()

    @pytest.mark.parametrize("name", TAKEN)
    def test_parser_takes_it_in_any_split(self, name):
        data, body = TAKEN[name]
        for step in (1, 7, len(data)):
            parser = Parser()
            for at in range(0, len(data), step):
                parser.feed(data[at : at + step])
                if (request := parser.next_request()) is not None:
                    break
            assert request is not None
            assert (request.method, request.body) == ("POST", body)


def read(data: bytes, step: int) -> tuple[str, str, dict[str, str], bytes] | None:
    """As the fast lane reads: the head by its empty line, the body by its length or its chunks. None: not whole yet."""
    end = data.find(b"\r\n\r\n") + 4
    if end < 4:
        return None
    head = read_head(data[:end].removeprefix(b"\r\n"))
    if not head.chunked:
        body = data[end : end + head.length]
        return (head.method, head.target, head.fields, body) if len(body) == head.length else None
    framing, at = Framing(), end
    while at < len(data) and not framing.done:
        at += framing.feed(data[at : at + step])
    return (head.method, head.target, head.fields, b"") if framing.done else None


@pytest.mark.parametrize("step", [1, 2, 3, 1000])
def test_chunks_are_followed_in_any_split(step):
    for data, _ in TAKEN.values():
        assert read(data, step) is not None
    for name in (name for name in REFUSED if b"Transfer-Encoding: chunked\r\n\r\n" in REFUSED[name]):
        with pytest.raises(Refusal):
            read(REFUSED[name], step)
