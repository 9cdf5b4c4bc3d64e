"""Each request of RFC 9112's grammar that h11 takes, and that the list of refusals does not name, is taken alike by ours."""

from __future__ import annotations

import h11
from http_corpus import REFUSED, REFUSED_BY_THE_GATEWAY, TAKEN
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from orchestrator.gateway.answers import usual
from orchestrator.gateway.chunks import Framing
from orchestrator.gateway.envelope import Refusal
from orchestrator.gateway.heads import MAX_FIELDS, begun, read_head
from sandbox.http import BadRequestError, Parser

TCHAR = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# Fields that the list is about have strategies of their own.
NAMED = {
    "host",
    "content-length",
    "transfer-encoding",
    "content-encoding",
    "expect",
    "connection",
    "upgrade",
    "content-type",
}

tokens = st.text(TCHAR, min_size=1, max_size=12)
names = tokens.filter(lambda name: name.lower() not in NAMED)
vchar = st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_characters="\x7f").filter(
    lambda c: ord(c) < 0x7F or ord(c) >= 0x80
)
values = st.lists(st.text(vchar, min_size=1, max_size=10), max_size=3).flatmap(
    lambda words: st.sampled_from([" ", "\t", "  "]).map(lambda gap: gap.join(words))
)
spaces = st.sampled_from(["", " ", "\t", " \t "])
targets = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#"), max_size=40).map(
    lambda rest: "/" + rest
)
bodies = st.binary(max_size=200)


@st.composite
def requests(draw):
    """A request of the grammar: its bytes, and what they mean."""
    method = draw(tokens.filter(lambda word: word != "CONNECT"))
    target = draw(targets)
    fields = draw(st.lists(st.tuples(names, values), max_size=8))
    body = draw(bodies)
    chunked = draw(st.booleans())
    framing = ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(len(body)))
    every = [("Host", draw(st.sampled_from(["localhost", "localhost:80", "[::1]:8080", "a.b"]))), framing, *fields]
    every = draw(st.permutations(every))
    lines = "".join(f"{name}:{draw(spaces)}{value}{draw(spaces)}\r\n" for name, value in every)
    head = f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")
    return head + (draw(chunks(body)) if chunked else body), chunked


@st.composite
def chunks(draw, body):
    """A body in chunks, with what RFC 9112 allows beside them."""
    data, at = b"", 0
    while at < len(body):
        size = draw(st.integers(1, len(body) - at))
        extension = draw(st.sampled_from([b"", b";a", b";a=b", b' ; a="b c"']))
        spelled = draw(st.sampled_from([b"%x", b"%X", b"00%x"])) % size
        data += spelled + extension + b"\r\n" + body[at : at + size] + b"\r\n"
        at += size
    return data + b"0\r\n" + draw(st.sampled_from([b"", b"X-Sum: 1\r\n"])) + b"\r\n"


def by_h11(data: bytes):
    """Method, target, fields and body as h11 reads them; None where it refuses."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    try:
        request = connection.next_event()
        body = b""
        while isinstance(event := connection.next_event(), h11.Data):
            body += bytes(event.data)
    except h11.RemoteProtocolError:
        return None
    assert isinstance(event, h11.EndOfMessage)
    return request.method, request.target, joined([(name.lower(), value) for name, value in request.headers]), body


def joined(pairs) -> dict[bytes, bytes]:
    fields: dict[bytes, bytes] = {}
    for name, value in pairs:
        fields[name] = fields[name] + b", " + value if name in fields else value
    return fields


def by_ours(data: bytes):
    """The same as the fast lane reads them: the head, then the body by its length or by its chunks."""
    end = data.index(b"\r\n\r\n") + 4
    head = read_head(data[:end])
    fields = {name.encode("latin-1"): value.encode("latin-1") for name, value in head.fields.items()}
    body = data[end:]
    if head.chunked:
        framing = Framing()
        assert framing.feed(body) == len(body)
        assert framing.done
    else:
        assert head.length == len(body)
    return head.method.encode(), head.target.encode(), fields, body


def by_the_guest(data: bytes):
    parser = Parser()
    parser.feed(data)
    request = parser.next_request()
    assert request is not None
    fields = {name.encode("latin-1"): value.encode("latin-1") for name, value in request.headers.items()}
    return request.method.encode(), request.path.encode(), fields, request.body


@given(requests())
def test_each_parser_reads_what_h11_reads(made):
    data, chunked = made
    told = by_h11(data)
    if told is None:
        return  # beyond the grammar's intention: nothing is asked of ours
    ours = by_ours(data)
    assert ours[:3] == told[:3]
    assert chunked or ours[3] == told[3]  # chunks pass as they are; the guest takes them apart
    assert by_the_guest(data) == told


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_no_bytes_break_a_parser(data):
    """Any bytes, and bytes near those of the corpus, are one request, none yet, or a refusal; never anything else."""
    corpus = [*REFUSED.values(), *REFUSED_BY_THE_GATEWAY.values(), *(each for each, _ in TAKEN.values())]
    raw = bytearray(
        data.draw(st.one_of(st.binary(max_size=300), st.sampled_from(corpus).map(lambda each: each[:2000])))
    )
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    given_bytes = bytes(raw)
    ours = _verdict(given_bytes)
    parser = Parser()
    parser.feed(given_bytes)
    try:
        request = parser.next_request()
    except BadRequestError:
        request = None
    assert not isinstance(ours, Refusal) or (ours.code == "INVALID_REQUEST" and ours.close)
    # What the fast lane would pass on as it came, the guest must not read as another request.
    if isinstance(ours, tuple) and request is not None:
        assert ours == (request.method, request.path)


def _verdict(data: bytes) -> tuple[str, str] | Refusal | None:
    end = data.find(b"\r\n\r\n") + 4
    try:
        if end < 4:
            begun(data)
            return None
        head = read_head(data[:end])
        if head.chunked:
            Framing().feed(data[end:])
    except Refusal as refusal:
        return refusal
    assert len(head.fields) <= MAX_FIELDS
    return head.method, head.target


@given(st.binary(max_size=400), st.integers(1, 50))
@example(b"2\r\n{}\r\n0\r\n\r\nPOST", 1)
def test_where_chunks_end_does_not_depend_on_how_they_come(data, step):
    assert _end(data, len(data) or 1) == _end(data, step)


def _end(data: bytes, step: int) -> int | None:
    framing, at = Framing(), 0
    try:
        while at < len(data) and not framing.done:
            at += framing.feed(data[at : at + step])
    except Refusal:
        return None
    return at if framing.done else -1


@given(st.lists(st.tuples(tokens, values), max_size=8), st.integers(200, 599), bodies)
def test_a_workers_answer_is_read_as_h11_reads_it(fields, status, body):
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields if name.lower() not in NAMED)
    data = f"HTTP/1.1 {status} X\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode("latin-1") + body
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    told = client.next_event()
    found = usual(data)
    if found is None:
        assert status in (204, 304)
        return
    head, end = found
    assert (head.status, head.length, end) == (told.status_code, len(body), len(data) - len(body))
    passed = {name for name, _ in head.fields()}
    assert passed <= {name.decode("latin-1") for name, _ in told.headers}
    assert not passed & {"connection", "content-length", "date", "server", "x-request-id", "transfer-encoding"}
