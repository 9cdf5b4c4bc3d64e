"""aiohttp's HTTP server with our manners: strict heads, a deadline on each, and our envelope where HTTP is broken."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from aiohttp import StreamReader, hdrs, web
from aiohttp.web_protocol import RequestHandler

from orchestrator.gateway.envelope import Refusal, failure, request_id

SERVER = "model-sandbox"
MAX_HEAD_LINE = 8190
MAX_HEADERS = 128
# How long what a refused client still sends is read and dropped, so that it can read the refusal.
LINGER = 2.0

_logger = logging.getLogger(__name__)

Respond = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Server(web.Server):
    """Makes one Client per connection. head_deadline: seconds from a head's first byte to its last."""

    def __init__(self, respond: Respond, *, head_deadline: float) -> None:
        super().__init__(respond, handler_cancellation=True)
        self.head_deadline = head_deadline

    def __call__(self) -> Client:
        return Client(self, asyncio.get_running_loop())


class Client(RequestHandler):
    """One client's connection."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # general.py logs
            auto_decompress=False,
            max_line_size=MAX_HEAD_LINE,
            max_field_size=MAX_HEAD_LINE,
            max_headers=MAX_HEADERS,
            lingering_time=LINGER,
        )
        self._head_deadline = server.head_deadline
        self._head_timer: asyncio.TimerHandle | None = None
        self._last_body: StreamReader | None = None
        # Told when an answer was written after which the connection can be used again.
        self.answered: Callable[[], None] | None = None

    def data_received(self, data: bytes) -> None:
        between = self._last_body is None or self._last_body.is_eof()
        heads = self._request_count
        super().data_received(data)
        if self._request_count > heads:
            self._stop_timer()
            self._last_body = self._messages[-1][1]
        elif data and between and self._head_timer is None:
            # No body is open and these bytes made no request: a head has begun.
            self._head_timer = self._loop.call_later(self._head_deadline, self._late)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        response, left = await super().finish_response(request, resp, start_time)
        if self.answered is not None and response.keep_alive and not left:
            self._loop.call_soon(self.answered)
        return response, left

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What aiohttp could not parse, or a fault that general.py let through."""
        if isinstance(exc, ConnectionError) or request.writer.output_size > 0:
            raise ConnectionError("the client left, or its answer had begun") from exc
        if status == 400:
            refusal = Refusal("INVALID_REQUEST", "this is not a valid HTTP request", (message or "").strip())
        else:
            _logger.error("a request failed", exc_info=exc)
            refusal = Refusal("INTERNAL_ERROR", "the gateway failed", "see its log")
        rid = request_id(None)
        response = web.Response(status=refusal.status, body=failure(refusal, rid), content_type="application/json")
        response.headers.update({"X-Request-ID": rid, hdrs.SERVER: SERVER})
        response.force_close()
        return response

    def _late(self) -> None:
        self._head_timer = None
        transport = self.transport
        if transport is None:
            return
        if self._current_request is not None or self._messages:
            # The request before this head is still being answered; nothing may come between.
            self._head_timer = self._loop.call_later(self._head_deadline, self._late)
            return
        refusal = Refusal("REQUEST_TIMEOUT", f"the request's head took over {self._head_deadline:g} s")
        rid = request_id(None)
        body = failure(refusal, rid)
        head = (
            f"HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            f"X-Request-ID: {rid}\r\nConnection: close\r\n\r\n"
        )
        transport.write(head.encode() + body)
        self.force_close()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def require_head(request: web.BaseRequest) -> None:
    """What aiohttp's parser lets through and RFC 9112 does not. Raises Refusal(INVALID_REQUEST) with close."""
    headers = request.headers
    if request.version not in ((1, 0), (1, 1)):
        raise Refusal("INVALID_REQUEST", "the only versions are HTTP/1.0 and HTTP/1.1", close=True)
    hosts = headers.getall(hdrs.HOST, [])
    if len(hosts) > 1 or (not hosts and request.version >= (1, 1)):
        raise Refusal("INVALID_REQUEST", "a request has exactly one Host header", close=True)
    if len(headers.getall(hdrs.CONTENT_LENGTH, [])) > 1:
        raise Refusal("INVALID_REQUEST", "a request has at most one Content-Length", close=True)
    codings = headers.getall(hdrs.TRANSFER_ENCODING, [])
    if codings and hdrs.CONTENT_LENGTH in headers:
        raise Refusal("INVALID_REQUEST", "a request has a Content-Length or a Transfer-Encoding, not both", close=True)
    if codings and (len(codings) > 1 or codings[0].strip().lower() != "chunked" or request.version < (1, 1)):
        raise Refusal("INVALID_REQUEST", "the only transfer coding is chunked, in HTTP/1.1", close=True)
    if not request.raw_path.startswith("/") or "#" in request.raw_path:
        raise Refusal("INVALID_REQUEST", "the request target must be a path", close=True)
    coding = headers.get(hdrs.CONTENT_ENCODING, "identity")
    if coding.strip().lower() != "identity":
        raise Refusal(
            "INVALID_REQUEST", f"a body in Content-Encoding {coding} is not read", "send it plain", close=True
        )
