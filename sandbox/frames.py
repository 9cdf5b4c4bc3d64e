"""WebSocket frames (RFC 6455) from bytes and to bytes, strictly. No sockets; it knows no message's meaning.

Refused: unmasked frames, reserved bits and opcodes, control frames that are long or in pieces, a continuation of
nothing, a close code that nobody may send, text that is not UTF-8, a message over its limit.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from typing import List, NamedTuple, Optional, Union

_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

NORMAL, PROTOCOL_ERROR, UNSUPPORTED, INVALID_DATA, TOO_BIG, RESTART = 1000, 1002, 1003, 1007, 1009, 1012
_NO_STATUS = 1005
_CODES = frozenset((1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014))


class FrameError(Exception):
    """What the peer sent is no conversation. code: what to close with (section 7.4.1)."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Message(NamedTuple):
    """A whole message, a ping, a pong or a close. kind: an opcode. data: text, bytes, or the code of a close."""

    kind: int
    data: Union[str, bytes, int]


def accept(key: str) -> str:
    """What answers a client's Sec-WebSocket-Key. Raises ValueError where it is none."""
    if len(base64.b64decode(key.encode("ascii"), validate=True)) != 16:
        raise ValueError("not sixteen bytes")
    digest = hashlib.sha1(key.encode("ascii") + _MAGIC).digest()  # noqa: S324 - RFC 6455 says so; it guards nothing
    return base64.b64encode(digest).decode("ascii")


def encode(opcode: int, payload: bytes) -> bytes:
    """One whole frame as a server sends it."""
    length = len(payload)
    if length < 126:
        return bytes((0x80 | opcode, length)) + payload
    if length < 1 << 16:
        return struct.pack("!BBH", 0x80 | opcode, 126, length) + payload
    return struct.pack("!BBQ", 0x80 | opcode, 127, length) + payload


def closing(code: int, reason: str = "") -> bytes:
    """A close frame; a reason that is too long is cut."""
    return encode(CLOSE, struct.pack("!H", code) + reason.encode("utf-8")[:123].decode("utf-8", "ignore").encode())


class Frames:
    """Bytes in, messages out. limit: the most bytes that a message may have."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._opcode: Optional[int] = None
        self._parts: List[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> List[Message]:
        """Take more bytes, in any split. Raises FrameError; after that it is of no more use."""
        self._buffer += data
        found: List[Message] = []
        while True:
            message = self._next()
            if message is None:
                return found
            if message is not _NOTHING_YET:
                found.append(message)

    def _next(self) -> Optional[Message]:
        """One frame's message, _NOTHING_YET for a piece of one, None until more bytes came."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        first, second = buffer[0], buffer[1]
        opcode, final, length, start = first & 0x0F, bool(first & 0x80), second & 0x7F, 2
        self._require_head(first, second, opcode, final, length)
        if length == 126:
            if len(buffer) < 4:
                return None
            (length,), start = struct.unpack_from("!H", buffer, 2), 4
        elif length == 127:
            if len(buffer) < 10:
                return None
            (length,), start = struct.unpack_from("!Q", buffer, 2), 10
        if length + self._size > self._limit and opcode < CLOSE:
            raise FrameError(TOO_BIG, f"a message is over {self._limit} bytes")
        end = start + 4 + length
        if len(buffer) < end:
            return None
        payload = _unmasked(bytes(buffer[start : start + 4]), bytes(buffer[start + 4 : end]))
        del buffer[:end]
        return _control(opcode, payload) if opcode >= CLOSE else self._piece(opcode, final, payload)

    def _require_head(self, first: int, second: int, opcode: int, final: bool, length: int) -> None:
        if first & 0x70:
            raise FrameError(PROTOCOL_ERROR, "a reserved bit is set")
        if not second & 0x80:
            raise FrameError(PROTOCOL_ERROR, "a client's frame is not masked")
        if opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            raise FrameError(PROTOCOL_ERROR, f"the opcode {opcode} is reserved")
        if opcode >= CLOSE and (not final or length > 125):
            raise FrameError(PROTOCOL_ERROR, "a control frame is in pieces or over 125 bytes")
        if opcode < CLOSE and (opcode == CONTINUATION) != (self._opcode is not None):
            raise FrameError(PROTOCOL_ERROR, "a continuation of nothing, or a new message within another")

    def _piece(self, opcode: int, final: bool, payload: bytes) -> Message:
        if self._opcode is None:
            self._opcode = opcode
        self._parts.append(payload)
        self._size += len(payload)
        if not final:
            return _NOTHING_YET
        kind, whole = self._opcode, b"".join(self._parts)
        self._opcode, self._parts, self._size = None, [], 0
        return Message(kind, _text(whole) if kind == TEXT else whole)


_NOTHING_YET = Message(CONTINUATION, b"")


def _control(opcode: int, payload: bytes) -> Message:
    if opcode != CLOSE:
        return Message(opcode, payload)
    if not payload:
        return Message(CLOSE, _NO_STATUS)
    if len(payload) == 1:
        raise FrameError(PROTOCOL_ERROR, "a close of one byte")
    (code,) = struct.unpack_from("!H", payload)
    if code not in _CODES and not 3000 <= code < 5000:
        raise FrameError(PROTOCOL_ERROR, f"the close code {code} may not be sent")
    _text(payload[2:])
    return Message(CLOSE, code)


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise FrameError(INVALID_DATA, "text that is not UTF-8") from None


def _unmasked(mask: bytes, data: bytes) -> bytes:
    length = len(data)
    whole = (mask * (length // 4 + 1))[:length]
    return (int.from_bytes(data, "little") ^ int.from_bytes(whole, "little")).to_bytes(length, "little")
