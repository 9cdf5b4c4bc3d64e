"""Runs replicas as containers of a Docker engine. What a container is made of is container.py's business."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import docker
from docker.errors import APIError, ImageNotFound, NotFound

from orchestrator.errors import RuntimeFailure, SandboxError
from orchestrator.image.background import in_background
from orchestrator.image.base import Base, Bases
from orchestrator.image.build import ImageBuilder, Order
from orchestrator.image.claims import claim, release
from orchestrator.image.engine import EngineTraits, base_name, check_base, connect, find_socket, refusals
from orchestrator.plan.types import ModelDesired, RuntimeKind
from orchestrator.ports import Environment, Process, Progress, ReplicaExit, ReplicaPlace, ReplicaRecord, Report, Usage
from orchestrator.runtimes import secrets
from orchestrator.runtimes.access import check_access
from orchestrator.runtimes.container import (
    PS_COLUMNS,
    ROOT,
    Blueprint,
    User,
    blueprint,
    process,
    record,
    replica_filter,
    usage,
)
from orchestrator.runtimes.deaths import deaths
from orchestrator.runtimes.networks import Networks
from orchestrator.spec.paths import data_dir

CALLS_AT_ONCE = 16
START_DEADLINE = 30.0
LOG_LINES = 20
SOCKET_POLL = 0.005
STATE_POLL = 0.1
REMOVED_DEADLINE = 10


T = TypeVar("T")


class _Engine:
    """Everything that needs a connection to the engine, made together."""

    def __init__(self, sandbox: str, cache: str) -> None:
        self.socket = find_socket()
        self.client = connect(self.socket, pool=CALLS_AT_ONCE)
        with refusals("describe itself"):
            self.traits = EngineTraits.of(self.client.info())
        self.bases = Bases(self.client)
        self.builder = ImageBuilder(self.client, self.socket, cache)
        self.networks = Networks(self.client, sandbox)


class DockerRuntime:
    """The docker runtime of one sandbox (ports.Runtime).

    project: the project folder, whose owner models run as when root starts them. state: the folder above every
    replica's own. cache: the user's cache folder of this product.
    """

    kind: RuntimeKind = "docker"
    revivable = False

    def __init__(self, sandbox_id: str, project: str, state: str, cache: str) -> None:
        self._sandbox = sandbox_id
        self._project = project
        self._state = os.path.realpath(state)
        self._cache = cache
        self._pool = ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="docker")
        self._connecting = threading.Lock()
        self._connected: _Engine | None = None

    async def check(self) -> None:
        """Return if an engine of this machine can be used and has, or can pull, the base image.

        Raises RuntimeFailure("no-engine").
        """

        def look() -> None:
            try:
                engine = self._engine()
                with refusals("look for the base image"):
                    check_base(engine.client, base_name(""))
            except RuntimeFailure as failure:
                raise RuntimeFailure("no-engine", failure.message, hint=failure.hint) from failure

        await self._call(look)

    async def interpreter(self, python: str) -> str:
        """Identity of the base image for `python`, pulled if need be. Raises SandboxError("no-python")."""
        return await in_background(lambda: self._base(python).identity, "docker pull")

    async def find(self, model: ModelDesired) -> Environment | None:
        """The image of the model's environment, where the engine has it."""

        def look() -> Environment | None:
            base = self._base(model.python)
            return self._engine().builder.find(Order(model.name, model.lock_hash, model.requirements, base))

        return await self._call(look)

    async def prepare(self, model: ModelDesired, report: Report) -> Environment:
        """The image of the model's environment, built at most once per engine. Raises BuildError."""
        loop = asyncio.get_running_loop()

        def tell(progress: Progress) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has closed: nobody listens any more
                loop.call_soon_threadsafe(report, progress)

        def make() -> Environment:
            engine = self._engine()
            base = self._base(model.python, tell)
            order = Order(model.name, model.lock_hash, model.requirements, base)
            environment = engine.builder.build(order, tell)
            claim(engine.client, self._sandbox, environment)
            return environment

        return await in_background(make, f"build {model.name}")

    def data_target(self, model: ModelDesired) -> str | None:
        """The path under which a container sees the model's data folder; None where it has none."""
        return f"{ROOT}/data" if data_dir(model.path) is not None else None

    async def start(self, model: ModelDesired, place: ReplicaPlace, environment: Environment) -> ReplicaRecord:
        """Create and start the container; return once the agent's socket is there.

        Raises RuntimeFailure("start") with the container's last output, RuntimeFailure("engine"),
        SandboxError("path-permission") for a data folder or volume that the container's user cannot use.
        """
        container = await self._call(lambda: self._create(model, place, environment))
        try:
            await self._await_socket(container, os.path.join(place.sockets, "agent.sock"), model.name)
            state = await self._call(lambda: self._inspect(container))
            return _record(state["Config"]["Labels"], container, state["State"])
        except BaseException:
            # Cancelled or failed: nobody will know of this container.
            await asyncio.shield(self._call(lambda: self._remove(container)))
            raise

    async def stop(self, replica: ReplicaRecord, grace: float) -> None:
        """SIGTERM, `grace` seconds, SIGKILL; then container, unused networks and the replica's folder are gone."""

        def end() -> None:
            engine = self._engine()
            with refusals("stop a container"):
                for identity in self._ids(replica):
                    if grace > 0:
                        with contextlib.suppress(NotFound):
                            engine.client.api.stop(identity, timeout=math.ceil(grace))
                    self._remove(identity)
                engine.networks.remove_unused()
            self._remove_folder(replica)

        await self._call(end)

    async def list(self) -> Sequence[ReplicaRecord]:
        """Every replica of this sandbox, dead ones too; what vanishes meanwhile is left out."""

        def look() -> Sequence[ReplicaRecord]:
            engine = self._engine()
            found = []
            with refusals("list containers"):
                for summary in engine.client.api.containers(all=True, filters=replica_filter(self._sandbox)):
                    # The list lags behind the events: a replica told dead must not be alive here.
                    with contextlib.suppress(NotFound):
                        state = engine.client.api.inspect_container(summary["Id"])["State"]
                        # One of another format is another version's: not ours to read or to end.
                        with contextlib.suppress(KeyError):
                            found.append(_record(summary["Labels"], summary["Id"], state))
            return found

        return await self._call(look)

    def exits(self) -> AsyncIterator[ReplicaExit]:
        """Deaths as they happen, those found at the start too; a container that `stop` ends is among them."""
        return deaths(lambda: connect(find_socket()), self._sandbox)

    async def usage(self, replica: ReplicaRecord) -> Usage | None:
        """From one sample of the engine; None once the container is gone or stopped."""

        def sample() -> Usage | None:
            engine = self._engine()
            with refusals("measure a container"):
                try:
                    return usage(engine.client.api.stats(str(replica.container), stream=False, one_shot=True))
                except NotFound:
                    return None

        return await self._call(sample)

    async def processes(self, replica: ReplicaRecord) -> Sequence[Process]:
        """As the engine's `ps` lists them; none once the container is gone or stopped."""

        def look() -> Sequence[Process]:
            api = self._engine().client.api
            with refusals("list processes"):
                try:
                    if not api.inspect_container(str(replica.container))["State"]["Running"]:
                        return []
                    listed = api.top(str(replica.container), ps_args=f"-o {','.join(PS_COLUMNS)}")
                except NotFound:
                    return []
            return [process(row) for row in listed["Processes"]]

        return await self._call(look)

    async def remove_images(self) -> None:
        """Remove this sandbox's tags, and the images that no other sandbox has a tag or container of."""
        await self._call(lambda: release(self._engine().client, self._sandbox))

    async def close(self) -> None:
        """Let go of the connections. Containers run on."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._connected is not None:
            self._connected.client.close()

    async def _call(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def _engine(self) -> _Engine:
        with self._connecting:
            if self._connected is None:
                self._connected = _Engine(self._sandbox, self._cache)
            return self._connected

    def _base(self, python: str, report: Report | None = None) -> Base:
        engine = self._engine()
        with refusals("look for a base image"):
            return engine.bases.get(python, report)

    def _create(self, model: ModelDesired, place: ReplicaPlace, environment: Environment) -> str:
        """A started container's id. A second call for one incarnation finds the first one's container."""
        engine = self._engine()
        user = User.of(self._project, engine.traits, (os.getuid(), os.getgid()))
        check_access(model, user.uid, place.data)
        secrets.write(model, place, user.uid)
        with refusals("start a container"), engine.networks.held(model.network) as network:
            inherited = _variables(engine.client, environment)
            made = blueprint(
                self._sandbox,
                model,
                place,
                environment,
                user=user,
                traits=engine.traits,
                network=network,
                inherited=inherited,
            )
            container = self._existing(place.incarnation) or _create(engine.client, made)
            try:
                engine.client.api.start(container)
            except APIError as error:
                self._remove(container)
                raise RuntimeFailure("start", f"models.{model.name}: {error.explanation}") from error
            return container

    def _existing(self, incarnation: str) -> str | None:
        filters = replica_filter(self._sandbox)
        filters["label"].append(f"model-sandbox.incarnation={incarnation}")
        found = self._engine().client.api.containers(all=True, filters=filters)
        return str(found[0]["Id"]) if found else None

    def _ids(self, replica: ReplicaRecord) -> Sequence[str]:
        # A start that failed half-way may have left a container that the record does not know.
        found = {replica.container, self._existing(replica.incarnation)} - {None}
        return [str(identity) for identity in found]

    async def _await_socket(self, container: str, path: str, model: str) -> None:
        clock = asyncio.get_running_loop().time
        deadline, look = clock() + START_DEADLINE, clock() + STATE_POLL
        while not os.path.lexists(path):  # noqa: ASYNC240 (a look at a local name takes microseconds)
            if clock() > look:
                look = clock() + STATE_POLL
                state = (await self._call(lambda: self._inspect(container)))["State"]
                if not state["Running"]:
                    said = await self._call(lambda: self._output(container))
                    raise RuntimeFailure(
                        "start", f"models.{model}: its agent ended at once (exit {state['ExitCode']}): {said}"
                    )
            if clock() > deadline:
                raise RuntimeFailure(
                    "start",
                    f"models.{model}: no agent.sock after {START_DEADLINE:g} s",
                    hint="if the engine runs in a virtual machine, its mounts may not carry sockets",
                )
            await asyncio.sleep(SOCKET_POLL)

    def _inspect(self, container: str) -> dict[str, Any]:
        with refusals("inspect a container"):
            return dict(self._engine().client.api.inspect_container(container))

    def _output(self, container: str) -> str:
        with refusals("read a container's output"):
            said = self._engine().client.api.logs(container, tail=LOG_LINES)
        return bytes(said).decode(errors="replace").strip() or "it wrote nothing"

    def _remove(self, container: str) -> None:
        client = self._engine().client
        try:
            client.api.remove_container(container, force=True, v=True)
        except NotFound:
            return
        except APIError as error:
            if error.status_code != 409:  # somebody else removes it at this moment
                raise
            with contextlib.suppress(NotFound):
                client.api.wait(container, timeout=REMOVED_DEADLINE, condition="removed")

    def _remove_folder(self, replica: ReplicaRecord) -> None:
        folder = os.path.realpath(replica.folder)
        # The path comes from a label: only a replica's own folder below our state is ever removed.
        if os.path.basename(folder) == replica.incarnation and folder.startswith(self._state + os.sep):
            shutil.rmtree(folder, ignore_errors=True)


def _record(labels: Mapping[str, str], container: str, state: Mapping[str, Any]) -> ReplicaRecord:
    return record(labels, container, alive=bool(state["Running"]), pid=int(state["Pid"]) or None)


def _create(client: docker.DockerClient, made: Blueprint) -> str:
    host = client.api.create_host_config(**made.host)
    try:
        created = client.api.create_container(made.image, name=made.name, host_config=host, **made.options)
    except ImageNotFound as error:
        raise SandboxError("engine", f"the image {made.image} is gone", hint="sandbox up builds it again") from error
    return str(created["Id"])


def _variables(client: docker.DockerClient, environment: Environment) -> list[str]:
    """Names of the variables that the image sets, to be taken away."""
    config = client.images.get(environment.location).attrs["Config"] or {}
    return [variable.partition("=")[0] for variable in config.get("Env") or ()]
