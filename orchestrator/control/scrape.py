"""All figures of a sandbox at one moment: the gateways', control's own, and what the replicas use."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from orchestrator import exposition
from orchestrator.control import meters
from orchestrator.control.model import Model
from orchestrator.control.rows import python
from orchestrator.control.world import World
from orchestrator.ports import Usage

USAGE_WITHIN = 3.0


async def scrape(models: Mapping[str, Model], world: World, accept: str) -> tuple[bytes, str]:
    """Return the text for Prometheus and its Content-Type; `accept` is the asker's header."""
    usage = await _usage(models, world)
    own = [
        *world.meters.families(),
        meters.states({name: model.state.status.state for name, model in models.items()}),
        meters.infos(
            (
                name,
                model.state.routed.generation if model.state.routed is not None else None,
                model.state.desired.runtime if model.state.desired is not None else "",
                python(model.state) or "",
            )
            for name, model in models.items()
        ),
        *meters.usages(usage),
    ]
    return exposition.render(exposition.merge([*(await world.traffic.metrics()), own]), accept)


async def _usage(models: Mapping[str, Model], world: World) -> dict[str, Usage]:
    """Sum over each model's replicas; a runtime that does not answer in time has nothing to tell this time."""
    asked = [
        (name, world.runtimes[each.record.runtime].usage(each.record))
        for name, model in models.items()
        for each in model.state.replicas.values()
        if each.record is not None and each.state in {"up", "lost"}
    ]
    try:
        async with asyncio.timeout(USAGE_WITHIN):
            found = await asyncio.gather(*(call for _, call in asked), return_exceptions=True)
    except TimeoutError:
        return {}
    total: dict[str, Usage] = {}
    for (name, _), usage in zip(asked, found, strict=True):
        if isinstance(usage, Usage):
            sofar = total.get(name, Usage(0.0, 0, 0))
            total[name] = Usage(
                sofar.cpu_seconds + usage.cpu_seconds, sofar.memory + usage.memory, sofar.pids + usage.pids
            )
    return total
