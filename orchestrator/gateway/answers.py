"""A worker's answer, as far as its head tells: what of it may pass to a client. It reads bytes and no socket.

`usual` reads the one form that nearly every answer has, strictly and at once; what it does not know httptools reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# What is done with a field. Dropped is what is ours to write, or between two hops alone (RFC 9110, section 7.6.1).
_DROP, _PASS, _LENGTH, _TYPE, _QUEUED, _BATCH, _CONNECTION, _CODING = range(8)
_KINDS = {
    **dict.fromkeys((b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection"), _DROP),
    **dict.fromkeys((b"te", b"trailer", b"upgrade", b"date", b"server", b"x-request-id"), _DROP),
    **dict.fromkeys((b"ratelimit-limit", b"ratelimit-remaining", b"ratelimit-reset"), _DROP),
    b"content-length": _LENGTH,
    b"content-type": _TYPE,
    b"x-sandbox-queue-seconds": _QUEUED,
    b"x-sandbox-batch": _BATCH,
    b"connection": _CONNECTION,
    b"transfer-encoding": _CODING,
}
_KEPT = b"Connection: keep-alive\r\n"
# Names as workers spell them, and what is done with each; emptied when a model invents too many.
_spelled: dict[bytes, int] = {}
_MOST_SPELLED = 512

_VALUE = rb"[\t\x20-\x7e\x80-\xff]*\r\n"
_USUAL = re.compile(rb"HTTP/1\.1 ([2-5]\d\d)%b((?:[!#$%%&'*+\-.^_`|~0-9A-Za-z]+:%b)+)\r\n" % (_VALUE, _VALUE))


class Head:
    """Status and fields of an answer. length: None where the body is chunked or ends with the connection.

    passed: the lines that a client gets, each with its CRLF. streams: it is an event stream, each piece of which is for
    the client at once. queued, batch: what the worker says of its queue, and of the batch that the call was part of.
    usual: `length` alone frames it, and the connection is kept.
    """

    __slots__ = ("batch", "length", "passed", "queued", "status", "streams", "usual")

    def __init__(self, status: int, lines: Iterable[bytes]) -> None:
        self.status = status
        self.streams = False
        self.queued: bytes | None = None
        self.batch: bytes | None = None
        self.length: int | None = None
        self.passed: list[bytes] = []
        passed = self.passed
        lengths, framed, options = 0, True, b""
        for line in lines:
            colon = line.find(b":")
            kind = _spelled.get(line[:colon])
            if kind is None:
                kind = _spell(line[:colon])
            if kind == _PASS:
                passed.append(line)
            elif kind == _DROP or line == _KEPT:
                continue
            elif kind == _TYPE:
                passed.append(line)
                self.streams = b"text/event-stream" in line.lower()
            elif kind == _LENGTH:
                lengths += 1
                value = line[colon + 1 :].strip()
                self.length = int(value) if value.isdigit() and len(value) < 19 else None
            elif kind == _QUEUED:
                passed.append(line)
                self.queued = line[colon + 1 :]
            elif kind == _BATCH:
                passed.append(line)
                self.batch = line[colon + 1 :].strip()
            elif kind == _CONNECTION:
                options += b"," + line[colon + 1 :].strip().lower()
            else:
                framed = False
        self.usual = framed and lengths == 1 and self.length is not None
        if options and options != b",keep-alive":
            self._drop({token.strip() for token in options.split(b",")})

    def _drop(self, options: set[bytes]) -> None:
        """What Connection names is not for the client either."""
        self.usual = self.usual and b"close" not in options
        self.passed = [line for line in self.passed if line.partition(b":")[0].lower() not in options]

    def drop(self, name: bytes) -> None:
        """Keep a field (lower case) from the client."""
        self._drop({name})

    def fields(self) -> list[tuple[str, str]]:
        """What passes, as names in lower case and values."""
        pairs = (line.decode("latin-1").partition(":") for line in self.passed)
        return [(name.lower(), value.strip()) for name, _, value in pairs]

    def get(self, name: str) -> str | None:
        """The first of the fields that pass with this name (lower case)."""
        return next((value for key, value in self.fields() if key == name), None)


def _spell(name: bytes) -> int:
    """What is done with a field, remembered by its spelling."""
    lower = name.lower()
    kind = _KINDS.get(lower, _DROP if lower.startswith(b"x-sandbox-") else _PASS)
    if len(_spelled) >= _MOST_SPELLED:
        _spelled.clear()
    if len(name) <= 64:
        _spelled[name] = kind
    return kind


def usual(data: bytes) -> tuple[Head, int] | None:
    """The head that `data` begins with and where it ends, where it came whole and its length alone frames the body."""
    match = _USUAL.match(data)
    if match is None:
        return None
    status = int(match[1])
    if status in (204, 304):
        return None
    head = Head(status, match[2].splitlines(keepends=True))
    return (head, match.end()) if head.usual else None
