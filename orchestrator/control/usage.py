"""What models use and which processes they are, as `stats` and `top` show it. It asks the runtimes, keeps nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.control.model import Model
from orchestrator.control.replica import Replica
from orchestrator.control.world import World
from orchestrator.errors import RuntimeFailure, SandboxError
from orchestrator.ports import ReplicaRecord, Usage

ANSWER_WITHIN = 5.0
SAMPLE_EVERY = 1.0

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Look:
    """One replica at one moment (monotonic seconds)."""

    replica: Replica
    model: str
    at: float
    usage: Usage


async def samples(models: Mapping[str, Model], world: World, names: Collection[str]) -> AsyncIterator[list[Json]]:
    """Every second a row for each living replica. CPU is a difference, so that the first comes after a second."""
    before = await _looks(models, world, names)
    while True:
        await asyncio.sleep(SAMPLE_EVERY)
        now = await _looks(models, world, names)
        yield [_row(models, before[each], now[each]) for each in now if each in before]
        before = now


async def processes(models: Mapping[str, Model], world: World, names: Collection[str]) -> list[Json]:
    """A row for each process of each living replica."""
    found: list[Json] = []
    for name, replica, record in _living(models, names):
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                listed = await world.runtimes[record.runtime].processes(record)
        except TimeoutError as error:
            message = f"{name}: its processes were not listed within {ANSWER_WITHIN:g} s"
            raise RuntimeFailure("engine", message) from error
        index = replica.place.index
        found += [{"model": name, "replica": index, **asdict(each)} for each in listed]
    return found


def _living(models: Mapping[str, Model], names: Collection[str]) -> list[tuple[str, Replica, ReplicaRecord]]:
    return [
        (name, replica, replica.record)
        for name, model in models.items()
        for replica in model.state.replicas.values()
        if name in names and replica.record is not None and replica.state in {"up", "lost"}
    ]


async def _looks(models: Mapping[str, Model], world: World, names: Collection[str]) -> dict[str, _Look]:
    found: dict[str, _Look] = {}

    async def look(name: str, replica: Replica, record: ReplicaRecord) -> None:
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                usage = await world.runtimes[record.runtime].usage(record)
        except (SandboxError, TimeoutError):
            return  # it has nothing to tell this time
        if usage is not None:
            found[replica.incarnation] = _Look(replica, name, time.monotonic(), usage)

    await asyncio.gather(*(look(*each) for each in _living(models, names)))
    return dict(sorted(found.items(), key=lambda item: (item[1].model, item[1].replica.place.index)))


def _row(models: Mapping[str, Model], before: _Look, now: _Look) -> Json:
    seconds = now.usage.cpu_seconds - before.usage.cpu_seconds
    wish = models[now.model].state.wish if now.model in models else None
    return {
        "model": now.model,
        "replica": now.replica.place.index,
        "cpu_percent": round(max(0.0, seconds) / max(now.at - before.at, 0.001) * 100, 2),
        "cpu_seconds": round(now.usage.cpu_seconds, 3),
        "memory": now.usage.memory,
        "memory_limit": wish.limits.memory if wish is not None else None,
        "pids": now.usage.pids,
        "pids_limit": wish.limits.pids if wish is not None else None,
    }
