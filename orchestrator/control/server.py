"""The management API on control.sock: an aiohttp app that reads state, asks for changes, and streams what happens."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from aiohttp import web

from orchestrator import folders
from orchestrator.control import exchange, usage
from orchestrator.control.exchange import Json
from orchestrator.control.history import History
from orchestrator.control.logs import Line
from orchestrator.control.preview import preview
from orchestrator.control.reconciler import DRAIN_AT_DOWN, Reconciler
from orchestrator.control.rows import Row, row
from orchestrator.control.scrape import scrape
from orchestrator.control.traffic import GatewayFeed
from orchestrator.control.verbs import Verbs
from orchestrator.control.world import World
from orchestrator.errors import SandboxError
from orchestrator.plan.overlay import Overlay


class Server:
    """Serves one sandbox's management API. on_down is called once everything was taken down."""

    def __init__(
        self,
        reconciler: Reconciler,
        history: History,
        verbs: Verbs,
        world: World,
        feed: GatewayFeed,
        *,
        url: Callable[[], str],
        on_down: Callable[[], None],
    ) -> None:
        self._reconciler = reconciler
        self._history = history
        self._verbs = verbs
        self._world = world
        self._feed = feed
        self._url = url
        self._on_down = on_down
        self._runner: web.AppRunner | None = None
        self._told_start = False
        self._ending = asyncio.Event()

    async def start(self, path: str) -> None:
        """Listen on `path`, for this user only."""
        app = web.Application(middlewares=[exchange.errors])
        app.add_routes(
            [
                web.get("/api/models", self._models),
                web.get("/api/plan", self._plan),
                web.post("/api/up", self._up),
                web.post("/api/down", self._down),
                web.post("/api/reload", self._reload),
                web.post("/api/{verb:start|stop|restart|kill}", self._verb),
                web.get("/api/generations", self._generations),
                web.post("/api/generations/pin", self._pin),
                web.post("/api/rollback", self._rollback),
                web.get("/api/wait", self._wait),
                web.get("/api/ended", self._ended),
                web.get("/api/events", self._events),
                web.get("/api/logs", self._logs),
                web.get("/api/usage", self._usage),
                web.get("/api/top", self._top),
                web.get("/metrics", self._metrics),
            ]
        )
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
        await self._runner.setup()
        with folders.socket_address(path) as address:
            await web.UnixSite(self._runner, address).start()
            os.chmod(address, 0o600)

    async def close(self) -> None:
        """Stop listening; those who follow are given what is left for them, then let go."""
        self._ending.set()
        if self._runner is not None:
            await self._runner.cleanup()

    # What is

    def _rows(self) -> list[Row]:
        return [row(model, self._url()) for model in self._reconciler.models.values()]

    async def _models(self, _: web.Request) -> web.Response:
        desired, problem = self._reconciler.desired, self._reconciler.spec_problem
        keeper = folders.read_json(os.path.join(self._world.state, "keeper.json"))
        sandbox = {
            "id": self._world.sandbox_id,
            "name": desired.name if desired is not None else None,
            "directory": desired.directory if desired is not None else None,
            "url": self._url(),
            "keeper": keeper["pid"] if keeper is not None and folders.living(keeper) else None,
            "gateway": self._feed.pids,
            "control": os.getpid(),
            "spec_error": exchange.error_json(problem) if problem is not None else None,
            "orphans": self._reconciler.orphans(),
        }
        return web.json_response({"sandbox": sandbox, "models": self._rows()})

    async def _plan(self, _: web.Request) -> web.Response:
        return web.json_response({"actions": await preview(self._reconciler)})

    # What is to be

    async def _up(self, request: web.Request) -> web.StreamResponse:
        asked = await exchange.body(request)
        with self._world.journal.listen() as events:
            profiles, selected = exchange.names(asked, "profiles"), exchange.names(asked, "models")
            reconciler = self._reconciler
            everything = self._told_start and (not selected or not reconciler.selected)
            await reconciler.reread(
                profiles=tuple(dict.fromkeys([*reconciler.profiles, *profiles])),
                selected=() if everything else tuple(dict.fromkeys([*reconciler.selected, *selected])),
                overlay=reconciler.overlay.told(Overlay.of(asked), selected),
            )
            past = [] if self._told_start else self._world.journal.recent()
            self._told_start = True
            if asked.get("remove_orphans"):
                await reconciler.remove_orphans()
            there = {name for name, model in reconciler.models.items() if model.state.replicas}
            await self._verbs.bring_back(selected)
            wanted = list(reconciler.desired.models) if reconciler.desired is not None else []
            again = [name for name in selected or wanted if name in there] if asked.get("force_recreate") else []
            work = asyncio.create_task(self._settled(wanted, again, exchange.duration(asked, "wait_timeout")))
            return await self._follow(request, events, work, past)

    async def _settled(self, names: Sequence[str], again: Sequence[str], seconds: float | None) -> Json:
        """again: those whose replicas are made anew first."""
        failed: list[str] = []
        try:
            async with asyncio.timeout(seconds):
                failed += await self._verbs.renew(again) if again else []
                failed += await self._reconciler.settled(names)
        except TimeoutError:
            failed += [name for name in names if not self._reconciler.models[name].state.answers]
        failed = list(dict.fromkeys(failed))
        return {"type": "settled", "failed": failed, "models": self._rows()}

    async def _reload(self, request: web.Request) -> web.StreamResponse:
        names = exchange.names(await exchange.body(request), "models") or tuple(self._reconciler.models)
        if unknown := [name for name in names if name not in self._reconciler.models]:
            known = ", ".join(self._reconciler.models) or "none"
            raise SandboxError("unknown-model", f"no model named {unknown[0]}", hint=f"there are: {known}")
        with self._world.journal.listen() as events:
            return await self._follow(request, events, asyncio.create_task(self._reloaded(names)))

    async def _reloaded(self, names: Sequence[str]) -> Json:
        failed = await asyncio.gather(*(self._reconciler.reload(name) for name in names))
        return {
            "type": "settled",
            "failed": [name for name, bad in zip(names, failed, strict=True) if bad],
            "models": [each for each in self._rows() if each["name"] in names],
        }

    async def _verb(self, request: web.Request) -> web.StreamResponse:
        asked = await exchange.body(request)
        names, drain = exchange.names(asked, "models"), exchange.duration(asked, "timeout")
        work = self._done(request.match_info["verb"], names, drain)
        with self._world.journal.listen() as events:
            return await self._follow(request, events, asyncio.create_task(work))

    async def _done(self, verb: str, names: Sequence[str], drain: float | None) -> Json:
        match verb:
            case "start":
                failed = await self._verbs.start(names)
            case "stop":
                failed = await self._verbs.stop(names, drain)
            case "restart":
                failed = await self._verbs.restart(names, drain)
            case _:
                failed = await self._verbs.kill(names)
        return {"type": "settled", "failed": failed, "models": self._rows()}

    async def _down(self, request: web.Request) -> web.StreamResponse:
        asked = await exchange.body(request)
        timeout = asked.get("timeout")
        with self._world.journal.listen() as events:
            work = asyncio.create_task(self._taken_down(DRAIN_AT_DOWN if timeout is None else float(timeout), asked))
            work.add_done_callback(lambda done: None if done.exception() else self._on_down())
            return await self._follow(request, events, work)

    async def _taken_down(self, drain: float, asked: Json) -> Json:
        await self._reconciler.down(drain)
        if asked.get("images"):
            await asyncio.gather(*(runtime.remove_images() for runtime in self._world.runtimes.values()))
        return {"type": "done"}

    # Generations

    async def _generations(self, request: web.Request) -> web.Response:
        return web.json_response({"generations": await self._history.listed(request.query.get("model", ""))})

    async def _pin(self, request: web.Request) -> web.Response:
        asked = await exchange.body(request)
        number = exchange.number(asked.get("number"))
        if number is None:
            raise SandboxError("usage", "number: expected a generation's number")
        pinned = asked.get("pinned") is not False
        return web.json_response(await self._history.pin(str(asked.get("model")), number, pinned=pinned))

    async def _rollback(self, request: web.Request) -> web.StreamResponse:
        asked = await exchange.body(request)
        name, number = str(asked.get("model")), exchange.number(asked.get("number"))
        with self._world.journal.listen() as events:
            return await self._follow(request, events, asyncio.create_task(self._rolled_back(name, number)))

    async def _rolled_back(self, name: str, number: int | None) -> Json:
        live = await self._history.roll_back(name, number)
        rows = [each for each in self._rows() if each["name"] == name]
        return {"type": "settled", "failed": [] if live else [name], "models": rows}

    async def _wait(self, request: web.Request) -> web.StreamResponse:
        asked = request.query
        name, wanted = asked.get("model", ""), asked.get("generation", "latest")
        number = None if wanted == "latest" else exchange.number(wanted)
        seconds = exchange.seconds(asked["timeout"]) if "timeout" in asked else None
        self._history.known(name)
        response = await exchange.json_lines(request)  # at once: how long it takes, nobody knows
        try:
            await exchange.write(response, await self._history.wait(name, number, seconds))
        except SandboxError as error:
            await exchange.write(response, {"error": exchange.error_json(error)})
        return response

    async def _ended(self, request: web.Request) -> web.StreamResponse:
        name = request.query.get("model", "")
        self._verbs.known(name)
        response = await exchange.json_lines(request)
        ended, ending = asyncio.create_task(self._verbs.ended(name)), asyncio.create_task(self._ending.wait())
        try:
            await asyncio.wait([ended, ending], return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                await exchange.write(response, {"type": "ended", "model": name, "code": ended.result()})
        finally:
            ended.cancel()
            ending.cancel()
        return response

    # Streams

    async def _follow(
        self,
        request: web.Request,
        events: asyncio.Queue[dict[str, Any]],
        work: asyncio.Task[Json],
        past: Sequence[Json] = (),
    ) -> web.StreamResponse:
        """Stream events until `work` is done, then its result. A caller that leaves does not undo what it asked for."""
        response = await exchange.json_lines(request)
        for event in past:
            await exchange.write(response, event)
        while not work.done() or not events.empty():
            if (news := await exchange.next_until(events, work)) is not None:
                await exchange.write(response, news)
        try:
            await exchange.write(response, work.result())
        except SandboxError as error:
            await exchange.write(response, {"error": exchange.error_json(error)})
        await response.write_eof()
        return response

    async def _events(self, request: web.Request) -> web.StreamResponse:
        models = exchange.query_names(request)
        with self._world.journal.listen() as events:
            past = await asyncio.to_thread(self._world.journal.past, request.query.get("since"), models)
            response = await exchange.json_lines(request)
            for event in past:
                await exchange.write(response, event)
            if request.query.get("follow") == "1":
                async for event in self._each(events):
                    if not models or event["model"] in models:
                        await exchange.write(response, event)
        return response

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        models = exchange.query_names(request) or tuple(self._reconciler.models)
        tail = request.query.get("tail")
        count = int(tail) if tail is not None and tail.isdigit() else None
        with self._world.logs.listen() as lines:
            past = await asyncio.to_thread(self._world.logs.past, models, count, request.query.get("since"))
            response = await exchange.json_lines(request)
            for line in past:
                await exchange.write(response, line)
            if request.query.get("follow") == "1":
                async for line in self._each(lines):
                    if line["model"] in models or not request.query.get("models"):
                        if remark := lines.remark(line):
                            await exchange.write(response, remark)
                        await exchange.write(response, line)
        return response

    async def _each(self, queue: asyncio.Queue[Line]) -> AsyncIterator[Line]:
        ending = asyncio.create_task(self._ending.wait())
        try:
            while True:
                while not queue.empty():
                    yield queue.get_nowait()
                if ending.done():
                    return
                line = await exchange.next_until(queue, ending)
                if line is not None:
                    yield line
        finally:
            ending.cancel()

    async def _usage(self, request: web.Request) -> web.StreamResponse:
        names = exchange.query_names(request) or tuple(self._reconciler.models)
        response = await exchange.json_lines(request)
        async for rows in usage.samples(self._reconciler.models, self._world, names):
            if self._ending.is_set():
                break
            await exchange.write(response, {"type": "usage", "usage": rows})
        return response

    async def _top(self, request: web.Request) -> web.Response:
        names = exchange.query_names(request) or tuple(self._reconciler.models)
        return web.json_response({"processes": await usage.processes(self._reconciler.models, self._world, names)})

    async def _metrics(self, request: web.Request) -> web.Response:
        accept = request.headers.get("Accept", "")
        text, content_type = await scrape(self._reconciler.models, self._world, accept)
        return web.Response(body=text, headers={"Content-Type": content_type})
