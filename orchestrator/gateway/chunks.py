"""Where a chunked body ends (RFC 9112, section 7.1), strictly. It keeps no data and changes none."""

from __future__ import annotations

import re

from orchestrator.gateway.envelope import Refusal

# Bytes of a chunk's size with its extensions, and of all trailers.
MAX_SIZE_LINE = 1024
MAX_TRAILERS = 8 * 1024

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")


class Framing:
    """Follows one chunked body. `feed` as bytes come, until `done`."""

    __slots__ = ("_left", "_line", "_trailers", "done")

    def __init__(self) -> None:
        self.done = False
        self._line = b""  # of a line whose end has not come
        self._left = 0  # bytes of the open chunk, its CRLF included
        self._trailers = -1  # bytes of trailers seen; -1 before the last chunk

    def feed(self, data: bytes) -> int:
        """How many of these bytes are the body's: all, or up to its end. Raises Refusal(INVALID_REQUEST)."""
        at = 0
        while at < len(data) and not self.done:
            at = self._chunk(data, at) if self._left else self._next(data, at)
        return at

    def _chunk(self, data: bytes, at: int) -> int:
        """Pass over what is here of the open chunk; look at its CRLF."""
        taken = min(self._left, len(data) - at)
        crlf = max(0, self._left - 2)
        if taken > crlf and not b"\r\n"[crlf + 2 - self._left :].startswith(data[at + crlf : at + taken]):
            raise _refusal("a chunk is longer than it says")
        self._left -= taken
        return at + taken

    def _next(self, data: bytes, at: int) -> int:
        """Take one line: a chunk's size, a trailer, or the empty line that ends the body."""
        found = data.find(b"\n", at)
        stop = len(data) if found < 0 else found + 1
        line = self._line + data[at:stop]
        limit = MAX_SIZE_LINE if self._trailers < 0 else MAX_TRAILERS - self._trailers
        if len(line) > limit:
            raise _refusal("a chunk's size or the trailers are too long")
        if found < 0:
            self._line = line
            return stop
        self._line = b""
        if not line.endswith(b"\r\n"):
            raise _refusal("a line ends in a bare LF")
        self._read(line[:-2])
        return stop

    def _read(self, line: bytes) -> None:
        if self._trailers < 0:
            match = _SIZE.fullmatch(line)
            if match is None:
                raise _refusal("a chunk's size is not a number")
            size = int(match[1], 16)
            if size:
                self._left = size + 2
            else:
                self._trailers = 0
        elif not line:
            self.done = True
        elif _TRAILER.fullmatch(line) is None:
            raise _refusal("a trailer is not a well-formed field")
        else:
            self._trailers += len(line)


def _refusal(why: str) -> Refusal:
    return Refusal("INVALID_REQUEST", "the body's framing is broken", why, close=True)
