"""Whether a generation is what answers, and if not, whether it still can be. Pure; it waits for nothing itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.plan.actions import Action, Load
from orchestrator.plan.observed import ModelObserved
from orchestrator.plan.status import Status
from orchestrator.plan.types import ModelDesired


@dataclass(frozen=True, slots=True)
class Numbered:
    """That this generation or a newer one answers."""

    number: int


@dataclass(frozen=True, slots=True)
class Newest:
    """That what the directory and sandbox.yaml said when `number` was the newest generation, or later, answers."""

    number: int


Awaited = Numbered | Newest


@dataclass(frozen=True, slots=True)
class Live:
    """It answers; so does no older one."""

    generation: int


@dataclass(frozen=True, slots=True)
class Coming:
    """It does not answer yet. reason: what it waits for."""

    reason: str


@dataclass(frozen=True, slots=True)
class Hopeless:
    """It cannot answer unless somebody does something. reference: of errors.REFERENCES."""

    reason: str
    reference: str


def verdict(
    desired: ModelDesired | None,
    observed: ModelObserved,
    found: Status,
    actions: Sequence[Action],
    awaited: Awaited,
) -> Live | Coming | Hopeless:
    """Decide, in this order. found: the status of these very values; actions: what the planner would do with them.

    1. It answers → Live. The newest must do so on the replicas that sandbox.yaml wants, and be what the directory has.
    2. A rollback holds the directory's content back → Hopeless.
    3. No save has made this number yet → Coming.
    4. The newest content was rejected → Hopeless.
    5. A worker of it loads or is ready, or is about to, on replicas that count → Coming.
    6. Something is wrong, or nothing runs → Hopeless. Otherwise → Coming.
    """
    routed, wanted = observed.routed, observed.wanted
    held_back = isinstance(awaited, Newest) and wanted is not None and wanted.origin is not None
    if routed is not None and routed.upstreams and routed.generation >= awaited.number and not held_back:  # 1
        current = desired is not None and routed.replica_hash == desired.replica_hash
        if isinstance(awaited, Numbered) or (current and found.problem is None):
            return Live(routed.generation)
    if held_back and wanted is not None:  # 2
        return Hopeless(f"rolled back to g{wanted.origin}'s content; the directory differs", "not-live")
    ended = found.state in {"failed", "stopped", "draining"}
    if wanted is not None and wanted.number < awaited.number and not ended:  # 3
        return Coming(f"the newest is g{wanted.number}")
    rejection = _rejection(desired, observed)
    wanted_hash = desired.replica_hash if desired is not None and isinstance(awaited, Newest) else None
    if not rejection and _on_its_way(observed, actions, awaited.number, wanted_hash):  # 5
        return Coming(found.reason or "loading")
    if found.problem is not None or ended:  # 4, 6
        reference = found.problem.reference if found.problem is not None else "not-live"
        return Hopeless(found.reason or found.state, reference)
    return Coming(found.reason or found.state)


def _rejection(desired: ModelDesired | None, observed: ModelObserved) -> bool:
    if desired is None or observed.wanted is None:
        return False
    return (observed.wanted.number, desired.replica_hash) in observed.rejected


def _on_its_way(observed: ModelObserved, actions: Sequence[Action], number: int, replica_hash: str | None) -> bool:
    """On which replicas does not matter where replica_hash is None."""
    replicas = {
        each.incarnation: each
        for each in observed.replicas
        if each.state != "stopping" and replica_hash in {None, each.replica_hash}
    }
    if any(isinstance(a, Load) and a.generation >= number and a.incarnation in replicas for a in actions):
        return True
    return any(
        worker.generation >= number and worker.state != "draining"
        for replica in replicas.values()
        for worker in replica.workers
    )
