"""What the management API is asked, read and checked, and the forms of its answers. It knows no call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from aiohttp import web

from orchestrator.errors import EXIT_USAGE, SandboxError

Json = Mapping[str, Any]
Item = TypeVar("Item")


async def json_lines(request: web.Request) -> web.StreamResponse:
    """Begin an answer of one JSON object per line."""
    response = web.StreamResponse(headers={"Content-Type": "application/jsonl"})
    await response.prepare(request)
    return response


async def write(response: web.StreamResponse, entry: Json) -> None:
    """Send one line."""
    await response.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")


async def next_until(queue: asyncio.Queue[Item], end: asyncio.Future[Any]) -> Item | None:
    """Wait for the queue's next item; None where `end` is done first. Nothing waits on once the caller is cancelled."""
    getting = asyncio.ensure_future(queue.get())
    try:
        await asyncio.wait([getting, end], return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not getting.done():
            getting.cancel()
    return getting.result() if getting.done() and not getting.cancelled() else None


async def body(request: web.Request) -> Json:
    """Return the request's JSON object, {} where it has none. Raises SandboxError("usage"), as the next three do."""
    if not request.can_read_body:
        return {}
    try:
        found = await request.json()
    except ValueError as error:
        raise SandboxError("usage", "the request's body is not JSON") from error
    if not isinstance(found, dict):
        raise SandboxError("usage", "the request's body is not a JSON object")
    return found


def names(asked: Json, key: str) -> tuple[str, ...]:
    """Return the list of names under `key`, () where there is none."""
    found = asked.get(key) or ()
    if not isinstance(found, list | tuple) or not all(isinstance(each, str) for each in found):
        raise SandboxError("usage", f"{key}: expected a list of names")
    return tuple(found)


def number(value: object) -> int | None:
    """Return a generation's number, None for None."""
    try:
        return None if value is None else int(str(value))
    except ValueError as error:
        raise SandboxError("usage", f"{value!r} is no generation", hint="as in 3") from error


def seconds(text: str) -> float:
    """Return a duration in seconds."""
    try:
        return float(text)
    except ValueError as error:
        raise SandboxError("usage", f"{text!r} are no seconds", hint="as in 10 or 0.5") from error


def duration(asked: Json, key: str) -> float | None:
    """Return the seconds under `key`, None where there are none."""
    return None if asked.get(key) is None else seconds(str(asked[key]))


def query_names(request: web.Request) -> tuple[str, ...]:
    """Return the models that the query names: `?models=a,b`."""
    return tuple(each for each in request.query.get("models", "").split(",") if each)


def error_json(error: SandboxError) -> Json:
    """Return an error as the API writes it."""
    return {"reference": error.reference, "message": error.message, "hint": error.hint, "at": error.at}


@web.middleware
async def errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer our errors as JSON with a status that says whose fault it is."""
    try:
        return await handler(request)
    except SandboxError as error:
        status = 400 if error.exit_code == EXIT_USAGE else 500
        return web.json_response({"error": error_json(error)}, status=status)
