"""What follows of what control did, and what people and the machine do: events on a `World`, in any order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.plan import backoff
from orchestrator.plan.observed import Problem, Routed
from orchestrator.plan.status import Status
from orchestrator.plan.types import Generation, ModelDesired
from tests.unit.plan.world import Fate, Replica, Worker, World


@dataclass(slots=True)
class Life(World):
    """A world in which things happen."""

    # What may follow

    def pending(self) -> list[tuple[str, Callable[[], None]]]:
        """Everything that is under way and may happen now, each with what it does."""
        found: list[tuple[str, Callable[[], None]]] = [
            (f"built {lock_hash}", lambda lock_hash=lock_hash: self._built(lock_hash))
            for lock_hash, state in self.environments.items()
            if state == "building"
        ]
        for replica in self.replicas.values():
            found += self._pending_of(replica)
        return found

    def _pending_of(self, replica: Replica) -> list[tuple[str, Callable[[], None]]]:
        name = replica.incarnation
        if replica.state == "stopping":
            return [(f"gone {name}", lambda: self._gone(replica))]
        if replica.doomed and replica.state != "dead":
            return [(f"ended {name}", lambda: self.end_agent(replica))]
        if replica.state in {"starting", "lost"}:
            return [(f"greeted {name}", lambda: self._greeted(replica))]
        found: list[tuple[str, Callable[[], None]]] = []
        for worker in replica.workers.values() if replica.state == "up" else ():
            who = f"{name} g{worker.generation.number}-{worker.attempt}"
            if worker.killed or worker.state == "draining":
                found.append((f"exited {who}", lambda worker=worker: self._left(replica, worker)))
            if worker.state == "loading" and (verdict := self._verdict(replica, worker)):
                found.append((f"{verdict} {who}", lambda worker=worker: self._loaded(replica, worker)))
        return found

    def _verdict(self, replica: Replica, worker: Worker) -> str:
        fate, lock = self.fates[worker.generation.content]
        if worker.pauses:
            return "failed" if fate == "broken" else "paused"
        if fate == "hang":
            return "failed" if self.now >= worker.loads_since + self.desired.load_timeout else ""
        return "ready" if fate == "good" or (fate == "tied" and lock == replica.born) else "failed"

    def _built(self, lock_hash: str) -> None:
        self.environments[lock_hash] = "failed" if lock_hash in self.unbuildable else "ready"
        if lock_hash not in self.unbuildable:
            self.built.add(lock_hash)
        if lock_hash != self.desired.lock_hash:
            return
        if lock_hash in self.unbuildable:
            self.trouble["build"] = Problem("build", "no matching distribution", phase="build", reference="build")
        else:
            self.trouble.pop("build", None)

    def _greeted(self, replica: Replica) -> None:
        replica.workers |= replica.unseen
        replica.unseen = {}
        for worker in [each for each in replica.workers.values() if each.gone]:
            self._died(replica, worker, "unknown")
        replica.state = "up"
        self.trouble.pop("start", None)

    def _loaded(self, replica: Replica, worker: Worker) -> None:
        verdict = self._verdict(replica, worker)
        if verdict == "paused":
            worker.state, worker.pauses = "paused", False
        elif verdict == "ready":
            worker.state = "ready"
            self.retry_at.pop(f"load:{replica.incarnation}", None)
        else:
            self._failed(replica, worker)

    def _left(self, replica: Replica, worker: Worker) -> None:
        del replica.workers[worker.attempt]

    def _failed(self, replica: Replica, worker: Worker) -> None:
        del replica.workers[worker.attempt]
        if worker.killed:
            return
        self.superseded = 0
        number, routed = worker.generation.number, self.routed
        here = None if routed is None else (routed.generation, routed.replica_hash)
        if routed is not None and here == (number, replica.replica_hash) and routed.upstreams:
            self._failure(f"load:{replica.incarnation}")
        else:
            self.rejected[(number, replica.replica_hash)] = Problem("ImportError", "as asked", "main.py", 1)

    def _died(self, replica: Replica, worker: Worker, cause: str) -> None:
        if worker.killed or worker.state == "draining" or replica.state == "stopping":
            del replica.workers[worker.attempt]
        elif worker.state in {"loading", "paused"}:
            if cause == "unknown":
                del replica.workers[worker.attempt]
            else:
                self.blamed.add(worker.generation.number)
                self._failed(replica, worker)
        else:
            del replica.workers[worker.attempt]
            comes_back = self.desired.restart == "always" or cause != "exit 0"
            if not comes_back:
                self.halted.add((replica.incarnation, worker.generation.number))
            self._failure(f"load:{replica.incarnation}")

    def _gone(self, replica: Replica) -> None:
        del self.replicas[replica.incarnation]
        self.halted = {each for each in self.halted if each[0] != replica.incarnation}

    def _failure(self, key: str) -> None:
        count, last = self.failures.get(key, (0, self.now))
        count = 1 if self.now - last > backoff.FORGET_AFTER else count + 1
        self.failures[key] = (count, self.now)
        self.retry_at[key] = self.now + backoff.delay(count)

    # What people and the world do

    def save(self, fate: Fate, *, changed: str = "main.py") -> None:
        """An edit is a generation."""
        number = len(self.generations) + 1
        self.fates[f"c{number}"] = (fate, self.wish.lock_hash)
        self._generation(f"c{number}", changed)

    def _generation(self, content: str, changed: str) -> None:
        number = len(self.generations) + 1
        self.wanted = Generation("m", number, content, f"tree-{number}", changed=(changed,))
        self.generations[number] = self.wanted

    def go_back(self, number: int) -> None:
        """An earlier content again."""
        self._generation(self.generations[number].content, "main.py")

    def want(self, wish: ModelDesired) -> None:
        """As Model.want."""
        if wish.replica_hash != self.wish.replica_hash:
            self.trouble.clear()
            if self.environments.get(wish.lock_hash) == "failed":
                del self.environments[wish.lock_hash]
        if wish.lock_hash != self.wish.lock_hash and self.environments.get(wish.lock_hash) != "building":
            self.environments.pop(wish.lock_hash, None)
        self.wish = wish

    def reload(self) -> None:
        """As Model.reload: what failed is forgotten, and the same content is a new generation."""
        self.rejected.clear()
        self.failures.clear()
        self.retry_at.clear()
        self.halted.clear()
        self.trouble.clear()
        self.environments = {key: state for key, state in self.environments.items() if state != "failed"}
        if self.wanted is not None:
            self._generation(self.wanted.content, "main.py")

    def end_worker(self, replica: Replica, worker: Worker, cause: str) -> None:
        """A worker ends by itself; control hears of it where its agent is there to tell."""
        if replica.state in {"up", "stopping"}:
            self._died(replica, worker, cause)
        else:
            worker.gone = True

    def end_agent(self, replica: Replica) -> None:
        """An agent dies, its workers with it where the runtime is of that kind (or it was told to end)."""
        replica.agent = False
        if replica.state == "stopping":
            return
        replica.state = "dead"
        if not self.revivable:
            replica.workers.clear()
        elif replica.doomed:
            for worker in replica.workers.values():
                worker.gone = True
        replica.doomed = False
        self._failure(f"start:{replica.index}")

    def fail_start(self, replica: Replica) -> None:
        """A start fails: its agent does not come."""
        self.trouble["start"] = Problem("start", "no agent", phase="start", reference="start")
        self._failure(f"start:{replica.index}")
        self._stop(replica)

    def restart_control(self) -> None:
        """As Model.adopt: what is not with agents or on disk is forgotten."""
        self.environments, self.built, self.restarted = {}, set(), True
        self.rejected, self.trouble, self.failures, self.retry_at = {}, {}, {}, {}
        self.halted, self.superseded = set(), 0
        for replica in self.replicas.values():
            if replica.state == "stopping":
                replica.doomed = True
            replica.remembered = replica.replica_hash.partition("+")[0] == self.wish.replica_hash
            replica.state = "up" if replica.agent else "dead"
            for worker in list(replica.workers.values()):
                if worker.gone or worker.killed:
                    del replica.workers[worker.attempt]
                elif replica.doomed:
                    worker.state = "draining"
                else:
                    worker.since = worker.loads_since = self.now
            if replica.state == "dead":
                replica.unseen, replica.workers = {**replica.unseen, **replica.workers}, {}
        self._recall()

    def _recall(self) -> None:
        active = [
            (worker.generation.number, replica.replica_hash, (replica.incarnation, worker.attempt))
            for replica in self.replicas.values()
            for worker in replica.workers.values()
            if worker.state == "ready" and worker.generation.number == replica.active
        ]
        self.routed = self.good = None
        if active:
            number, replica_hash, _ = max(active, key=lambda each: each[0])
            upstreams = frozenset(who for n, h, who in active if (n, h) == (number, replica_hash))
            self.routed, self.good = Routed(number, replica_hash, upstreams), self.generations[number]
        elif any(replica.state == "up" for replica in self.replicas.values()):
            self.good = self.marked
        self.status = Status("pending")
        self._publish()

    def run_out(self) -> None:
        """Let everything happen that is under way, and time pass, until nothing is."""
        for _ in range(400):
            self.settle()
            if events := self.pending():
                name, event = events[0]
                self.log.append(f"{self.now:g} {name}")
                event()
                continue
            times = [self.wake_at] if self.wake_at is not None else []
            times += [
                worker.loads_since + self.desired.load_timeout
                for replica in self.replicas.values()
                for worker in replica.workers.values()
                if worker.state == "loading" and replica.state == "up" and not worker.killed
            ]
            if not times:
                return
            self.now = max(self.now, min(times))
        raise AssertionError("it never comes to rest")
