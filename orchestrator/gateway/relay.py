"""A worker's answer to the client: headers that may pass, bytes as they come, an abort where they stop short."""

from __future__ import annotations

import asyncio
import socket
import struct

from aiohttp import hdrs, web

from orchestrator.gateway.answers import Head
from orchestrator.gateway.forward import Answer
from orchestrator.gateway.server import SERVER
from orchestrator.gateway.upstream import Died

# An answer up to this is read whole before the client sees any of it: its failure is then an honest status.
WHOLE = 64 * 1024


class Cut(Exception):  # noqa: N818 (the end of an answer that had begun)
    """The answer had begun and could not be finished; the client's connection is aborted."""


async def relay(
    request: web.BaseRequest, answer: Answer, headers: dict[str, str], patience: float
) -> web.StreamResponse:
    """Write the answer to the client. headers: the gateway's own. patience: seconds that a client may not read.

    Raises Refusal where nothing was written yet, Cut where the answer had begun.
    """
    if request.method == hdrs.METH_HEAD:
        bare = web.Response(status=answer.head.status)
        _copy(answer.head, bare, headers)
        return bare
    length = answer.head.length
    if length is not None and length <= WHOLE and not answer.head.streams:
        body = await answer.whole()
        short = web.Response(status=answer.head.status, body=body)
        _copy(answer.head, short, headers)
        return short
    response = web.StreamResponse(status=answer.head.status)
    _copy(answer.head, response, headers)
    if answer.head.streams:
        response.headers.setdefault(hdrs.CACHE_CONTROL, "no-cache")
        response.headers.setdefault("X-Accel-Buffering", "no")
    if length is not None:
        response.content_length = length
    await response.prepare(request)
    try:
        while chunk := await answer.read():
            async with asyncio.timeout(patience):
                await response.write(chunk)
    except (Died, TimeoutError) as error:
        abort(request)
        raise Cut(str(error) or "a deadline passed") from error
    await response.write_eof()
    return response


def abort(request: web.BaseRequest) -> None:
    """End the client's connection so that it cannot take what it has for a whole answer."""
    transport = request.transport
    if transport is None:
        return
    if request.version < (1, 1):
        # Where only the connection's end delimits a body, a clean close would look whole: reset instead.
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _copy(head: Head, response: web.StreamResponse, headers: dict[str, str]) -> None:
    for name, value in head.fields():
        response.headers.add(name.title(), value)
    response.headers.update(headers)
    response.headers[hdrs.SERVER] = SERVER
