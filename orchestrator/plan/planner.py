"""From what is wanted and what is there to what to do: a pure function per model. It knows no clock and no machine.

The rules, in order; the same numbers stand in the code:

1. The environment of the wanted lock hash is built once; a failed one is left until something changes.
2. A replica whose agent died is revived where its runtime can (the workers live on), else removed.
3. Each index below `replicas` has one replica of the wanted hash ("fresh"); one that fails is retried with back-off.
   Of two (an earlier control left them) the one that serves counts.
4. Each connected replica, fresh or still serving, gets the newest generation that is not known to fail on it (one
   that changed the requirements is for fresh replicas only). A candidate for an older one is killed for it, but not
   more than twice in a row, so that fast saves still land: what was let finish is served until the newer one is.
5. The gateways are sent to the fresh replicas once all of them are ready (the first ready one, where nothing answers
   yet; those that are ready, where `load_timeout` has passed), else to the newest generation on the replicas that
   serve now. They never go back to an older generation while the newer one answers, and a replica too many serves
   until another one does.
6. Workers that no gateway is sent to, and that nothing waits for, are retired; replicas likewise are stopped.
7. Limits that changed are sent to the workers that run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.plan.actions import Action, Build, Configure, Kill, Load, Retire, Revive, Start, Stop, Swap
from orchestrator.plan.observed import ModelObserved, ReplicaObserved, Routed, WorkerObserved
from orchestrator.plan.types import Generation, ModelDesired

MOST_KILLS_IN_A_ROW = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, and when to look again (monotonic seconds) where only time is waited for."""

    actions: tuple[Action, ...] = ()
    wake_at: float | None = None


def plan(desired: ModelDesired | None, observed: ModelObserved, now: float) -> Plan:
    """Decide for one model. desired None: the model is to go, whatever it is."""
    if desired is None:
        return Plan(tuple(Stop(each.incarnation, "no longer wanted") for each in _living(observed)))
    planner = _Planner(desired, observed, now)
    return Plan(tuple(planner.actions()), planner.wake_at)


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


def _living(observed: ModelObserved) -> list[ReplicaObserved]:
    return [each for each in observed.replicas if each.state != "stopping"]


