"""One request from its head to its answer: policy, path, body, model, answer, figures. It knows no file and no feed.

1. Before control has told the models, requests wait (probes do not).
2. Head and policy: strict HTTP, Host, Origin, path and method, rate limit.
3. The gateway's own pages are answered; for a model the body is read, the call forwarded, the answer relayed.
4. Whatever is refused is answered in the form that the path speaks.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, assert_never

from aiohttp import hdrs, web

from orchestrator.gateway import browser, cors, envelope, openapi, paths
from orchestrator.gateway.admission import Admission, Asked
from orchestrator.gateway.answers import Head
from orchestrator.gateway.body import Body, Deadlines, model_of
from orchestrator.gateway.envelope import Refusal
from orchestrator.gateway.forward import Call, Forwarder
from orchestrator.gateway.journal import Entry, Journal
from orchestrator.gateway.keys import API_KEY, AUTHORIZATION, Key
from orchestrator.gateway.metrics import CLIENT_LEFT, Recorder
from orchestrator.gateway.pages import Pages
from orchestrator.gateway.paths import Endpoint, Kind
from orchestrator.gateway.policy import Policy, mark_of, mark_of_key
from orchestrator.gateway.pool import Pool
from orchestrator.gateway.relay import Cut, relay
from orchestrator.gateway.routes import Routes
from orchestrator.gateway.server import SERVER, require_head
from orchestrator.gateway.ticket import PASSED, PREFLIGHT
from orchestrator.gateway.upstream import request_head
from orchestrator.gateway.wire import refused_body
from orchestrator.ports import Upstream

# Requests that wait for the first `sync`.
MAX_EARLY = 1000
# Of a request to an application: what is about this hop, or ours to say.
_OWN = frozenset(
    {
        *("host", "connection", "keep-alive", "proxy-authorization", "proxy-connection", "te", "trailer", "upgrade"),
        *("transfer-encoding", "content-length", "expect", "x-request-id", "x-sandbox-client", "x-forwarded-for"),
        *("x-forwarded-proto", "x-forwarded-host", "forwarded"),
    }
)

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Visit:
    """One request's story as it unfolds: its entry in the journal, its key, and its answer's headers."""

    request: web.BaseRequest
    entry: Entry
    started: float
    counted: bool = True
    key: Key | None = None
    carrier: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def mark(self) -> str:
        """Who the client is, for a worker's fair queue."""
        return (mark_of(self.request.remote) if self.key is None else mark_of_key(self.key)).decode()

    def sees(self, model: str) -> bool:
        """Whether a list shows this model."""
        return self.key is None or self.key.sees(model)


