"""Calls over a WebSocket, with a client that nobody here wrote; and what no client should send."""

import base64
import json
import os
import struct
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import unix_connect

from sandbox import frames
from sandbox.frames import FrameError, Frames, Message

MODEL = """
import asyncio

def predict(x: float):
    if x < 0:
        raise ValueError("negative")
    return 2 * x

async def chat(messages, temperature: float = 1.0):
    for word in messages[-1]["content"].split():
        if word == "wait":
            await asyncio.Event().wait()
        yield word + " "
"""
STREAM = """
def predict(n: int):
    for i in range(n):
        yield "x" * 1000
"""


@pytest.fixture
def worker(serve):
    return serve(MODEL)


def join(worker):
    return unix_connect(worker.socket_path, uri="ws://worker/ws", ping_interval=None)


def ask(socket, **message):
    socket.send(json.dumps(message))


def answer(socket):
    return json.loads(socket.recv(timeout=20))


def test_a_prediction(worker):
    with join(worker) as socket:
        ask(socket, type="predict", id=7, inputs={"x": 2})
        said = answer(socket)
        assert said["data"].pop("processing_time") >= 0
        assert said == {"type": "end", "id": 7, "data": {"prediction": 4.0}}


def test_a_chat_in_pieces(worker):
    with join(worker) as socket:
        ask(socket, type="chat", id="c", messages=[{"role": "user", "content": "one two"}], temperature=0.5)
        assert [answer(socket) for _ in range(2)] == [
            {"type": "delta", "id": "c", "content": "one "},
            {"type": "delta", "id": "c", "content": "two "},
        ]
        said = answer(socket)
        assert (said["type"], said["data"]["finish_reason"]) == ("end", "stop")
        assert said["data"]["usage"]["completion_tokens"] > 0


def test_calls_run_side_by_side_and_one_can_be_cancelled(worker):
    with join(worker) as socket:
        ask(socket, type="chat", id=1, messages=[{"role": "user", "content": "first wait"}])
        assert answer(socket)["content"] == "first "
        ask(socket, type="predict", id=2, inputs={"x": 1})
        assert (answer(socket)["id"]) == 2
        ask(socket, type="cancel", id=1)
        assert answer(socket) == {"type": "cancelled", "id": 1}


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ('{"type": "predict", "id": 3, "inputs": {"x": "two"}}', "INVALID_REQUEST"),
        ('{"type": "predict", "id": 3, "inputs": {"x": -1}}', "PREDICTION_FAILED"),
        ('{"type": "sing", "id": 3}', "INVALID_REQUEST"),
        ('{"type": "chat", "id": 3}', "INVALID_REQUEST"),
        ("[]", "INVALID_REQUEST"),
        ("{", "INVALID_REQUEST"),
    ],
)
def test_a_bad_call_is_an_error_and_the_conversation_goes_on(worker, message, code):
    with join(worker) as socket:
        socket.send(message)
        said = answer(socket)
        assert (said["type"], said["error"]["code"]) == ("error", code)
        ask(socket, type="predict", id=4, inputs={"x": 1})
        assert answer(socket)["data"]["prediction"] == 2.0


def test_a_stream_for_a_slow_reader_is_held_back_and_arrives_whole(serve):
    with join(serve(STREAM)) as socket:
        ask(socket, type="predict", id=1, inputs={"n": 2000})
        items = [answer(socket) for _ in range(2000)]
        assert {item["data"] for item in items} == {"x" * 1000}
        assert answer(socket)["type"] == "end"


def test_more_calls_than_may_run_at_once_are_all_answered(worker):
    with join(worker) as socket:
        for number in range(300):
            ask(socket, type="predict", id=number, inputs={"x": number})
        assert sorted(answer(socket)["id"] for _ in range(300)) == list(range(300))


def test_the_drain_deadline_closes_with_1012(worker):
    with join(worker) as socket:
        ask(socket, type="predict", id=1, inputs={"x": 1})
        answer(socket)
        worker.tell("drain")
        ask(socket, type="predict", id=2, inputs={"x": 2})  # it has its drain time
        assert answer(socket)["data"]["prediction"] == 4.0
        worker.tell("cut")
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=20)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
    assert worker.until("drained")["cut"] == 1


