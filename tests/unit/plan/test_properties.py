"""What holds of the planner and of the status whatever happens, in whatever order: played on a pretend machine."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from orchestrator.plan.lifecycle import ANSWERS
from orchestrator.plan.types import Serving
from tests.unit.plan.life import Life
from tests.unit.plan.world import Replica, Worker

THEN = st.sampled_from(("settle", "settle", "settle", "look", "nothing"))
FATES = st.sampled_from(("good", "good", "broken", "hang", "tied"))
PICK = st.integers(0, 7)


class AnyLife(RuleBasedStateMachine):
    """then: how far control gets before the next thing happens."""

    def __init__(self) -> None:
        super().__init__()
        self.world = Life()
        self.broken = False

    def act(self, what: str, then: str) -> None:
        self.world.log.append(f"{self.world.now:g} * {what}")
        self.broken = True
        if then == "settle":
            self.world.settle()
            self.told_as_it_is()
        elif then == "look":
            self.world.look()
        self.broken = False

    def told_as_it_is(self) -> None:
        world = self.world
        answers = bool(world.answering(world.routed))
        assert (world.status.state in ANSWERS) == answers, f"told {world.status} and answers: {answers}"

    @initialize(revivable=st.booleans(), replicas=st.sampled_from((1, 1, 2, 3)), fate=FATES)
    def begin(self, revivable: bool, replicas: int, fate: str) -> None:
        self.world.revivable = revivable
        self.world.wish = replace(self.world.wish, replicas=replicas)
        self.world.save(fate)

    @rule(fate=FATES, then=THEN)
    def save(self, fate: str, then: str) -> None:
        self.world.save(fate)
        self.act(f"save g{self.world.wanted.number} {fate}", then)

    @rule(pick=PICK, then=THEN)
    def go_back(self, pick: int, then: str) -> None:
        numbers = list(self.world.generations)
        self.world.go_back(numbers[-1 - pick % len(numbers)])
        self.act(f"g{self.world.wanted.number} is {self.world.wanted.content} again", then)

    @rule(fate=FATES)
    def save_while_gateways_confirm(self, fate: str) -> None:
        saved = []
        self.world.look(lambda: saved.append(self.world.save(fate)))
        self.act(f"{len(saved)} saved meanwhile", "settle")

    @rule(lock=st.sampled_from(("lock-1", "lock-2", "lock-3")), limits=st.sampled_from("ab"), then=THEN)
    def change_specification(self, lock: str, limits: str, then: str) -> None:
        self.world.want(replace(self.world.wish, lock_hash=lock, replica_hash=f"1:{lock}-{limits}"))
        self.act(f"wants {lock}-{limits}", then)

    @rule(lock=st.sampled_from(("lock-1", "lock-2", "lock-3")), fate=FATES, then=THEN)
    def change_requirements(self, lock: str, fate: str, then: str) -> None:
        self.world.want(replace(self.world.wish, lock_hash=lock, replica_hash=f"1:{lock}-a"))
        self.world.save(fate, changed="requirements.txt")
        self.act(f"wants {lock}, g{self.world.wanted.number} {fate}", then)

    @rule(lock=st.sampled_from(("lock-2", "lock-3")))
    def package_index_changes(self, lock: str) -> None:
        self.world.unbuildable ^= {lock}
        self.act(f"unbuildable: {sorted(self.world.unbuildable)}", "nothing")

    @rule(replicas=st.integers(0, 3), then=THEN)
    def scale(self, replicas: int, then: str) -> None:
        self.world.want(replace(self.world.wish, replicas=replicas))
        self.act(f"replicas: {replicas}", then)

    @rule(concurrency=st.integers(1, 2), then=THEN)
    def limit(self, concurrency: int, then: str) -> None:
        self.world.want(replace(self.world.wish, serving=Serving(concurrency=concurrency)))
        self.act(f"concurrency: {concurrency}", then)

    @rule(mode=st.sampled_from(("auto", "replace")), then=THEN)
    def reload_mode(self, mode: str, then: str) -> None:
        self.world.want(replace(self.world.wish, reload=replace(self.world.wish.reload, mode=mode)))
        self.act(f"mode: {mode}", then)

    @precondition(lambda self: self.world.pending())
    @rule(pick=PICK, then=THEN)
    def something_finishes(self, pick: int, then: str) -> None:
        events = self.world.pending()
        name, event = events[pick % len(events)]
        event()
        self.act(name, then)

    @rule(then=THEN)
    def all_finishes(self, then: str) -> None:
        for _ in range(12):
            if events := self.world.pending():
                events[0][1]()
                self.act(events[0][0], "settle")
        self.act("finished what was under way", then)

    @precondition(lambda self: self.workers())
    @rule(pick=PICK, cause=st.sampled_from(("signal 9", "exit 0")), then=THEN)
    def worker_dies(self, pick: int, cause: str, then: str) -> None:
        workers = self.workers()
        replica, worker = workers[pick % len(workers)]
        self.world.end_worker(replica, worker, cause)
        self.act(f"{replica.incarnation}-{worker.attempt} died: {cause}", then)

    @precondition(lambda self: self.replicas("up", "lost", "starting"))
    @rule(pick=PICK, then=THEN)
    def agent_dies(self, pick: int, then: str) -> None:
        replicas = self.replicas("up", "lost", "starting")
        replica = replicas[pick % len(replicas)]
        self.world.end_agent(replica)
        self.act(f"the agent of {replica.incarnation} died", then)

    @precondition(lambda self: self.replicas("up"))
    @rule(pick=PICK, then=THEN)
    def connection_is_lost(self, pick: int, then: str) -> None:
        replicas = self.replicas("up")
        replicas[pick % len(replicas)].state = "lost"
        self.act("a connection was lost", then)

    @precondition(lambda self: [each for each in self.replicas("starting") if not each.workers])
    @rule(then=THEN)
    def start_fails(self, then: str) -> None:
        replica = next(each for each in self.replicas("starting") if not each.workers)
        self.world.fail_start(replica)
        self.act(f"{replica.incarnation} did not start", then)

    @rule(short=st.booleans(), then=THEN)
    def memory_gets_short(self, short: bool, then: str) -> None:
        self.world.short = short
        self.act("memory is short" if short else "memory is plenty", then)

    @rule(seconds=st.sampled_from((0.05, 1.0, 21.0, 90.0)), then=THEN)
    def time_passes(self, seconds: float, then: str) -> None:
        self.world.now += seconds
        self.act("later", then)

    @rule(then=THEN)
    def reload(self, then: str) -> None:
        self.world.reload()
        self.act(f"reload: g{self.world.wanted.number}", then)

    @rule(then=THEN)
    def control_restarts(self, then: str) -> None:
        self.world.restart_control()
        self.act("a new control", then)

    def replicas(self, *states: str) -> list[Replica]:
        return [each for each in self.world.replicas.values() if each.state in states]

    def workers(self) -> list[tuple[Replica, Worker]]:
        return [
            (replica, worker) for replica in self.replicas("up", "lost", "dead") for worker in replica.workers.values()
        ]

    def teardown(self) -> None:
        """Left alone, it becomes what is wanted."""
        world = self.world
        try:
            if self.broken or world.wanted is None:
                return
            world.settle()
            answered = bool(world.answering(world.routed))
            world.run_out()
            self.converged(answered)
        finally:
            note("\n".join(world.log))

    def converged(self, answered: bool) -> None:
        world = self.world
        wanted, desired = world.wanted, world.desired
        assert wanted is not None
        self.told_as_it_is()
        upstreams = world.answering(world.routed)
        if not world.halted:
            idle = [
                f"{replica.incarnation}-{worker.attempt}"
                for replica in world.replicas.values()
                for worker in replica.workers.values()
                if (replica.incarnation, worker.attempt) not in upstreams
            ]
            assert not idle, f"superfluous workers: {idle}"
        if desired.replicas == 0:
            assert not world.replicas, "replicas: 0"
            assert world.status.state == "stopped"
            return
        fate, lock = world.fates[wanted.content]
        works = fate == "good" or (fate == "tied" and lock == desired.lock_hash)
        if works and not self.excused():
            assert (world.routed.generation, world.routed.replica_hash) == (wanted.number, desired.replica_hash)
            assert sorted(each.index for each in world.replicas.values()) == list(range(desired.replicas))
            assert len(upstreams) == desired.replicas
            assert (world.status.state, world.status.reason) == ("running", "")
        elif not works:
            assert world.status.state in {"degraded", "failed"}, f"told {world.status} of what does not work"
            assert world.status.problem is not None
            self.last_good_serves(upstreams)
        if answered and not world.halted and not world.given_up:
            assert upstreams, "what answered does not any more"

    def last_good_serves(self, upstreams: list[tuple[str, int]]) -> None:
        """What was good before a wanted content that does not work answers on all replicas, where they can be had."""
        world, good = self.world, self.world.good
        if good is None or not upstreams or world.halted or good.number in world.blamed:
            return
        assert world.routed.generation == good.number
        if world.environments.get(world.desired.lock_hash) == "failed":
            return
        runs = {each.replica_hash for each in world.replicas.values()}
        fate, lock = world.fates[good.content]
        if runs == {world.desired.replica_hash} and (fate == "good" or lock == world.desired.lock_hash):
            assert len(upstreams) == world.desired.replicas, "not all of its replicas are back"

    def excused(self) -> bool:
        """Whether what is wanted works and is rightly not served."""
        world = self.world
        return (
            world.environments.get(world.desired.lock_hash) == "failed"
            or bool(world.halted)
            or world.wanted.number in world.blamed
        )


AnyLife.TestCase.settings = settings(
    report_multiple_bugs=False,  # one at a time, in seconds
    max_examples=200,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestAnyLife = AnyLife.TestCase