class Gateway:
    """The data plane of one process. `respond` is what the server calls for each request."""

    def __init__(
        self,
        *,
        state: str | None = None,
        deadlines: Deadlines | None = None,
        suspect: Callable[[str, Upstream], None] = lambda _model, _upstream: None,
    ) -> None:
        self.routes = Routes()
        self.pool = Pool()
        self.recorder = Recorder()
        self.deadlines = deadlines or Deadlines()
        self.admission = Admission()
        self.forwarder = Forwarder(self.routes, self.pool, self.recorder, suspect)
        self.journal = Journal(self.recorder, self.routes)
        self._early = 0
        self._pages = Pages(self.routes, self.recorder, state)

    def use(self, policy: Policy) -> None:
        """Take new settings, between two requests."""
        self.admission.use(policy)
        self.journal.writes = policy.access_log

    async def respond(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; never raises but for a client that left."""
        loop = asyncio.get_running_loop()
        rid = envelope.request_id(request.headers.get("X-Request-ID"))
        visit = _Visit(request, Entry(rid, request.method, request.raw_path, request.remote), loop.time())
        visit.headers["X-Request-ID"] = visit.entry.id
        code = CLIENT_LEFT
        try:
            response = await self._answer(visit)
            code = response.status
        except Refusal as refusal:
            response = _refused(visit, refusal)
            code = refusal.status
        except Cut as cut:
            code = 502
            _logger.debug("%s: answer cut: %s", visit.entry.id, cut)
            raise ConnectionError(str(cut)) from cut
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            _logger.exception("request %s failed", visit.entry.id)
            response = _refused(visit, Refusal("INTERNAL_ERROR", "the gateway failed", "see its log"))
            code = response.status
        finally:
            self.journal.over(visit.entry, code, loop.time() - visit.started, counted=visit.counted)
        if response.prepared:
            return response
        if not request.content.is_eof():
            response.force_close()
        return response

    async def _answer(self, visit: _Visit) -> web.StreamResponse:
        request = visit.request
        require_head(request)
        method, path = request.method, request.raw_path.partition("?")[0]
        if path in ("/health", "/ready"):
            visit.counted = False
        if path != "/health" and not self.routes.synced.is_set():
            await self._first_sync()
        host, origin = request.headers.get(hdrs.HOST, ""), _joined(request, hdrs.ORIGIN)
        visit.headers.update(cors.fields(self.admission.policy.origins, origin))
        told = (_joined(request, name) for name in (AUTHORIZATION, API_KEY, PREFLIGHT))
        admitted = self.admission.judge(Asked(method, request.raw_path, host, origin, *told))
        endpoint, visit.entry.model = admitted.endpoint, admitted.model
        visit.key, visit.carrier = admitted.key, admitted.carrier
        visit.entry.key = visit.key.name if visit.key is not None else ""
        visit.entry.route, visit.counted = endpoint.path, endpoint.counted
        lines = self.admission.count(endpoint, request.remote, visit.started, visit.key).decode()
        visit.headers.update((name, value) for name, _, value in (line.partition(": ") for line in lines.splitlines()))
        return await self._page(visit, endpoint)

    async def _page(self, visit: _Visit, endpoint: Endpoint) -> web.StreamResponse:
        pages = self._pages
        match endpoint.kind:
            case Kind.INDEX:
                return _ok(visit, envelope.success(pages.index(visit.sees), visit.entry.id))
            case Kind.HEALTH:
                return _ok(visit, envelope.success(pages.health(), visit.entry.id))
            case Kind.READY:
                return _ok(visit, envelope.success(pages.ready(), visit.entry.id))
            case Kind.METRICS:
                body, content_type = await pages.metrics(visit.request.headers.getall(hdrs.ACCEPT, []))
                return _ok(visit, body, content_type)
            case Kind.MODELS:
                return _ok(visit, json.dumps(pages.models(visit.sees)).encode())
            case Kind.MODEL:
                return _ok(visit, json.dumps(pages.model(visit.entry.model)).encode())
            case Kind.INFO:
                return _ok(visit, envelope.success(pages.info(visit.entry.model), visit.entry.id))
            case Kind.WORKER:
                self.routes.route(visit.entry.model)  # an unknown model is refused before its body is read
                return await self._model(visit, await self._call_by_path(visit, endpoint))
            case Kind.VERSION:
                pages.require_version(visit.entry.model, paths.version(visit.request.raw_path))
                return await self._model(visit, await self._call_by_path(visit, endpoint))
            case Kind.APP:
                pages.require_app(visit.entry.model)
                return await self._model(visit, await self._call_app(visit))
            case Kind.WEBSOCKET:
                self.routes.route(visit.entry.model)
                raise Refusal("INVALID_REQUEST", "this path speaks WebSocket", "send Upgrade: websocket (RFC 6455)")
            case Kind.OPENAPI:
                return _ok(visit, json.dumps(self._document(visit)).encode())
            case Kind.DOCS:
                return _ok(visit, browser.page(), "text/html; charset=utf-8")
            case Kind.V2_SERVER:
                return _ok(visit, json.dumps(pages.v2_server()).encode())
            case Kind.V2_LIVE:
                return _ok(visit, b'{"live":true}')
            case Kind.V2_READY:
                pages.ready()
                return _ok(visit, b'{"ready":true}')
            case Kind.V2_MODEL_READY:
                name = visit.entry.model
                return _ok(visit, json.dumps(pages.v2_ready(name, paths.version(visit.request.raw_path))).encode())
            case Kind.V2_INDEX:
                return _ok(
                    visit, json.dumps(pages.v2_index(await (await self._body(visit)).whole(), visit.sees)).encode()
                )
            case Kind.V2_LOAD:
                await (await self._body(visit)).whole()
                pages.v2_load(visit.entry.model)
                return _ok(visit, b"{}")
            case Kind.V2_UNLOAD:
                await (await self._body(visit)).whole()
                raise pages.v2_unload(visit.entry.model)
            case Kind.PREFLIGHT:
                told = cors.preflight(_joined(visit.request, "Access-Control-Request-Headers"))
                return web.Response(status=204, headers={**visit.headers, **told, hdrs.SERVER: SERVER})
            case Kind.WORKER_BY_BODY:
                return await self._model(visit, await self._call_by_body(visit, endpoint))
            case _:
                assert_never(endpoint.kind)

    def _document(self, visit: _Visit) -> dict[str, Any]:
        seen = {name: route for name, route in self.routes.models.items() if visit.sees(name)}
        return openapi.document(seen, keyed=bool(self.admission.policy.keys))

    async def _call_by_path(self, visit: _Visit, endpoint: Endpoint) -> Call:
        body = await self._body(visit)
        if endpoint.methods != ("POST",):
            return Call(request_head("GET", endpoint.upstream, _forwarded(visit)))
        data, whole = await body.first()
        if whole:
            return _call(visit, endpoint, data)
        headers = _forwarded(visit)
        if body.length is not None:
            head = request_head("POST", endpoint.upstream, [*headers, (hdrs.CONTENT_LENGTH, str(body.length))])
            return Call(head, data, body.rest())
        head = request_head("POST", endpoint.upstream, [*headers, (hdrs.TRANSFER_ENCODING, "chunked")])
        return Call(head, _chunk(data), _chunked(body.rest()))

    async def _call_app(self, visit: _Visit) -> Call:
        """The request as the client wrote it, less what is this hop's, at the worker's end of the path."""
        request = visit.request
        method = "GET" if request.method == hdrs.METH_HEAD else request.method
        path = "/" + request.raw_path.split("/", 3)[3]
        named = {token.strip().lower() for token in request.headers.get(hdrs.CONNECTION, "").split(",")}
        headers = [
            (name, value)
            for name, value in request.headers.items()
            if name.lower() not in _OWN and name.lower() not in named and name.lower() != visit.carrier
        ]
        headers += [("X-Request-ID", visit.entry.id), ("X-Sandbox-Client", visit.mark)]
        headers += [("X-Forwarded-For", request.remote or ""), ("X-Forwarded-Proto", request.scheme)]
        data = await (await self._body(visit)).whole()
        if data:
            headers.append((hdrs.CONTENT_LENGTH, str(len(data))))
        return Call(request_head(method, path, headers, request.headers.get(hdrs.HOST, "worker")), data)

    async def _call_by_body(self, visit: _Visit, endpoint: Endpoint) -> Call:
        body = await self._body(visit)
        data = await body.whole()
        visit.entry.model = model_of(data)
        if visit.key is not None:
            visit.key.require_model(visit.entry.model)
        self.routes.route(visit.entry.model)
        return _call(visit, endpoint, data)

    async def _body(self, visit: _Visit) -> Body:
        body = Body(visit.request, self.admission.policy.max_body, self.deadlines.body)
        await body.invite()
        return body

    async def _model(self, visit: _Visit, call: Call) -> web.StreamResponse:
        """Forward a call and relay its answer; in progress from here to its last byte."""
        if visit.counted:
            self.recorder.begin(visit.entry.model)
        try:
            answer = await self.forwarder.call(visit.entry.model, call)
            try:
                visit.headers.update(answer.claim.active.headers)
                visit.entry.generation = answer.claim.active.route.generation
                self._measure(visit, answer.head)
                if "Access-Control-Allow-Origin" in visit.headers:  # ours, not an application's own: it is said once
                    answer.head.drop(b"access-control-allow-origin")
                return await relay(visit.request, answer, visit.headers, self.deadlines.write)
            finally:
                answer.close()
        finally:
            if visit.counted:
                self.recorder.end(visit.entry.model)

    def _measure(self, visit: _Visit, head: Head) -> None:
        if not visit.counted:
            return
        self.recorder.first_byte(visit.entry.model, asyncio.get_running_loop().time() - visit.started)
        self.recorder.queue_wait(visit.entry.model, head.queued)
        self.recorder.batched(visit.entry.model, head.batch)

    async def _first_sync(self) -> None:
        """Wait until control has told the models. Raises Refusal(MODEL_NOT_LOADED | QUEUE_FULL)."""
        if self._early >= MAX_EARLY:
            raise Refusal("QUEUE_FULL", "too many requests wait for the gateway to start", retry_after=1)
        self._early += 1
        try:
            async with asyncio.timeout(self.deadlines.sync):
                await self.routes.synced.wait()
        except TimeoutError as late:
            raise Refusal("MODEL_NOT_LOADED", "the gateway was not told its models yet", retry_after=1) from late
        finally:
            self._early -= 1


def _call(visit: _Visit, endpoint: Endpoint, data: bytes) -> Call:
    headers = [*_forwarded(visit), (hdrs.CONTENT_LENGTH, str(len(data)))]
    return Call(request_head("POST", endpoint.upstream, headers), data)


def _joined(request: web.BaseRequest, name: str) -> str | None:
    """All values of a field as one: what was said twice is not what was said once."""
    values = request.headers.getall(name, [])
    return ", ".join(values) if values else None


def _forwarded(visit: _Visit) -> list[tuple[str, str]]:
    """The client's headers that a worker sees."""
    asked = visit.request.headers
    passed = [(name.title(), ", ".join(asked.getall(name))) for name in PASSED if name in asked]
    return [*passed, ("X-Request-ID", visit.entry.id), ("X-Sandbox-Client", visit.mark)]


async def _chunked(rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for data in rest:
        yield _chunk(data)
    yield b"0\r\n\r\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def _ok(visit: _Visit, body: bytes, content_type: str = "application/json") -> web.Response:
    return _written(visit, 200, body, content_type, {})


def _refused(visit: _Visit, refusal: Refusal) -> web.StreamResponse:
    body = refused_body(refusal, visit.request.raw_path, visit.entry.id)
    response = _written(visit, refusal.status, body, "application/json", refusal.headers)
    if refusal.close:
        response.force_close()
    return response


def _written(visit: _Visit, status: int, body: bytes, content_type: str, headers: dict[str, str]) -> web.Response:
    fixed: dict[str, str] = {hdrs.CONTENT_TYPE: content_type, hdrs.SERVER: SERVER}
    return web.Response(status=status, body=body, headers={**visit.headers, **headers, **fixed})
