"""The worker's HTTP parser: strict, and blind to how the bytes were cut."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.http import HEAD_LIMIT, BadRequestError, Parser

GET = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\nContent-Length: 5\r\nX-A: 1\r\nx-a:\t 2 \r\n\r\nhello"
CHUNKED = b"POST /c HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n1;ext=1\r\n!\r\n0\r\nTrailer: x\r\n\r\n"
LENGTHLESS = b"POST / HTTP/1.1\r\n\r\n"
WRONG = [
    b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: \r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: \xb2\r\n\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"GET / HTTP/1.1\r\nA: 1\r\n folded\r\n\r\n",
    b"GET / HTTP/1.1\r\nA : 1\r\n\r\n",
    b"GET / HTTP/1.1\r\n A: 1\r\n\r\n",
    b"GET / HTTP/1.1\r\n: 1\r\n\r\n",
    b"GET / HTTP/1.1\r\nA\r\n\r\n",
    b"GET / HTTP/1.1\nA: 1\n\n",
    b"GET / HTTP/1.1\r\nA: 1\n\r\n",
    b"GET / HTTP/1.1\r\nA: a\rb\r\n\r\n",
    b"GET / HTTP/1.1\r\nA: a\0b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET  / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/2.0\r\n\r\n",
    b"GET /\r\n\r\n",
    b"G\xc3T / HTTP/1.1\r\n\r\n",
    b"\r\nGET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nA: " + b"a" * HEAD_LIMIT + b"\r\n\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nbad trailer\r\n\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"a" * 2000 + b"\r\n!\r\n0\r\n\r\n",
]


def parse(pieces):
    """Every request as a tuple, and "refused" where the bytes end in an error."""
    parser, seen = Parser(), []
    try:
        for piece in pieces:
            parser.feed(piece)
            while (request := parser.next_request()) is not None:
                seen.append((request.method, request.path, request.headers, request.body, request.keep_alive))
    except BadRequestError:
        seen.append("refused")
    return seen


def cut(data, points):
    edges = [0, *sorted(point % (len(data) + 1) for point in points), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def test_requests_are_read():
    assert parse([GET + POST + CHUNKED + LENGTHLESS]) == [
        ("GET", "/health", {"host": "a"}, b"", True),
        ("POST", "/p", {"content-length": "5", "x-a": "1, 2"}, b"hello", True),
        ("POST", "/c", {"transfer-encoding": "Chunked"}, b"hello!", True),
        ("POST", "/", {}, b"", True),
    ]


@pytest.mark.parametrize(
    ("head", "kept"), [(b"HTTP/1.1", True), (b"HTTP/1.0", False), (b"HTTP/1.1\r\nConnection: x, Close", False)]
)
def test_a_connection_is_kept_as_the_client_asks(head, kept):
    assert parse([b"GET / " + head + b"\r\n\r\n"])[0][4] is kept


@pytest.mark.parametrize("data", WRONG)
def test_what_could_be_read_in_two_ways_is_refused(data):
    assert parse([data]) == ["refused"]
    assert parse([GET + data]) == [("GET", "/health", {"host": "a"}, b"", True), "refused"]


@pytest.mark.parametrize("data", WRONG)
def test_it_is_refused_byte_by_byte_too(data):
    assert parse([data[index : index + 1] for index in range(len(data))]) == ["refused"]


@given(
    st.lists(st.sampled_from([GET, POST, CHUNKED, LENGTHLESS, *WRONG]), max_size=4).map(b"".join),
    st.lists(st.integers(min_value=0, max_value=10**6), max_size=12),
)
def test_any_split_of_the_bytes_parses_alike(data, points):
    assert parse(cut(data, points)) == parse([data])


@given(st.binary(max_size=200), st.lists(st.integers(min_value=0, max_value=300), max_size=6))
def test_any_bytes_after_a_request_parse_alike(data, points):
    assert parse(cut(CHUNKED + data, points)) == parse([CHUNKED + data])


@given(
    st.lists(
        st.sampled_from([b"\r\n", b"\n", b"\r", b"5", b"0", b":", b"a", b" ", b"GET / HTTP/1.1", b"hello", b";"]),
        max_size=25,
    ).map(b"".join),
    st.lists(st.integers(min_value=0, max_value=100), max_size=6),
)
def test_any_lookalike_of_a_chunked_body_parses_alike(data, points):
    whole = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + data
    assert parse(cut(whole, points)) == parse([whole])
