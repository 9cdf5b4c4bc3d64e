"""The embedded runtime: replicas as processes of this machine, behind the walls that it permits.

It knows how a replica is started, found again and ended here; not what its agent does, nor when either is wanted. It
keeps no state of its own that a restart would miss: every replica is a folder with `replica.json`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace

from orchestrator import folders
from orchestrator.errors import RuntimeFailure, SandboxError
from orchestrator.plan.types import ModelDesired, RuntimeKind
from orchestrator.ports import Environment, Process, ReplicaExit, ReplicaPlace, ReplicaRecord, Report, Usage
from orchestrator.runtimes import access, cgroups, exits, recorded, secrets, tmpfs, walls
from orchestrator.runtimes.census import Census, send
from orchestrator.runtimes.environments import Environments
from orchestrator.runtimes.recorded import Recorded
from orchestrator.runtimes.tending import Tending
from orchestrator.spec.paths import data_dir

_START_DEADLINE = 30.0
_POLL = 0.01
_KILL_ROUNDS = 500
AGENT_LOG = "agent.log"
# A shell joins the cgroup and becomes the agent: memory is charged to the group in which it was first touched, so that
# an interpreter that joins later is never counted.
_JOIN = (
    "/bin/sh",
    "-c",
    'while [ "$1" != -- ]; do echo $$ > "$1" || exit 1; shift; done; shift; unset PWD OLDPWD SHLVL; exec "$@"',
    "sh",
)


class ProcessRuntime:
    """ports.Runtime for one sandbox.

    project: its folder. state: `$XDG_STATE_HOME/model-sandbox/<sandbox id>`. cache: `$XDG_CACHE_HOME/model-sandbox`.
    """

    kind: RuntimeKind = "process"
    revivable = True

    def __init__(self, sandbox_id: str, project: str, state: str, cache: str) -> None:
        self._sandbox_id = sandbox_id
        self._hidden = walls.Hidden(os.path.realpath(project), os.path.realpath(state), os.path.realpath(cache))
        self._state = state
        self._environments = Environments(cache)
        self._exits = exits.Exits()
        self._died: asyncio.Queue[ReplicaExit | None] = asyncio.Queue()
        self._tending = Tending()

    # -- what can be had here

    async def check(self) -> None:
        """Linux is all it takes; what is not permitted here is reported with each replica."""
        if sys.platform != "linux":
            raise RuntimeFailure("no-engine", "the process runtime needs Linux", hint="use `runtime: docker`")
        await asyncio.to_thread(walls.machine)

    async def interpreter(self, python: str) -> str:
        return (await self._environments.interpreters.find(python)).identity

    async def find(self, model: ModelDesired) -> Environment | None:
        found = await asyncio.to_thread(self._environments.find, model.lock_hash)
        return None if found is None else Environment(model.lock_hash, found.folder, found.python)

    async def prepare(self, model: ModelDesired, report: Report) -> Environment:
        return await self._environments.prepare(model, report)

    def data_target(self, model: ModelDesired) -> str | None:
        data = data_dir(model.path)
        if data is None:
            return None
        return f"{walls.SEEN}/data" if walls.machine().own_root else data

    def check_access(self, model: ModelDesired) -> None:
        """Raise SandboxError("path-permission" | "volume" | "isolation") for what a replica could not be given."""
        machine = walls.machine()
        walls.check_mounts(machine, model)
        access.check_access(model, walls.uid_of(machine, self._sandbox_id, model.name), data_dir(model.path))

    # -- start

    async def start(self, model: ModelDesired, place: ReplicaPlace, environment: Environment) -> ReplicaRecord:
        """Start an agent; in the place of a dead one it is a new agent for the same replica, which adopts its workers.

        Returns when `agent.sock` is there. Whatever fails, a new replica leaves nothing behind.
        """
        before = await asyncio.to_thread(recorded.read, place.folder)
        if before is not None and before.alive:
            self._watch(before)
            return before.seen()
        try:
            started, child = await asyncio.to_thread(self._launch, model, place, environment, before)
        except (OSError, SandboxError) as error:
            if before is None:
                await self._erase(place.folder, Census(place.incarnation, self._group(place.incarnation)))
            if isinstance(error, SandboxError):
                raise
            raise RuntimeFailure("start", f"models.{model.name}: its agent did not start: {error}") from error
        try:
            self._watch(started)
            await self._ready(model, started)
        except BaseException:
            if before is None:
                await asyncio.shield(self._erase(place.folder, started.census))
            else:
                send(child, signal.SIGKILL, started.start_time)
            raise
        return started.seen()

    def _group(self, incarnation: str) -> cgroups.Group | None:
        hierarchies = walls.machine().hierarchies
        return cgroups.group(hierarchies, self._sandbox_id, incarnation) if hierarchies else None

    def _launch(
        self, model: ModelDesired, place: ReplicaPlace, environment: Environment, before: Recorded | None
    ) -> tuple[Recorded, int]:
        machine = walls.machine()
        self.check_access(model)
        uid = walls.uid_of(machine, self._sandbox_id, model.name)
        group = before.group if before is not None else self._group(place.incarnation)
        watched = model.limits.memory is not None and not machine.limits("memory")
        seen = walls.paths(machine, place)
        record = ReplicaRecord(
            model=model.name,
            index=place.index,
            incarnation=place.incarnation,
            runtime="process",
            replica_hash=model.replica_hash,
            lock_hash=environment.lock_hash,
            folder=place.folder,
            sockets=place.sockets,
            uid=uid,
            alive=False,
            python=environment.python,
            not_enforced=walls.not_enforced(machine, model),
            paths=seen,
        )
        known = Recorded(record, folders.boot_id(), None, group, model.limits.memory if watched else None)
        # Before anything runs: a crash from here on leaves a replica that `list` finds and `stop` removes.
        known.write()
        if group is not None:
            group.make(model.limits)
        secrets.write(model, place, uid)
        if machine.root and machine.own_root:
            tmpfs.mount(place.sockets, place.incarnation)
        _unlink_socket(os.path.join(place.sockets, "agent.sock"))
        installed = self._environments.find(environment.lock_hash)
        if installed is None:
            raise FileNotFoundError(f"the environment {environment.location} is gone")
        tenant = walls.Tenant(model, place, installed, group, uid)
        pid = _spawn(machine, tenant, self._config(machine, tenant, seen))
        known = replace(known, record=replace(record, pid=pid, alive=True), start_time=folders.start_time(pid))
        known.write()
        return known, pid

    def _config(self, machine: walls.Machine, tenant: walls.Tenant, seen: dict[str, str]) -> str:
        model, place = tenant.model, tenant.place
        return json.dumps(
            {
                "version": 1,
                "sandbox": self._sandbox_id,
                "model": model.name,
                "incarnation": place.incarnation,
                "index": place.index,
                "sockets": seen["sockets"],
                "generations": seen["generations"],
                "data": seen.get("data"),
                "source": model.path,
                "cpus": model.limits.cpus,
                "volumes": [mount.target for mount in model.mounts],
                "isolation": walls.instructions(machine, tenant, self._hidden),
                "grace": model.stop_grace,
            }
        )

    async def _ready(self, model: ModelDesired, started: Recorded) -> None:
        """Return when the agent listens. Raises RuntimeFailure("start") with its last words."""
        socket = os.path.join(started.record.sockets, "agent.sock")
        try:
            async with asyncio.timeout(_START_DEADLINE):
                while not _is_socket(socket):
                    if not started.alive:
                        raise RuntimeFailure(
                            "start", f"models.{model.name}: its agent ended at once: {_last_words(started)}"
                        )
                    await asyncio.sleep(_POLL)
        except TimeoutError:
            message = (
                f"models.{model.name}: its agent did not listen in {_START_DEADLINE:.0f} s: {_last_words(started)}"
            )
            raise RuntimeFailure("start", message) from None

    # -- what runs

    async def list(self) -> Sequence[ReplicaRecord]:
        found = await asyncio.to_thread(lambda: list(recorded.every(self._state)))
        for each in found:
            if each.alive:
                self._watch(each)
        return [each.seen() for each in found]

    async def exits(self) -> AsyncIterator[ReplicaExit]:
        while (died := await self._died.get()) is not None:
            yield died

    async def usage(self, replica: ReplicaRecord) -> Usage | None:
        known = await asyncio.to_thread(recorded.read, replica.folder)
        return None if known is None else await asyncio.to_thread(known.census.usage)

    async def processes(self, replica: ReplicaRecord) -> Sequence[Process]:
        known = await asyncio.to_thread(recorded.read, replica.folder)
        return [] if known is None else await asyncio.to_thread(known.census.processes)

    def _watch(self, known: Recorded) -> None:
        pid, incarnation = known.record.pid, known.record.incarnation
        if pid is None:
            return
        before = known.group.oom_kills() if known.group is not None else 0

        def ended(cause: str) -> None:
            oom = exits.killed(cause) and known.group is not None and known.group.oom_kills() > before
            self._died.put_nowait(ReplicaExit(incarnation, "out of memory" if oom else cause, oom))

        if not self._exits.watch(pid, ended):
            self._died.put_nowait(ReplicaExit(incarnation, exits.UNKNOWN))
        self._tending.add(known)

    # -- stop

    async def stop(self, replica: ReplicaRecord, grace: float) -> None:
        """Ask the agent, and where it is dead its workers, to end; after `grace` seconds end them."""
        known = await asyncio.to_thread(recorded.read, replica.folder)
        census = known.census if known is not None else Census(replica.incarnation, self._group(replica.incarnation))
        self._tending.drop(replica.incarnation)
        agent = known.record.pid if known is not None and known.alive else None
        if agent is not None and known is not None:
            send(agent, signal.SIGTERM, known.start_time)
        else:
            await asyncio.to_thread(census.kill, signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(grace):
                if agent is not None and known is not None:
                    await _ended(known)
                else:
                    await _emptied(census)
        # What outlives an agent that ended in time was to end with it: it is not waited for.
        if agent is not None and known is not None:
            send(agent, signal.SIGKILL, known.start_time)  # wherever it is: it may never have joined its cgroup
        await self._erase(replica.folder, census)

    async def _erase(self, folder: str, census: Census) -> None:
        """Kill what is left and remove every trace. Raises RuntimeFailure("engine") where the kernel holds on to it."""
        for _ in range(_KILL_ROUNDS):
            if census.group is not None:
                census.group.freeze_forks()
            if not await _any(census):
                break
            await asyncio.to_thread(census.kill)
            await asyncio.sleep(_POLL)
        else:
            raise RuntimeFailure("engine", f"processes of replica {census.incarnation} do not end: {census.living()}")
        if census.group is not None:
            for _ in range(_KILL_ROUNDS):
                if census.group.remove():
                    break
                await asyncio.sleep(_POLL)
        await asyncio.to_thread(tmpfs.unmount, os.path.join(folder, "s"))
        await asyncio.to_thread(folders.remove_tree, folder)

    async def remove_images(self) -> None:
        """Nothing: environments belong to the user, not to one sandbox."""

    async def close(self) -> None:
        """Let go of every watch; replicas run on."""
        await self._tending.close()
        self._exits.close()
        self._died.put_nowait(None)


async def _ended(known: Recorded) -> None:
    while True:
        if not known.alive:
            return
        await asyncio.sleep(_POLL)


async def _emptied(census: Census) -> None:
    while True:
        if not await _any(census):
            return
        await asyncio.sleep(_POLL)


async def _any(census: Census) -> bool:
    return bool(await asyncio.to_thread(census.living))


def _spawn(machine: walls.Machine, tenant: walls.Tenant, config: str) -> int:
    place = tenant.place
    joined = tenant.group.procs if tenant.group is not None else []
    log = os.open(
        os.path.join(place.folder, AGENT_LOG),
        os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC,
        0o600,
    )
    try:
        child = subprocess.Popen(
            [*_JOIN, *joined, "--", tenant.installed.executable, "-I", "-B", place.guest, config],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=_environment(machine, tenant),
            start_new_session=True,
            umask=0o022,
        )
    finally:
        os.close(log)
    # Its end is seen by pidfd, and must not be waited for twice: Popen is told that it is over.
    child.returncode = 0
    return child.pid


def _environment(machine: walls.Machine, tenant: walls.Tenant) -> dict[str, str]:
    """The model's own: nothing of ours, nothing of the user's."""
    home = "/tmp"  # noqa: S108 a private one
    if not machine.own_root:
        home = os.path.join(tenant.place.folder, "tmp")
        os.makedirs(home, mode=0o700, exist_ok=True)
    own = {
        "PATH": f"{os.path.join(tenant.installed.folder, 'bin')}:/usr/local/bin:/usr/bin:/bin",
        "HOME": home,
        "LANG": "C.UTF-8",
        "TMPDIR": home,
    }
    return own | dict(tenant.model.environment)


def _unlink_socket(path: str) -> None:
    """A dead agent's, so that the new one's can be told from it."""
    with suppress(FileNotFoundError):
        os.unlink(path)


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.lstat(path).st_mode)
    except OSError:
        return False


def _last_words(started: Recorded) -> str:
    try:
        with open(os.path.join(started.record.folder, AGENT_LOG), encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file.read()[-4000:].splitlines() if line.strip()]
    except OSError:
        lines = []
    return lines[-1] if lines else "it said nothing"
