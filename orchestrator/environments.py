"""The environments that a project's models need, found or made without a running sandbox. It starts no model."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import cast

from orchestrator import folders
from orchestrator.errors import SandboxError
from orchestrator.plan.types import Desired, ModelDesired, RuntimeKind
from orchestrator.ports import Environment, Progress, Runtime
from orchestrator.runtimes.docker import DockerRuntime
from orchestrator.runtimes.process import ProcessRuntime
from orchestrator.spec.load import Project
from orchestrator.spec.resolve import resolve

Told = Callable[[str, Progress], None]


@dataclass(frozen=True, slots=True)
class Needs:
    """What the models of a project need, and the runtimes that have it."""

    desired: Desired
    runtimes: Mapping[RuntimeKind, Runtime]

    async def find(self) -> list[tuple[ModelDesired, Environment | None]]:
        """Each model with its environment; None where it was not made yet."""
        models = list(self.desired.models.values())
        found = await asyncio.gather(*(self.runtimes[each.runtime].find(each) for each in models))
        return list(zip(models, found, strict=True))

    async def make(self, told: Told) -> list[tuple[ModelDesired, Environment | SandboxError]]:
        """Make each environment once, all at the same time; what could not be made comes with its reason."""
        different: dict[tuple[RuntimeKind, str], ModelDesired] = {}
        for each in self.desired.models.values():
            different.setdefault((each.runtime, each.lock_hash), each)
        models = list(different.values())

        async def one(model: ModelDesired) -> Environment | SandboxError:
            try:
                return await self.runtimes[model.runtime].prepare(model, partial(told, model.name))
            except SandboxError as error:
                return error

        return list(zip(models, await asyncio.gather(*map(one, models)), strict=True))

    async def pull(self) -> list[str]:
        """Have the base image of each model that runs in a container; their models. Raises SandboxError."""
        models = [each for each in self.desired.models.values() if each.runtime == "docker"]
        for python in dict.fromkeys(each.python for each in models):
            await self.runtimes["docker"].interpreter(python)
        return [each.name for each in models]


@asynccontextmanager
async def opened(
    place: folders.Folders, project: Project, profiles: Sequence[str], models: Sequence[str]
) -> AsyncIterator[Needs]:
    """Resolve the project as control would: `auto` means what it means for a sandbox that runs here."""
    where = (place.sandbox_id, place.directory, place.state, folders.cache_home())
    runtimes: dict[RuntimeKind, Runtime] = {"docker": DockerRuntime(*where), "process": ProcessRuntime(*where)}
    loop = asyncio.get_running_loop()

    def interpreter(kind: RuntimeKind, python: str) -> str:  # called in the thread that resolves
        return asyncio.run_coroutine_threadsafe(runtimes[kind].interpreter(python), loop).result()

    try:
        auto = await _auto(place, runtimes["docker"])
        desired = await asyncio.to_thread(
            lambda: resolve(project, profiles=profiles, models=models, runtime=auto, interpreter=interpreter)
        )
        yield Needs(desired, runtimes)
    finally:
        await asyncio.gather(*(each.close() for each in runtimes.values()))


async def _auto(place: folders.Folders, docker: Runtime) -> RuntimeKind:
    decided = (folders.read_json(os.path.join(place.state, folders.DECISIONS)) or {}).get("auto")
    if decided in {"docker", "process"}:
        return cast("RuntimeKind", decided)
    try:
        await docker.check()
    except SandboxError:
        return "process"
    return "docker"
