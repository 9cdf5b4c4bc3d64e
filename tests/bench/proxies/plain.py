"""A reverse proxy as aiohttp's documentation leads one to write it, on uvloop: `python -m … FOLDER PORT`."""

from __future__ import annotations

import asyncio
import sys

import aiohttp
import uvloop
from aiohttp import web


async def serve(folder: str, port: int) -> None:
    names = ("tiny", "large", "events")
    sessions = {
        name: aiohttp.ClientSession(connector=aiohttp.UnixConnector(f"{folder}/{name}.sock", limit=0)) for name in names
    }

    async def proxy(request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        headers = {"Content-Type": request.content_type}
        async with sessions[name].post("http://worker/predict", data=await request.read(), headers=headers) as answer:
            if answer.content_length is not None and answer.content_length <= 65536:
                return web.Response(status=answer.status, body=await answer.read(), content_type=answer.content_type)
            response = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.content_type})
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response

    app = web.Application()
    app.router.add_post("/models/{name}/predict", proxy)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], int(sys.argv[2])))
