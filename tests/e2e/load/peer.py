"""The model of the load as a server of its own, for a peer that only restarts what it runs. Standard library alone.

It does what a careful author does: it finishes its requests before it goes, and goes at once when it has none.
"""

import asyncio
import json
import os
import signal

from version import VERSION

PIECES, SECONDS = 10, 2.0
RAN = os.open("/ran/ran.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
busy: set[asyncio.Task] = set()
idle: set[asyncio.StreamWriter] = set()
ending = asyncio.Event()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    task = asyncio.current_task()
    try:
        keeps = True
        while keeps and not ending.is_set():
            idle.add(writer)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            idle.discard(writer)
            busy.add(task)
            keeps = await answer(head, reader, writer)
            await writer.drain()
            busy.discard(task)
    except (OSError, asyncio.IncompleteReadError):
        pass  # the client left
    finally:
        idle.discard(writer)
        busy.discard(task)
        writer.close()


async def answer(lines: list[str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Answer one request; whether the connection is kept."""
    _, path, version = lines[0].split()
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    if headers.get("expect"):
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = json.loads(await reader.readexactly(int(headers["content-length"])))
    keeps = version == "HTTP/1.1" and not ending.is_set()
    closing = "" if keeps else "Connection: close\r\n"
    if path.startswith("/v1/"):
        writer.write(f"HTTP/1.1 200 OK\r\n{closing}Transfer-Encoding: chunked\r\n\r\n".encode())
        await stream(body["messages"][0]["content"], writer)
        return keeps
    wrote(body["id"])
    await asyncio.sleep(body["wait"])
    said = {"prediction": f"{VERSION}:{body['id']}:{body['text']}"}
    whole = {"success": True, "data": said, "request_id": body["id"]}
    data = json.dumps(whole, separators=(",", ":")).encode()
    writer.write(f"HTTP/1.1 200 OK\r\n{closing}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return keeps


async def stream(name: str, writer: asyncio.StreamWriter) -> None:
    wrote(name)
    for piece in range(PIECES):
        await asyncio.sleep(SECONDS / PIECES)
        event(writer, json.dumps({"choices": [{"delta": {"content": f"{VERSION}:{name}:{piece};"}}]}))
    event(writer, "[DONE]")
    writer.write(b"0\r\n\r\n")


def event(writer: asyncio.StreamWriter, data: str) -> None:
    text = f"data: {data}\n\n".encode()
    writer.write(b"%x\r\n%b\r\n" % (len(text), text))


def wrote(name: str) -> None:
    os.write(RAN, f"{name} {VERSION}\n".encode())


async def main() -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    server = await asyncio.start_server(serve, "0.0.0.0", 8000, limit=4 * 1024 * 1024)
    await ending.wait()
    server.close()
    for writer in list(idle):
        writer.close()
    if busy:
        await asyncio.wait(busy, timeout=5)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