def test_a_client_that_leaves_ends_its_calls(serve):
    worker = serve(
        "async def chat(messages):\n    try:\n        yield 'a'\n        import asyncio\n"
        "        await asyncio.Event().wait()\n    finally:\n        print('ended', flush=True)\n"
    )
    with join(worker) as socket:
        ask(socket, type="chat", id=1, messages=[{"role": "user", "content": "x"}])
        assert answer(socket)["content"] == "a"
    worker.tell("drain")
    worker.until("drained")
    assert "ended" in worker.output


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"],
        ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 8", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="],
        ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: c2hvcnQ="],
    ],
)  # fmt: skip
def test_what_is_no_handshake_is_refused(worker, lines):
    headers = dict(line.split(": ") for line in lines)
    assert worker.call("GET", "/ws", None, headers).status == 400


def masked(opcode, payload=b"", *, final=True, first=0):
    """A client's frame, also one that no library would send."""
    mask, length = os.urandom(4), len(payload)
    size = bytes([0x80 | length]) if length < 126 else b"\xfe" + struct.pack("!H", length)
    body = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return bytes([final << 7 | first | opcode]) + size + mask + body


WRONG = [
    (b"\x81\x01a", 1002),  # not masked
    (masked(1, b"a", first=0x40), 1002),  # a reserved bit
    (masked(3, b"a"), 1002),  # a reserved opcode
    (masked(0, b"a"), 1002),  # a continuation of nothing
    (masked(1, b"a", final=False) + masked(1, b"b"), 1002),  # a message within another
    (masked(9, b"a", final=False), 1002),  # a ping in pieces
    (b"\x89\xfe\x00\x7e", 1002),  # a ping of 126 bytes
    (masked(8, b"\x03"), 1002),  # a close of one byte
    (masked(8, struct.pack("!H", 1005)), 1002),  # a code that nobody may send
    (masked(8, struct.pack("!H", 1000) + b"\xff"), 1007),
    (masked(1, b"\xff\xfe"), 1007),  # not UTF-8
    (b"\x81\xff" + struct.pack("!Q", 1 << 40), 1009),  # longer than anything
    (masked(2, b"{}"), 1003),  # bytes, where text is spoken
]


@pytest.mark.parametrize(("data", "code"), WRONG)
def test_malformed_frames_end_the_conversation_with_the_code_for_it(worker, data, code):
    key = base64.b64encode(os.urandom(16)).decode()
    with closing(worker.connect()) as raw:
        raw.sendall(
            f"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
            + data
        )
        came = b"".join(iter(lambda: raw.recv(65536), b""))
    head, _, rest = came.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert rest[0] == 0x88
    assert struct.unpack_from("!H", rest, 2) == (code,)


@given(
    st.lists(st.tuples(st.sampled_from([1, 2, 9, 10]), st.binary(max_size=300)), max_size=8),
    st.integers(1, 7),
    st.data(),
)
def test_messages_arrive_whole_however_the_bytes_were_cut(messages, pieces, data):
    sent, expected = b"", []
    for kind, payload in messages:
        text = payload.decode("latin-1")
        payload = text.encode("utf-8") if kind == 1 else payload[:125] if kind > 8 else payload  # noqa: PLW2901
        expected.append(Message(kind, text if kind == 1 else payload))
        if kind > 8:
            sent += masked(kind, payload)
            continue
        step = max(1, len(payload) // pieces)
        parts = [payload[at : at + step] for at in range(0, len(payload), step)] or [b""]
        for index, part in enumerate(parts):
            sent += masked(kind if index == 0 else 0, part, final=index == len(parts) - 1)
    parser, came, at = Frames(10_000), [], 0
    while at < len(sent):
        size = data.draw(st.integers(1, len(sent)))
        came += parser.feed(sent[at : at + size])
        at += size
    assert came == expected


def test_a_message_in_pieces_is_bounded_too():
    parser = Frames(10)
    parser.feed(masked(1, b"12345678", final=False))
    with pytest.raises(FrameError) as error:
        parser.feed(masked(0, b"123"))
    assert error.value.code == 1009


@given(st.binary(max_size=200))
def test_whatever_comes_is_a_message_or_a_frame_error(data):
    code = None
    try:
        Frames(100).feed(data)
    except FrameError as error:
        code = error.code
    assert code in (None, 1002, 1007, 1009)


def test_the_accept_key_is_the_one_of_the_standard():
    assert frames.accept("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
