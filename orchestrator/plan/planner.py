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
   While `max_draining` older generations finish what they have, the newest that is ready waits, and so nothing is cut.
6. Workers that no gateway is sent to, and that nothing waits for, are retired; replicas likewise are stopped.
7. Limits that changed are sent to the workers that run.
8. Where two generations do not fit (`tight`), the new one is compiled and imported, and waits. The gateways are sent
   away from what serves there, that is retired, and when it has ended the new one proceeds; if it fails, the generation
   before it is loaded again. Of several replicas one after the other does so, and the others answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.plan.actions import Action, Build, Configure, Kill, Load, Proceed, Retire, Revive, Start, Stop
from orchestrator.plan.observed import ModelObserved, ReplicaObserved, WorkerObserved
from orchestrator.plan.overlap import Tight
from orchestrator.plan.routing import Routing
from orchestrator.plan.situation import MOST_KILLS_IN_A_ROW, Situation, living
from orchestrator.plan.types import Generation, ModelDesired


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, and when to look again (monotonic seconds) where only time is waited for."""

    actions: tuple[Action, ...] = ()
    wake_at: float | None = None


def plan(desired: ModelDesired | None, observed: ModelObserved, now: float) -> Plan:
    """Decide for one model. desired None: the model is to go, whatever it is."""
    if desired is None:
        return Plan(tuple(Stop(each.incarnation, "no longer wanted") for each in living(observed)))
    situation = Situation(desired, observed, now)
    return Plan(tuple(_Planner(situation).actions()), situation.wake_at)


class _Planner:
    """One decision."""

    def __init__(self, situation: Situation) -> None:
        self.at = situation
        self.desired = situation.desired
        self.observed = situation.observed

    def actions(self) -> Iterator[Action]:
        yield from self.environment()
        yield from self.revive()
        yield from self.start()
        yield from self.load()
        swap = Routing(self.at).swap()
        if swap is not None:
            yield swap  # what it makes superfluous is seen, and ended, once the gateways have confirmed
        else:
            yield from self.retire()
            yield from self.proceed()
        yield from self.configure()

    def environment(self) -> Iterator[Action]:  # 1
        if self.observed.blocked or self.observed.environments.get(self.desired.lock_hash) is not None:
            return
        if self.at.target(self.desired.replica_hash) is None:
            return
        if not self.at.waits("build"):
            yield Build(self.desired.lock_hash, "no environment for these requirements yet")

    def revive(self) -> Iterator[Action]:  # 2
        for replica in self.at.dead:
            answers = replica.incarnation in self.at.routed_to
            if not replica.revivable or not (replica.index < self.desired.replicas or answers):
                yield Stop(replica.incarnation, "its agent ended")
            elif self.desired.replicas == 0 or self.has_to_be_built(replica):
                continue  # it leaves the route first; it is started in an environment that is built first
            elif not self.at.waits(f"start:{replica.index}"):
                yield Revive(replica.incarnation, "its agent ended")

    def has_to_be_built(self, replica: ReplicaObserved) -> bool:
        """Whether the replica runs in the wanted environment, which an earlier control built and this one did not."""
        known = self.observed.environments.get(self.desired.lock_hash)
        return replica.replica_hash == self.desired.replica_hash and known in {None, "building"}

    def start(self) -> Iterator[Action]:  # 3
        if self.observed.environments.get(self.desired.lock_hash) != "ready" or self.observed.blocked:
            return
        if self.at.target(self.desired.replica_hash) is None:
            return
        there = {each.index for each in self.at.fresh} | {
            each.index for each in self.at.dead if each.revivable and each.replica_hash == self.desired.replica_hash
        }
        cause = "its specification changed" if self.at.stale else "not there"
        for index in range(self.desired.replicas):
            if index not in there and not self.at.waits(f"start:{index}"):
                yield Start(index, cause)

    def load(self) -> Iterator[Action]:  # 4
        for replica in self.at.loadable():
            wanted = self.at.target(replica.replica_hash)
            candidate = self.at.candidate(replica)
            for worker in replica.workers:
                if worker.state == "paused" and worker is not candidate:
                    yield Kill(replica.incarnation, worker.generation, worker.attempt, "it need not wait any more")
            if wanted is not None and self.may_load(replica, wanted, candidate):
                yield from self.begin(replica, wanted)

    def may_load(self, replica: ReplicaObserved, wanted: Generation, candidate: WorkerObserved | None) -> bool:
        if any(each.generation == wanted.number and each.state != "draining" for each in replica.workers):
            return False
        if (replica.incarnation, wanted.number) in self.observed.halted or candidate is not None:
            return False
        loading = [each for each in replica.workers if each.state == "loading"]
        if loading and self.observed.superseded >= MOST_KILLS_IN_A_ROW:
            return False
        staying = sum(each.state in {"ready", "draining"} for each in replica.workers)
        if staying > self.desired.reload.max_draining + 1:  # a candidate that waits for its swap has to go first
            return False
        return not self.at.waits(f"load:{replica.incarnation}")

    def begin(self, replica: ReplicaObserved, wanted: Generation) -> Iterator[Action]:
        for worker in replica.workers:
            if worker.state == "loading":
                yield Kill(replica.incarnation, worker.generation, worker.attempt, f"g{wanted.number} is newer")
        tight = self.tight(replica, wanted)
        if tight is None:
            yield Load(replica.incarnation, wanted.number, self.why(replica, wanted))
        else:
            why = f"{self.why(replica, wanted)}; stop-first: {tight.reason}"
            yield Load(replica.incarnation, wanted.number, why, tight.pause)

    def tight(self, replica: ReplicaObserved, wanted: Generation) -> Tight | None:  # 8
        """Why what runs in this replica ends before `wanted` loads; None where it need not."""
        newest, routed = self.observed.wanted, self.observed.routed
        if newest is None or newest.number != wanted.number or (routed and routed.generation == wanted.number):
            return None
        return self.observed.tight if any(each.state in {"ready", "draining"} for each in replica.workers) else None

    def proceed(self) -> Iterator[Action]:  # 8
        for replica in self.at.loadable():
            candidate = self.at.candidate(replica)
            if candidate is not None and len(replica.workers) == 1:
                yield Proceed(replica.incarnation, candidate.generation, candidate.attempt, "nothing else runs there")

    def why(self, replica: ReplicaObserved, wanted: Generation) -> str:
        routed = self.observed.routed
        if routed is None:
            return "first start"
        if (routed.generation, routed.replica_hash) == (wanted.number, replica.replica_hash):
            return "its worker ended"
        if not replica.workers:
            return "new replica"
        return ", ".join(wanted.changed[:3]) + (" …" if len(wanted.changed) > 3 else "") or "asked for"

    def retire(self) -> Iterator[Action]:  # 6
        routed = self.observed.routed
        done = routed is None or (routed.replica_hash == self.desired.replica_hash and bool(routed.upstreams))
        for replica in self.at.stale:
            too_many = replica.replica_hash == self.desired.replica_hash or self.desired.replicas == 0
            if replica.incarnation in self.at.routed_to:
                continue
            if done or too_many or replica not in self.at.serving:
                yield Stop(replica.incarnation, "replaced" if routed else "its specification changed")
        for replica in [*self.at.fresh, *(each for each in self.at.serving if each in self.at.stale and not done)]:
            wanted = self.at.target(replica.replica_hash)
            for worker in replica.workers:
                if replica.state == "up" and self.superfluous(replica, worker, wanted):
                    yield Retire(replica.incarnation, worker.generation, worker.attempt, "replaced")

    def superfluous(self, replica: ReplicaObserved, worker: WorkerObserved, wanted: Generation | None) -> bool:
        routed = self.observed.routed
        if worker.state == "ready" and replica.incarnation in self.at.giving_way - self.at.routed_to:  # 8
            return True
        if worker.state != "ready" or routed is None or not routed.upstreams:
            return False
        if (replica.incarnation, worker.attempt) in routed.upstreams and worker.generation == routed.generation:
            return False
        if worker.generation > routed.generation and self.at.loads(worker.generation):
            return False  # what was let finish lands once it is ready everywhere
        return wanted is None or worker.generation != wanted.number

    def configure(self) -> Iterator[Action]:  # 7
        for replica in self.at.fresh:
            told = (replica.serving, replica.load_timeout)
            if replica.state == "up" and replica.workers and told != (self.desired.serving, self.desired.load_timeout):
                yield Configure(replica.incarnation, "limits changed")
