"""A request's head from its bytes (RFC 9112), strictly: what two parsers could read differently is refused by name.

No sockets, no policy. The grammar is checked whole before anything is read out of it, so there is no second opinion.
"""

from __future__ import annotations

import re

from orchestrator.gateway.envelope import Refusal

# Bytes of a whole head; of its request line and of each field; and how many fields.
MAX_HEAD = 64 * 1024
MAX_LINE = 8190
MAX_FIELDS = 128

_TCHAR = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_VALUE = rb"[\t\x20-\x7e\x80-\xff]*"
_HEAD = re.compile(rb"%b+ [!-~]+ HTTP/1\.[01]\r\n(?:%b+:%b\r\n)*\r\n" % (_TCHAR, _TCHAR, _VALUE))
_LENGTH = re.compile(r"[0-9]{1,18}")
_BARE_LF = re.compile(rb"(?:^|[^\r])\n")
_TOKEN = re.compile(_TCHAR)

# Why a head is not in the grammar, in the order in which to look.
_FAULTS = (
    (_BARE_LF, "a line ends in a bare LF"),
    (re.compile(rb"\r(?!\n)"), "a CR stands without its LF"),
    (re.compile(rb"\r\n[ \t]"), "a field is folded over two lines"),
    (re.compile(rb"\r\n[^\r\n:]*[ \t]+:"), "a field's name is followed by white space"),
    (re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"), "it holds a control character"),
)


class Head:
    """One request's head. target: as it came, query included. minor: of HTTP/1.x. length: of the body, 0 without one.

    fields: names in lower case, values without the white space around; a repeated field's values joined by ", ".
    """

    __slots__ = ("chunked", "fields", "keep_alive", "length", "method", "minor", "target", "upgrades")

    def __init__(self, method: str, target: str, minor: int, fields: dict[str, str]) -> None:
        self.method = method
        self.target = target
        self.minor = minor
        self.fields = fields
        self.length = _length(fields)
        self.chunked = "transfer-encoding" in fields
        options = [option.strip().lower() for option in fields.get("connection", "").split(",")]
        self.keep_alive = minor == 1 and "close" not in options
        # To anything but a WebSocket (curl and Java offer h2c) an answer in HTTP/1.1 is an answer.
        self.upgrades = "upgrade" in options and fields.get("upgrade", "").strip().lower() == "websocket"

    @property
    def unusual(self) -> bool:
        """Whether this is for the lane that knows all of HTTP."""
        fields = self.fields
        return self.chunked or self.minor == 0 or self.method == "HEAD" or self.upgrades or "expect" in fields


def read_head(data: bytes) -> Head:
    """`data` is one head with its empty line. Raises Refusal(INVALID_REQUEST), to be followed by a close."""
    if _HEAD.fullmatch(data) is None:
        raise malformed(data)
    lines = data[:-4].decode("latin-1").split("\r\n")
    if len(lines) - 1 > MAX_FIELDS or (len(data) > MAX_LINE and max(map(len, lines)) > MAX_LINE):
        raise _refusal(f"a head has at most {MAX_FIELDS} fields, and {MAX_LINE} bytes in each line")
    method, target, version = lines[0].split(" ")
    fields: dict[str, str] = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip(" \t")
        if name not in fields:
            fields[name] = value
        elif name == "host":
            raise _refusal("a request has exactly one Host header")
        elif name == "content-length":
            raise _refusal("a request has at most one Content-Length")
        else:
            fields[name] += f", {value}"
    _require(target, version, fields)
    return Head(method, target, int(version[-1]), fields)


def begun(data: bytes) -> None:
    """Look at a head whose end has not come. Raises Refusal where it can become none, or is too long."""
    if len(data) > MAX_HEAD:
        raise _refusal(f"the head is over {MAX_HEAD} bytes")
    if _TOKEN.match(data) is None or _BARE_LF.search(data) is not None:
        raise malformed(data)


def malformed(data: bytes) -> Refusal:
    """What is wrong with bytes that are no head."""
    why = next((why for pattern, why in _FAULTS if pattern.search(data)), "it is not in HTTP/1.1's grammar")
    return _refusal("this is not a valid HTTP request", why)


def _require(target: str, version: str, fields: dict[str, str]) -> None:
    """What the grammar allows and we do not: framing with two meanings, and targets that are no path."""
    if "host" not in fields and version == "HTTP/1.1":
        raise _refusal("a request has exactly one Host header")
    coding = fields.get("transfer-encoding")
    if coding is not None and "content-length" in fields:
        raise _refusal("a request has a Content-Length or a Transfer-Encoding, not both")
    if coding is not None and (coding.lower() != "chunked" or version != "HTTP/1.1"):
        raise _refusal("the only transfer coding is chunked, in HTTP/1.1")
    if not target.startswith("/") or "#" in target:
        raise _refusal("the request target must be a path")
    encoding = fields.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise _refusal(f"a body in Content-Encoding {encoding} is not read", "send it plain")


def _length(fields: dict[str, str]) -> int:
    value = fields.get("content-length")
    if value is None:
        return 0
    if _LENGTH.fullmatch(value) is None:
        raise _refusal("Content-Length is a number of at most 18 digits")
    return int(value)


def _refusal(message: str, details: str = "") -> Refusal:
    return Refusal("INVALID_REQUEST", message, details, close=True)
