"""HTTP/1.1 requests from bytes (RFC 9112), strictly: what two parsers could read differently is refused. No sockets.

Refused: both lengths or one twice, a line that ends in a bare LF, a folded field, space before a colon, a second Host,
a transfer coding that is not `chunked` alone, a head over HEAD_LIMIT.
"""

from __future__ import annotations

import re
from typing import Dict, List, Optional

HEAD_LIMIT = 64 * 1024
_CHUNK_LINE_LIMIT = 1024

_TCHAR = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_VALUE = r"[^\x00-\x08\x0a-\x1f\x7f]*"
_HEAD = re.compile(rf"({_TCHAR}) ([!-~]+) HTTP/1\.([01])\r\n((?:{_TCHAR}:{_VALUE}\r\n)*)\r\n")
_FIELD = re.compile(rf"({_TCHAR}):({_VALUE})\r\n")
_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t -~\x80-\xff]*)?")
_TRAILER = re.compile(rf"{_TCHAR}:{_VALUE}".encode("ascii"))
_BARE_LF = re.compile(rb"(?:^|[^\r])\n")
# Fields that mean something once only; two of them are two opinions.
_SINGLE = frozenset(("content-length", "transfer-encoding", "host", "content-type", "expect"))


class BadRequestError(Exception):
    """The bytes are no request that everybody would read alike. The connection is of no more use."""


class Request:
    """One request. headers: names in lower case; repeated fields joined by ", ". keep_alive: as the client asked."""

    __slots__ = ("body", "headers", "keep_alive", "method", "path")

    def __init__(self, method: str, path: str, headers: Dict[str, str], keep_alive: bool) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.keep_alive = keep_alive
        self.body = b""


class Parser:
    """Bytes in by `feed`, requests out by `next_request`, one at a time; what follows a request waits its turn."""

    __slots__ = ("_buffer", "_chunks", "_left", "_request", "_searched", "_step", "_trailer")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._request: Optional[Request] = None
        self._left = 0
        self._chunks: List[bytes] = []
        self._trailer = 0
        self._step = _Step.HEAD
        # How much of the buffer holds no end of a line or head, so that a slow sender costs no more than a fast one.
        self._searched = 0

    def feed(self, data: bytes) -> None:
        """Take more bytes, in any split."""
        self._buffer += data

    @property
    def buffered(self) -> int:
        """Bytes that wait to be read as requests."""
        return len(self._buffer)

    def take_rest(self) -> bytes:
        """What came after the last request, for whoever reads the connection from here on."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    @property
    def wants_continue(self) -> bool:
        """Whether a client waits for "100 Continue" before it sends the body of the request that has begun."""
        request = self._request
        return (
            request is not None
            and not self._buffer
            and not self._chunks
            and request.headers.get("expect", "").lower() == "100-continue"
        )

    def next_request(self) -> Optional[Request]:
        """The next request, body and all, or None until more bytes came. Raises BadRequestError."""
        if self._step == _Step.HEAD and not self._read_head():
            return None
        request = self._request
        if request is None or not self._read_body(request):
            return None
        self._request = None
        self._step = _Step.HEAD
        return request

    def _read_head(self) -> bool:
        buffer = self._buffer
        start = self._searched
        end = buffer.find(b"\r\n\r\n", max(0, start - 3))
        if end > HEAD_LIMIT or (end < 0 and len(buffer) > HEAD_LIMIT + 4):
            raise BadRequestError(f"the head of a request is over {HEAD_LIMIT} bytes")
        if end < 0:
            if buffer and _BARE_LF.search(buffer, max(0, start - 1)):
                raise BadRequestError("a line ends in a bare LF")
            self._searched = len(buffer)
            return False
        self._searched = 0
        match = _HEAD.fullmatch(buffer[: end + 4].decode("latin-1"))
        if match is None:
            raise BadRequestError("the head is not a well-formed HTTP/1.1 request")
        del buffer[: end + 4]
        method, target, minor, fields = match.groups()
        headers: Dict[str, str] = {}
        for written, padded in _FIELD.findall(fields):
            name, value = written.lower(), padded.strip(" \t")
            if name not in headers:
                headers[name] = value
            elif name in _SINGLE:
                raise BadRequestError(f"the field {name} came twice")
            else:
                headers[name] += f", {value}"
        self._begin(Request(method, target, headers, _keeps_alive(headers, minor)), minor)
        return True

    def _begin(self, request: Request, minor: str) -> None:
        headers = request.headers
        coding, length = headers.get("transfer-encoding"), headers.get("content-length")
        self._request = request
        self._step = _Step.BODY
        self._left = 0
        if coding is not None:
            if length is not None:
                raise BadRequestError("both Content-Length and Transfer-Encoding")
            if coding.lower() != "chunked" or minor == "0":
                raise BadRequestError(f"the transfer coding {coding!r:.40} is not known")
            self._chunks = []
            self._trailer = 0
            self._step = _Step.CHUNK_SIZE
        elif length is not None:
            if not _LENGTH.fullmatch(length):
                raise BadRequestError(f"the Content-Length {length!r:.40} is not a number")
            self._left = int(length)

    def _read_body(self, request: Request) -> bool:
        if self._step != _Step.BODY:
            return self._read_chunks(request)
        left = self._left
        if len(self._buffer) < left:
            return False
        if left:
            request.body = bytes(self._buffer[:left])
            del self._buffer[:left]
        return True

    def _read_chunks(self, request: Request) -> bool:
        buffer = self._buffer
        while True:
            if self._step == _Step.CHUNK_DATA:
                if len(buffer) < self._left + 2:
                    return False
                if buffer[self._left : self._left + 2] != b"\r\n":
                    raise BadRequestError("a chunk is longer than it says")
                self._chunks.append(bytes(buffer[: self._left]))
                del buffer[: self._left + 2]
                self._step = _Step.CHUNK_SIZE
            line = self._line()
            if line is None:
                return False
            if self._step == _Step.CHUNK_SIZE:
                match = _CHUNK_SIZE.fullmatch(line)
                if match is None:
                    raise BadRequestError("a chunk's size is not a number")
                self._left = int(match[1], 16)
                self._step = _Step.CHUNK_DATA if self._left else _Step.TRAILER
            elif not line:
                request.body = b"".join(self._chunks)
                self._chunks = []
                return True
            elif not _TRAILER.fullmatch(line):
                raise BadRequestError("a trailer is not a well-formed field")

    def _line(self) -> Optional[bytes]:
        end = self._buffer.find(b"\r\n", max(0, self._searched - 1))
        limit = _CHUNK_LINE_LIMIT if self._step == _Step.CHUNK_SIZE else HEAD_LIMIT - self._trailer
        if end > limit or (end < 0 and len(self._buffer) > limit + 2):
            raise BadRequestError("a chunk's size or the trailers are too long")
        if end < 0:
            self._searched = len(self._buffer)
            return None
        self._searched = 0
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        if self._step == _Step.TRAILER:
            self._trailer += end + 2
        return line


class _Step:
    HEAD = 0
    BODY = 1
    CHUNK_SIZE = 2
    CHUNK_DATA = 3
    TRAILER = 4


def _keeps_alive(headers: Dict[str, str], minor: str) -> bool:
    asked = headers.get("connection")
    if asked is None:
        return minor == "1"
    return minor == "1" and "close" not in [part.strip().lower() for part in asked.split(",")]
