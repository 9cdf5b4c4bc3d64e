"""The control process: the composition root, the only place that names concrete adapters.

Started by the keeper as `python -m orchestrator.app control`, with its orders in the environment (docs/internals.md).
It exits with 0 once a `down` is finished, and with 1 on everything else; then the keeper starts it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from orchestrator import folders, guest
from orchestrator.control.front import Front
from orchestrator.control.generations import Generations
from orchestrator.control.handover import Handover
from orchestrator.control.history import History
from orchestrator.control.journal import Journal
from orchestrator.control.learned import Learned
from orchestrator.control.logs import Logs
from orchestrator.control.meters import Meters
from orchestrator.control.reconciler import DRAIN_AT_DOWN, Reconciler
from orchestrator.control.server import Server
from orchestrator.control.standing import Standing
from orchestrator.control.traffic import GatewayFeed
from orchestrator.control.verbs import Verbs
from orchestrator.control.watcher import Watcher
from orchestrator.control.world import World
from orchestrator.errors import EXIT_FAILURE, SandboxError
from orchestrator.plan.overlay import Overlay
from orchestrator.plan.types import Desired, RuntimeKind
from orchestrator.ports import Runtime
from orchestrator.runtimes.docker import DockerRuntime
from orchestrator.runtimes.process import ProcessRuntime
from orchestrator.spec import load, resolve
from orchestrator.store import Store

INTERPRETER_WITHIN = 60.0


class Control:
    """One control process, from its start to its end."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.place = folders.Folders(environ["SANDBOX_PROJECT"])
        self.orders: Mapping[str, Any] = json.loads(environ["SANDBOX_ORDERS"])
        self.listener = int(environ["SANDBOX_LISTENER_FD"])
        self.environ = environ
        self.finished = asyncio.Event()
        self.exit_code = EXIT_FAILURE
        self._fronts: set[asyncio.Task[None]] = set()
        self.suspect: Callable[[str, str], None] | None = None
        self.decisions = folders.read_json(os.path.join(self.place.state, folders.DECISIONS)) or {}
        self.front = Front(self.place.state, self.orders, self.listener)

    async def run(self) -> int:
        """Serve until told to end; returns the exit code."""
        store = Store(os.path.join(self.place.project, "store.db"))
        journal, logs, meters = Journal(store), Logs(self.place.logs), Meters()
        runtimes = self._runtimes()
        traffic = os.path.join(self.place.state, "traffic.sock")
        feed = GatewayFeed(traffic, self.front.policy, self._suspect, self._gateways)
        world = World(
            sandbox_id=self.place.sandbox_id,
            state=self.place.state,
            generations=os.path.join(self.place.project, "generations"),
            guest=await asyncio.to_thread(guest.install, folders.cache_home()),
            runtimes=runtimes,
            traffic=feed,
            journal=journal,
            logs=logs,
            meters=meters,
            standing=Standing(store),
            learned=Learned(store),
        )
        generations = Generations(
            self.place.project, store, allowed=[self.place.directory], read_config=resolve.model_config
        )
        self.auto = await self._auto(runtimes["docker"], journal)
        reader = Reader(self, runtimes, asyncio.get_running_loop())
        watcher = Watcher(lambda message: journal.add("spec", message))
        reconciler = Reconciler(world, generations, watcher, reader.read, self.file())
        history = History(reconciler, generations)
        server = Server(
            reconciler, history, Verbs(reconciler), world, feed, url=lambda: self.front.url, on_down=self._down_finished
        )
        handover = Handover(os.path.join(self.place.state, "handover.sock"), self.listener, lambda: feed.pids)
        copying = asyncio.create_task(logs.run(), name="logs")
        self.suspect = reconciler.suspect
        reconciler.on_desired = lambda desired: self._apply(desired, feed, reconciler, world)
        self._on_signals(reconciler)
        try:
            chosen = {**self.orders, **self.decisions}
            await reconciler.start(chosen.get("profiles") or (), chosen.get("models") or (), Overlay.of(chosen))
            await feed.start()
            handover.start()
            await server.start(self.place.control_socket)
            await self.finished.wait()
        finally:
            copying.cancel()
            await server.close()
            handover.close()
            await reconciler.close()
            await watcher.close()
            await feed.close()
            await asyncio.gather(copying, *(each.close() for each in runtimes.values()), return_exceptions=True)
            logs.remember()
            store.close()
            if self.exit_code == 0:
                _unlink(os.path.join(self.place.state, folders.POLICY))
                _unlink(self.place.control_socket)  # its last act: see keeper.py
        return self.exit_code

    def file(self) -> str:
        """The sandbox.yaml that was asked for."""
        return str(self.orders["file"])

    def overrides(self) -> list[str] | None:
        """The files to lay over it; None: its own sandbox.override.yaml."""
        return self.orders.get("overrides")

    def _gateways(self) -> set[int]:
        """The living gateways, by the keeper's record: one that an earlier control left may not be back yet."""
        recorded = (folders.read_json(self.place.keeper_record) or {}).get("gateways") or ()
        return {each["pid"] for each in recorded if folders.living(each)}

    def _runtimes(self) -> dict[RuntimeKind, Runtime]:
        place = (self.place.sandbox_id, self.place.directory, self.place.state, folders.cache_home())
        return {"docker": DockerRuntime(*place), "process": ProcessRuntime(*place)}

    async def _auto(self, docker: Runtime, journal: Journal) -> RuntimeKind:
        """Decide what `runtime: auto` means, once for a sandbox's life; one line says why it is not docker."""
        if self.decisions.get("auto") in {"docker", "process"}:
            return cast("RuntimeKind", self.decisions["auto"])
        try:
            await docker.check()
        except SandboxError as error:
            journal.add("spec", f"runtime: process ({error.message})", runtime="process", reason=error.message)
            return "process"
        return "docker"

    def _apply(self, desired: Desired, feed: GatewayFeed, reconciler: Reconciler, world: World) -> None:
        decided = {"auto": self.auto, "profiles": reconciler.profiles, "models": reconciler.selected}
        decided |= reconciler.overlay.as_json()
        try:
            folders.write_json(os.path.join(self.place.state, folders.DECISIONS), decided)
        except OSError as error:
            reconciler.tell(f"what was decided is not kept: {error}")
        task = asyncio.create_task(self.front.apply(desired.gateway, feed, world.journal, world.meters))
        self._fronts.add(task)
        task.add_done_callback(self._fronts.discard)

    def _suspect(self, model: str, upstream: str) -> None:
        if self.suspect is not None:
            self.suspect(model, upstream)

    def _down_finished(self) -> None:
        self.exit_code = 0
        self.finished.set()

    def _on_signals(self, reconciler: Reconciler) -> None:
        loop = asyncio.get_running_loop()

        def take_down() -> None:
            task = asyncio.create_task(reconciler.down(DRAIN_AT_DOWN))
            task.add_done_callback(lambda done: self.finished.set() if done.exception() else self._down_finished())
            loop.remove_signal_handler(signal.SIGTERM)

        loop.add_signal_handler(signal.SIGTERM, take_down)


