"""The model under load, by version: it writes down each call before it answers, and what it owes for each request.

An answer holds the version of the code that gave it, the request's id and a text that only this id has, so that an
answer from other code, of another request or with a byte changed is told apart.
"""

from __future__ import annotations

import hashlib
import json

# Appends the id of each call, in one write, to a file that outlives its worker. A stream lasts two seconds.
SOURCE = """VERSION = "{version:05}"
{more}
import asyncio
import os

import sandbox


class Records(sandbox.Model):
    def load(self):
        {load}
        self.ran = os.open(self.data_dir / "ran.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    async def predict(self, id: str, text: str, wait: float) -> str:
        os.write(self.ran, f"{{id}} {{VERSION}}\\n".encode())
        {call}
        await asyncio.sleep(wait)
        return f"{{VERSION}}:{{id}}:{{text}}"

    async def chat(self, messages):
        id = messages[0]["content"]
        os.write(self.ran, f"{{id}} {{VERSION}}\\n".encode())
        for piece in range({pieces}):
            await asyncio.sleep({seconds} / {pieces})
            yield f"{{VERSION}}:{{id}}:{{piece}};"
"""
NAME = "records"
STREAM_SECONDS = 2.0
PIECES = 10


def source(version: int, *, load: str = "pass", call: str = "pass", more: str = "") -> str:
    """main.py. load, call: a statement of `load()` and of `predict`; more: lines at the top. All have one size."""
    return SOURCE.format(version=version, load=load, call=call, more=more, pieces=PIECES, seconds=STREAM_SECONDS)


def text(request: str, size: int) -> str:
    """The text that goes there and back: `size` characters that no other request has."""
    digest = hashlib.sha256(request.encode()).hexdigest()
    return (digest * (size // len(digest) + 1))[:size]


def asked(request: str, size: int, wait: float) -> bytes:
    """The body of a predict."""
    return json.dumps({"id": request, "text": text(request, size), "wait": wait}).encode()


def asked_stream(request: str) -> bytes:
    """The body of a chat."""
    messages = [{"role": "user", "content": request}]
    return json.dumps({"model": NAME, "stream": True, "messages": messages}).encode()


def version_of(body: bytes, request: str, size: int) -> int:
    """The version that gave this answer. Raises ValueError where one byte of the prediction is not as it has to be."""
    head, mark, rest = body.partition(b'"prediction":"')
    version = int(rest[:5])
    owed = f'{version:05}:{request}:{text(request, size)}"'.encode()
    whole = json.loads(body)
    if (
        not mark
        or not rest.startswith(owed)
        or whole["request_id"] != request
        or not head.startswith(b'{"success":true')
    ):
        raise ValueError(f"the answer is not the one of {request}: {body[:200]!r}")
    return version


def version_of_stream(body: bytes, request: str) -> int:
    """Likewise, of a whole stream of server-sent events."""
    events = [line.removeprefix(b"data: ") for line in body.split(b"\n") if line.startswith(b"data: ")]
    if events[-1:] != [b"[DONE]"]:
        raise ValueError(f"the stream of {request} has no end: {body[-200:]!r}")
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events[:-1] if b'"delta"' in event]
    said = "".join(delta.get("content") or "" for delta in deltas)
    version = int(said[:5])
    if said != "".join(f"{version:05}:{request}:{piece};" for piece in range(PIECES)):
        raise ValueError(f"the stream is not the one of {request}: {said!r}")
    return version
