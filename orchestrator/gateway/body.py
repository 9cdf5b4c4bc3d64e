"""Reading a client's body: how much, how fast, and when to stop. It knows the client's side only."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestPayloadError

from orchestrator.gateway.envelope import Refusal

# A request is claimed once its body is complete or past this, so that a slow upload pins no old generation.
CLAIM_AFTER = 64 * 1024


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds. head: from a head's first byte to its last. body: of silence within a body. write: of a client that
    does not read. sync: what a request waits for a gateway that was not told its models yet. idle: between requests.
    """

    head: float = 10.0
    body: float = 30.0
    write: float = 60.0
    sync: float = 10.0
    idle: float = 3600.0


class Body:
    """One request's body. length: as declared, None where it is chunked."""

    def __init__(self, request: web.BaseRequest, limit: int, idle: float) -> None:
        self._request = request
        self._content = request.content
        self._limit = limit
        self._idle = idle
        self._seen = 0
        self.length = None if hdrs.TRANSFER_ENCODING in request.headers else (request.content_length or 0)
        if self.length is not None and self.length > limit:
            raise too_large(limit)

    async def invite(self) -> None:
        """Send 100 Continue where the client waits for it: policy has passed. Raises Refusal(INVALID_REQUEST)."""
        expect = self._request.headers.get(hdrs.EXPECT)
        if expect is None or self._request.version < (1, 1):
            return
        if expect.lower() != "100-continue":
            raise Refusal("INVALID_REQUEST", f"cannot meet Expect: {expect}", "only 100-continue is known", close=True)
        transport = self._request.transport
        if transport is not None and not self._content.is_eof():
            transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def first(self) -> tuple[bytes, bool]:
        """The body up to CLAIM_AFTER bytes or a little more, and whether that is all of it."""
        chunks: list[bytes] = []
        while self._seen <= CLAIM_AFTER:
            chunk = await self._more()
            if not chunk:
                return b"".join(chunks), True
            chunks.append(chunk)
        return b"".join(chunks), self._content.at_eof()

    async def rest(self) -> AsyncIterator[bytes]:
        """What is left."""
        while chunk := await self._more():
            yield chunk

    async def whole(self) -> bytes:
        """All of it."""
        chunks = []
        while chunk := await self._more():
            chunks.append(chunk)
        return b"".join(chunks)

    async def _more(self) -> bytes:
        """Raises Refusal(PAYLOAD_TOO_LARGE | REQUEST_TIMEOUT | INVALID_REQUEST)."""
        if self._content.at_eof():
            return b""
        try:
            async with asyncio.timeout(self._idle):
                chunk = await self._content.readany()
        except TimeoutError as late:
            raise Refusal("REQUEST_TIMEOUT", f"nothing of the body came for {self._idle:g} s", close=True) from late
        except (RequestPayloadError, HttpProcessingError) as error:
            raise Refusal("INVALID_REQUEST", "the body's framing is broken", str(error), close=True) from error
        self._seen += len(chunk)
        if self._seen > self._limit:
            raise too_large(self._limit)
        return chunk


def model_of(body: bytes) -> str:
    """The `model` that a body of OpenAI's names. Raises Refusal(INVALID_REQUEST)."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal("INVALID_REQUEST", "the body is not JSON", str(error)) from error
    model = asked.get("model") if isinstance(asked, dict) else None
    if not isinstance(model, str) or not model:
        raise Refusal("INVALID_REQUEST", "the body must be an object with a `model`", "model: a name of GET /v1/models")
    return model


def too_large(limit: int) -> Refusal:
    """A body over `limit` bytes."""
    message = f"the body is over {limit} bytes"
    return Refusal("PAYLOAD_TOO_LARGE", message, "gateway.max_body in sandbox.yaml sets the limit", close=True)
