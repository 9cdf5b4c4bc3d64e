"""Replicas of an earlier control whose engine did not answer when this one began: found once it does, they are ended.

By then the models have, or will get, others in their place; without this nobody would ever end them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Sequence

from orchestrator.control.world import World
from orchestrator.errors import SandboxError
from orchestrator.ports import ReplicaRecord, Runtime

LOOK_AGAIN = 1.0
GRACE = 5.0


def unaccounted(state: str, found: Collection[str]) -> bool:
    """Whether there is a replica's folder that belongs to none of the incarnations that were found."""
    try:
        return bool(set(os.listdir(os.path.join(state, "r"))) - set(found))
    except FileNotFoundError:
        return False


async def end_latecomers(runtime: Runtime, world: World, is_known: Callable[[str], bool]) -> None:
    """Wait for the runtime, then end each of its replicas that no model of this control has."""
    for record in await _once_back(runtime):
        if is_known(record.incarnation):
            continue
        try:
            await runtime.stop(record, GRACE)
        except SandboxError as error:
            world.journal.add("failed", f"cannot be removed: {error}", model=record.model)
        else:
            note = f"replica {record.index} was found late, its engine was away: ended, another takes its place"
            world.journal.add("stop", note, model=record.model)


async def _once_back(runtime: Runtime) -> Sequence[ReplicaRecord]:
    while True:
        try:
            return await runtime.list()
        except SandboxError:
            await asyncio.sleep(LOOK_AGAIN)