class _Planner:
    """One decision. It collects the earliest time at which waiting ends; everything else is read-only."""

    def __init__(self, desired: ModelDesired, observed: ModelObserved, now: float) -> None:
        self.desired = desired
        self.observed = observed
        self.now = now
        self.wake_at: float | None = None
        living = _living(observed)
        self.dead = [each for each in living if each.state == "dead"]
        alive = [each for each in living if each.state != "dead"]
        routed = observed.routed
        self.routed_to = {incarnation for incarnation, _ in routed.upstreams} if routed is not None else set()
        self.fresh = self.one_for_each_index(alive)
        self.stale = [each for each in alive if each not in self.fresh]
        self.orphaned = [each for each in self.dead if each.revivable]  # their workers may well serve on
        self.serving = [each for each in alive if routed is not None and each.replica_hash == routed.replica_hash]

    def one_for_each_index(self, alive: list[ReplicaObserved]) -> list[ReplicaObserved]:
        found: dict[int, ReplicaObserved] = {}
        for each in sorted(alive, key=lambda each: each.incarnation not in self.routed_to):
            if each.replica_hash == self.desired.replica_hash and each.index < self.desired.replicas:
                found.setdefault(each.index, each)
        return [each for each in alive if each is found.get(each.index)]

    def actions(self) -> Iterator[Action]:
        yield from self.environment()
        yield from self.revive()
        yield from self.start()
        yield from self.load()
        swap = self.swap()
        if swap is not None:
            yield swap  # what it makes superfluous is seen, and ended, once the gateways have confirmed
        else:
            yield from self.retire()
        yield from self.configure()

    def target(self, replica_hash: str) -> Generation | None:
        """What replicas of this hash should run. New requirements are for the replicas that will have them; with
        `reload.mode: replace`, so is every edit.
        """
        found = target(self.observed, replica_hash)
        if found is None or replica_hash == self.desired.replica_hash:
            return found
        if self.desired.reload.mode != "replace" and not brings_packages(self.desired, found):
            return found
        good = self.observed.good
        return None if good is None or (good.number, replica_hash) in self.observed.rejected else good

    def environment(self) -> Iterator[Action]:  # 1
        if self.observed.blocked or self.observed.environments.get(self.desired.lock_hash) is not None:
            return
        if self.target(self.desired.replica_hash) is None:
            return
        if not self.waits("build"):
            yield Build(self.desired.lock_hash, "no environment for these requirements yet")

    def revive(self) -> Iterator[Action]:  # 2
        for replica in self.dead:
            answers = replica.incarnation in self.routed_to
            if not replica.revivable or not (replica.index < self.desired.replicas or answers):
                yield Stop(replica.incarnation, "its agent ended")
            elif self.desired.replicas == 0 or self.has_to_be_built(replica):
                continue  # it leaves the route first; it is started in an environment that is built first
            elif not self.waits(f"start:{replica.index}"):
                yield Revive(replica.incarnation, "its agent ended")

    def has_to_be_built(self, replica: ReplicaObserved) -> bool:
        """Whether the replica runs in the wanted environment, which an earlier control built and this one did not."""
        known = self.observed.environments.get(self.desired.lock_hash)
        return replica.replica_hash == self.desired.replica_hash and known in {None, "building"}

    def start(self) -> Iterator[Action]:  # 3
        if self.observed.environments.get(self.desired.lock_hash) != "ready" or self.observed.blocked:
            return
        if self.target(self.desired.replica_hash) is None:
            return
        there = {each.index for each in self.fresh} | {
            each.index for each in self.dead if each.revivable and each.replica_hash == self.desired.replica_hash
        }
        cause = "its specification changed" if self.stale else "not there"
        for index in range(self.desired.replicas):
            if index not in there and not self.waits(f"start:{index}"):
                yield Start(index, cause)

    def load(self) -> Iterator[Action]:  # 4
        superseded = self.observed.superseded
        for replica in [*self.fresh, *(each for each in self.serving if each in self.stale and self.serves_on(each))]:
            wanted = self.target(replica.replica_hash)
            if replica.state != "up" or wanted is None:
                continue
            if any(each.generation == wanted.number and each.state != "draining" for each in replica.workers):
                continue
            if (replica.incarnation, wanted.number) in self.observed.halted:
                continue
            loading = [each for each in replica.workers if each.state == "loading"]
            if loading and superseded >= MOST_KILLS_IN_A_ROW:
                continue
            draining = sum(each.state == "draining" for each in replica.workers)
            if draining >= self.desired.reload.max_draining or self.waits(f"load:{replica.incarnation}"):
                continue
            for worker in loading:
                yield Kill(replica.incarnation, worker.generation, worker.attempt, f"g{wanted.number} is newer")
            yield Load(replica.incarnation, wanted.number, self.why(replica, wanted))

    def serves_on(self, replica: ReplicaObserved) -> bool:
        """Whether a stale replica stays until others answer."""
        elsewhere = replica.replica_hash != self.desired.replica_hash
        return self.desired.replicas > 0 and (elsewhere or replica.incarnation in self.routed_to)

    def why(self, replica: ReplicaObserved, wanted: Generation) -> str:
        routed = self.observed.routed
        if routed is None:
            return "first start"
        if (routed.generation, routed.replica_hash) == (wanted.number, replica.replica_hash):
            return "its worker ended"
        if not replica.workers:
            return "new replica"
        return ", ".join(wanted.changed[:3]) + (" …" if len(wanted.changed) > 3 else "") or "asked for"

    def swap(self) -> Swap | None:  # 5
        wish, routed = self.desired.replica_hash, self.observed.routed
        found = self.newest(self.wanted_and_there(), wish, self.desired.replicas)
        if found is not None:
            return self.swap_unless_done(found[0], wish, found[1])
        if routed is None:
            return None
        found = self.newest(self.serving, routed.replica_hash, len(self.serving))
        if found is not None and found[0] > routed.generation:
            return self.swap_unless_done(found[0], routed.replica_hash, found[1])
        return self.swap_unless_done(routed.generation, routed.replica_hash, self.still_ready(routed))

    def wanted_and_there(self) -> list[ReplicaObserved]:
        """Fresh replicas, and those with a dead agent that will be once it is back: their workers serve meanwhile."""
        taken = {each.index for each in self.fresh}
        returning = [
            each
            for each in self.orphaned
            if each.replica_hash == self.desired.replica_hash
            and each.index < self.desired.replicas
            and each.index not in taken
        ]
        return [*self.fresh, *returning]

    def newest(
        self, replicas: list[ReplicaObserved], replica_hash: str, complete: int
    ) -> tuple[int, frozenset[tuple[str, int]]] | None:
        """The newest generation that gateways may be sent to on these replicas, and its workers.

        That is what they should run, or a newer one than is routed that was let finish though a newer was wanted.
        """
        wanted, routed = self.target(replica_hash), self.observed.routed
        numbers = {wanted.number} if wanted is not None else set()
        before = routed.generation if routed is not None else 0
        numbers |= {each.generation for replica in replicas for each in replica.workers if each.generation > before}
        for number in sorted(numbers, reverse=True):
            ready = _ready(replicas, number)
            if ready and self.may_swap(number, replica_hash, replicas, ready, complete):
                return number, ready
        return None

    def still_ready(self, routed: Routed) -> frozenset[tuple[str, int]]:
        if self.desired.replicas == 0:
            return frozenset()
        kept = frozenset[tuple[str, int]]()
        if routed.replica_hash == self.desired.replica_hash:
            kept = _ready(self.wanted_and_there(), routed.generation)
        orphaned = [each for each in self.orphaned if each.replica_hash == routed.replica_hash]
        return kept or _ready([*self.serving, *orphaned], routed.generation)

    def may_swap(
        self,
        number: int,
        replica_hash: str,
        replicas: list[ReplicaObserved],
        ready: frozenset[tuple[str, int]],
        complete: int,
    ) -> bool:
        routed = self.observed.routed
        if routed is None or not routed.upstreams:
            return True
        if (routed.generation, routed.replica_hash) == (number, replica_hash):
            return True  # a laggard or a respawned worker joins, or one has left
        if number < routed.generation and replica_hash == routed.replica_hash:
            return False
        if len(ready) >= complete:
            return True
        since = [each.since for replica in replicas for each in replica.workers if each.generation == number]
        deadline = max(since, default=self.now) + self.desired.load_timeout
        if self.now >= deadline:
            return True
        self.wake(deadline)
        return False

    def swap_unless_done(self, generation: int, replica_hash: str, ready: frozenset[tuple[str, int]]) -> Swap | None:
        routed = self.observed.routed
        if routed == Routed(generation, replica_hash, ready):
            return None
        if routed is None or routed.generation != generation or routed.replica_hash != replica_hash:
            cause = "ready"
        else:
            cause = "a worker joined" if ready > routed.upstreams else "a worker ended"
        return Swap(generation, replica_hash, ready, cause)

    def retire(self) -> Iterator[Action]:  # 6
        routed = self.observed.routed
        done = routed is None or (routed.replica_hash == self.desired.replica_hash and bool(routed.upstreams))
        for replica in self.stale:
            too_many = replica.replica_hash == self.desired.replica_hash or self.desired.replicas == 0
            if replica.incarnation in self.routed_to:
                continue
            if done or too_many or replica not in self.serving:
                yield Stop(replica.incarnation, "replaced" if routed else "its specification changed")
        for replica in [*self.fresh, *(each for each in self.serving if each in self.stale and not done)]:
            wanted = self.target(replica.replica_hash)
            for worker in replica.workers:
                if replica.state == "up" and self.superfluous(replica, worker, wanted):
                    yield Retire(replica.incarnation, worker.generation, worker.attempt, "replaced")

    def superfluous(self, replica: ReplicaObserved, worker: WorkerObserved, wanted: Generation | None) -> bool:
        routed = self.observed.routed
        if worker.state != "ready" or routed is None or not routed.upstreams:
            return False
        if (replica.incarnation, worker.attempt) in routed.upstreams and worker.generation == routed.generation:
            return False
        if worker.generation > routed.generation and self.loads(worker.generation):
            return False  # what was let finish lands once it is ready everywhere
        return wanted is None or worker.generation != wanted.number

    def loads(self, generation: int) -> bool:
        """Whether a worker of a generation is still loading somewhere."""
        workers = [worker for replica in self.observed.replicas for worker in replica.workers]
        return any((each.generation, each.state) == (generation, "loading") for each in workers)

    def configure(self) -> Iterator[Action]:  # 7
        for replica in self.fresh:
            told = (replica.serving, replica.load_timeout)
            if replica.state == "up" and replica.workers and told != (self.desired.serving, self.desired.load_timeout):
                yield Configure(replica.incarnation, "limits changed")

    def waits(self, key: str) -> bool:
        """Whether `key` may not be tried yet; remembers when it may."""
        at = self.observed.retry_at.get(key, self.now)
        if at <= self.now:
            return False
        self.wake(at)
        return True

    def wake(self, at: float) -> None:
        self.wake_at = at if self.wake_at is None else min(self.wake_at, at)


def _ready(replicas: list[ReplicaObserved], generation: int) -> frozenset[tuple[str, int]]:
    return frozenset(
        (replica.incarnation, worker.attempt)
        for replica in replicas
        for worker in replica.workers
        if worker.generation == generation and worker.state == "ready"
    )
