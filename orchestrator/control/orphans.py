"""Models that run and that no file has any more: what is left of a wish when only its replicas are known."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.plan.types import ModelDesired, ReloadPolicy
from orchestrator.ports import ReplicaRecord


def wish_of(records: Sequence[ReplicaRecord]) -> ModelDesired:
    """Return a wish that these replicas, of one model, already meet: they serve on, nothing is watched or started."""
    first = records[0]
    same = [each for each in records if each.replica_hash == first.replica_hash]
    return ModelDesired(
        name=first.model,
        path="",
        runtime=first.runtime,
        lock_hash=first.lock_hash,
        replica_hash=first.replica_hash,
        replicas=len(same),
        reload=ReloadPolicy(mode="off"),
        restart="no",
    )