class Reader:
    """Reads the files into a Desired, in a thread; what it must ask of a runtime it asks in the event loop."""

    def __init__(
        self, control: Control, runtimes: Mapping[RuntimeKind, Runtime], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._control = control
        self._runtimes = runtimes
        self._loop = loop

    def read(self, profiles: Sequence[str], models: Sequence[str]) -> Desired:
        """See reconciler.Read."""
        project = load.load(self._control.file(), self._control.environ, self._control.overrides())
        return resolve.resolve(
            project, profiles=profiles, models=models, runtime=self._control.auto, interpreter=self._interpreter
        )

    def _interpreter(self, kind: RuntimeKind, python: str) -> str:
        asked = asyncio.run_coroutine_threadsafe(self._runtimes[kind].interpreter(python), self._loop)
        try:
            return asked.result(INTERPRETER_WITHIN)
        except TimeoutError as error:
            asked.cancel()
            message = f"{kind}: Python {python or '(the default)'} was not there within {INTERPRETER_WITHIN:g} s"
            hint = "where its image is being pulled, try again once it is" if kind == "docker" else ""
            raise SandboxError("no-python", message, hint=hint) from error


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def _of_system(error: OSError) -> SandboxError:
    """What the system refused, as one of our errors."""
    full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    hint = (
        "free some space; sandbox doctor says where, and how much is free" if full else "sandbox doctor looks for more"
    )
    where = f" ({error.filename})" if error.filename else ""
    return SandboxError("disk-full" if full else "control", f"{error.strerror}{where}", hint=hint)


def main() -> None:
    """Run control; what cannot be told over its socket goes to its log."""
    try:
        code = asyncio.run(Control(os.environ).run())
    except (SandboxError, OSError) as trouble:
        error = trouble if isinstance(trouble, SandboxError) else _of_system(trouble)
        with contextlib.suppress(OSError):  # its log may be on the disk that is full
            print(f"control: {error}", file=sys.stderr, flush=True)
        refusal = {"reference": error.reference, "message": error.message, "hint": error.hint, "at": error.at}
        folders.write_json(os.path.join(os.environ["SANDBOX_STATE"], folders.REFUSAL), {"error": refusal})
        code = EXIT_FAILURE
    sys.exit(code)


if __name__ == "__main__":
    main()
