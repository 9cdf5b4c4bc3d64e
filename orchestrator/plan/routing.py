"""Where the gateways are sent: rules 5 and 8 of planner.py. It starts and ends nothing."""

from __future__ import annotations

from orchestrator.plan.actions import Swap
from orchestrator.plan.observed import ReplicaObserved, Routed
from orchestrator.plan.situation import Situation, ready_workers

Upstreams = frozenset[tuple[str, int]]


class Routing:
    """The route that a situation asks for."""

    def __init__(self, situation: Situation) -> None:
        self._at = situation
        self._observed = situation.observed
        self._desired = situation.desired

    def swap(self) -> Swap | None:
        """The change of the route, if there is to be one."""
        wish, routed = self._desired.replica_hash, self._observed.routed
        found = self._newest(self._wanted_and_there(), wish, self._desired.replicas)
        if found is not None:
            return self._unless_done(found[0], wish, found[1])
        if routed is None:
            return None
        returning = [each for each in self._at.orphaned if each.replica_hash == routed.replica_hash]
        found = self._newest(self._at.serving, routed.replica_hash, len(self._at.serving) + len(returning))
        if found is not None and found[0] > routed.generation:
            return self._unless_done(found[0], routed.replica_hash, found[1])
        return self._unless_done(routed.generation, routed.replica_hash, self._still_ready(routed))

    def _wanted_and_there(self) -> list[ReplicaObserved]:
        """Fresh replicas, and those with a dead agent that will be once it is back: their workers serve meanwhile."""
        taken = {each.index for each in self._at.fresh}
        returning = [
            each
            for each in self._at.orphaned
            if each.replica_hash == self._desired.replica_hash
            and each.index < self._desired.replicas
            and each.index not in taken
        ]
        return [*self._at.fresh, *returning]

    def _newest(
        self, replicas: list[ReplicaObserved], replica_hash: str, complete: int
    ) -> tuple[int, Upstreams] | None:
        """The newest generation that gateways may be sent to on these replicas, and its workers.

        That is what they should run, or a newer one than is routed that was let finish though a newer was wanted.
        """
        wanted, routed = self._at.target(replica_hash), self._observed.routed
        numbers = {wanted.number} if wanted is not None else set()
        before = routed.generation if routed is not None else 0
        numbers |= {each.generation for replica in replicas for each in replica.workers if each.generation > before}
        for number in sorted(numbers, reverse=True):
            known = routed is not None and (routed.generation, routed.replica_hash) == (number, replica_hash)
            ready = self._answering(replicas, number) if known else ready_workers(replicas, number)
            if ready and self._may_swap(number, replica_hash, replicas, ready, complete):
                return number, ready
        return None

    def _still_ready(self, routed: Routed) -> Upstreams:
        if self._desired.replicas == 0:
            return frozenset()
        kept: Upstreams = frozenset()
        if routed.replica_hash == self._desired.replica_hash:
            kept = self._answering(self._wanted_and_there(), routed.generation)
        orphaned = [each for each in self._at.orphaned if each.replica_hash == routed.replica_hash]
        return kept or self._answering([*self._at.serving, *orphaned], routed.generation)

    def _answering(self, replicas: list[ReplicaObserved], generation: int) -> Upstreams:  # 8
        """Those that are ready, less those that give way."""
        return frozenset(each for each in ready_workers(replicas, generation) if each[0] not in self._at.giving_way)

    def _may_swap(
        self,
        number: int,
        replica_hash: str,
        replicas: list[ReplicaObserved],
        ready: Upstreams,
        complete: int,
    ) -> bool:
        routed = self._observed.routed
        if routed is None or not routed.upstreams:
            return True
        if (routed.generation, routed.replica_hash) == (number, replica_hash):
            return True  # a laggard or a respawned worker joins, or one has left
        if number < routed.generation and replica_hash == routed.replica_hash:
            return False
        if any(self._at.is_full(each) for each in replicas if each.incarnation in self._at.routed_to):
            return False  # what serves there would be one too many to drain: the end of one of those is waited for
        waiting = [each for each in map(self._at.candidate, replicas) if each is not None]
        if len(ready) + sum(each.generation == number for each in waiting) >= complete:
            return True
        since = [each.since for replica in replicas for each in replica.workers if each.generation == number]
        deadline = max(since, default=self._at.now) + self._desired.load_timeout
        if self._at.now >= deadline:
            return True
        self._at.wake(deadline)
        return False

    def _unless_done(self, generation: int, replica_hash: str, ready: Upstreams) -> Swap | None:
        routed = self._observed.routed
        if routed == Routed(generation, replica_hash, ready):
            return None
        if routed is None or routed.generation != generation or routed.replica_hash != replica_hash:
            cause = "ready"
        elif ready > routed.upstreams:
            cause = "a worker joined"
        elif any(incarnation in self._at.giving_way for incarnation, _ in routed.upstreams - ready):
            cause = "stop-first: the next generation needs the memory"
        else:
            cause = "a worker ended"
        return Swap(generation, replica_hash, ready, cause)
