"""One look at a model: what is wanted beside what is there, sorted as the rules of planner.py need it.

It decides nothing; what it keeps is the earliest time at which waiting ends.
"""

from __future__ import annotations

from orchestrator.plan.identity import mounts_of
from orchestrator.plan.observed import ModelObserved, ReplicaObserved, WorkerObserved
from orchestrator.plan.types import Generation, ModelDesired

MOST_KILLS_IN_A_ROW = 2


def target(observed: ModelObserved, replica_hash: str) -> Generation | None:
    """The newest generation that is not known to fail on replicas of this hash."""
    for generation in (observed.wanted, observed.good):
        if generation is not None and (generation.number, replica_hash) not in observed.rejected:
            return generation
    return None


def brings_packages(desired: ModelDesired, generation: Generation) -> bool:
    """Whether a generation changed what is installed: then it is not live before that is."""
    files = {f"{desired.path}/requirements.txt", *desired.requirements.files}
    return any(f"{desired.path}/{name}" in files for name in generation.changed)


def living(observed: ModelObserved) -> list[ReplicaObserved]:
    """Replicas that are not being removed."""
    return [each for each in observed.replicas if each.state != "stopping"]


class Situation:
    """fresh: the replica of the wanted hash for each index; stale: all others that live. serving: those that the
    gateways may be sent to now; orphaned: with a dead agent, whose workers may serve on. giving_way: incarnations.
    """

    def __init__(self, desired: ModelDesired, observed: ModelObserved, now: float) -> None:
        self.desired = desired
        self.observed = observed
        self.now = now
        self.wake_at: float | None = None
        there = living(observed)
        self.dead = [each for each in there if each.state == "dead"]
        alive = [each for each in there if each.state != "dead"]
        routed = observed.routed
        self.routed_to = {incarnation for incarnation, _ in routed.upstreams} if routed is not None else set()
        self.fresh = self._one_for_each_index(alive)
        self.stale = [each for each in alive if each not in self.fresh]
        self.orphaned = [each for each in self.dead if each.revivable]  # their workers may well serve on
        self.serving = [each for each in alive if routed is not None and each.replica_hash == routed.replica_hash]
        self.giving_way = self._those_that_give_way()

    def _one_for_each_index(self, alive: list[ReplicaObserved]) -> list[ReplicaObserved]:
        found: dict[int, ReplicaObserved] = {}
        for each in sorted(alive, key=lambda each: each.incarnation not in self.routed_to):
            if each.replica_hash == self.desired.replica_hash and each.index < self.desired.replicas:
                found.setdefault(each.index, each)
        return [each for each in alive if each is found.get(each.index)]

    def target(self, replica_hash: str) -> Generation | None:
        """What replicas of this hash should run. New requirements are for the replicas that will have them; with
        `reload.mode: replace`, or where a mounted folder is another one now, so is every edit.
        """
        found = target(self.observed, replica_hash)
        if found is None or replica_hash == self.desired.replica_hash:
            return found
        same_folders = mounts_of(replica_hash) == mounts_of(self.desired.replica_hash)  # else it sees dead ones
        if self.desired.reload.mode != "replace" and same_folders and not brings_packages(self.desired, found):
            return found
        good = self.observed.good
        return None if good is None or (good.number, replica_hash) in self.observed.rejected else good

    def loadable(self) -> list[ReplicaObserved]:
        """Those that can be told to load: fresh ones, and stale ones as long as they are needed."""
        stale = [each for each in self.serving if each in self.stale and self._serves_on(each)]
        return [each for each in [*self.fresh, *stale] if each.state == "up"]

    def _serves_on(self, replica: ReplicaObserved) -> bool:
        """Whether a stale replica stays until others answer."""
        elsewhere = replica.replica_hash != self.desired.replica_hash
        return self.desired.replicas > 0 and (elsewhere or replica.incarnation in self.routed_to)

    def loads(self, generation: int) -> bool:
        """Whether a worker of a generation is still loading somewhere."""
        workers = [worker for replica in self.observed.replicas for worker in replica.workers]
        return any(each.generation == generation and each.state in {"loading", "paused"} for each in workers)

    def candidate(self, replica: ReplicaObserved) -> WorkerObserved | None:
        """The worker that waits, paused, until what else runs in this replica has ended, and is worth it."""
        wanted = self.target(replica.replica_hash)
        if wanted is None:
            return None
        let_finish = self.observed.superseded >= MOST_KILLS_IN_A_ROW
        for worker in replica.workers:
            rejected = (worker.generation, replica.replica_hash) in self.observed.rejected
            if worker.state == "paused" and not rejected and (let_finish or worker.generation == wanted.number):
                return worker
        return None

    def _those_that_give_way(self) -> frozenset[str]:
        """Replicas whose serving worker ends before the next one loads: one after the other, where there are several.

        The next one's turn comes when nothing newer is on its way, so that the others answer meanwhile.
        """
        routed = self.observed.routed
        if routed is None:
            return frozenset()
        waiting = [each.incarnation for each in self.serving if each.state == "up" and self.candidate(each) is not None]
        gone = frozenset(waiting) - self.routed_to
        on_its_way = any(
            worker.state == "loading" and worker.generation > routed.generation
            for replica in [*self.serving, *self.fresh]
            for worker in replica.workers
        )
        there = [each for each in waiting if each in self.routed_to]
        return gone if gone or on_its_way or not there else frozenset(there[:1])

    def is_full(self, replica: ReplicaObserved) -> bool:
        """Whether no other generation may begin to drain there."""
        return sum(each.state == "draining" for each in replica.workers) >= self.desired.reload.max_draining

    def waits(self, key: str) -> bool:
        """Whether `key` may not be tried yet; remembers when it may."""
        at = self.observed.retry_at.get(key, self.now)
        if at <= self.now:
            return False
        self.wake(at)
        return True

    def wake(self, at: float) -> None:
        self.wake_at = at if self.wake_at is None else min(self.wake_at, at)


def ready_workers(replicas: list[ReplicaObserved], generation: int) -> frozenset[tuple[str, int]]:
    """The workers of a generation on these replicas that can answer."""
    return frozenset(
        (replica.incarnation, worker.attempt)
        for replica in replicas
        for worker in replica.workers
        if worker.generation == generation and worker.state == "ready"
    )
