"""What agents and runtimes tell about one model, entered into its state; and what is told on: events and the route."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from orchestrator.control.agents import Message
from orchestrator.control.memory import peak_of
from orchestrator.control.reloads import Reloads
from orchestrator.control.replica import Replica, Worker, problem
from orchestrator.control.state import ModelState
from orchestrator.control.world import World
from orchestrator.plan.lifecycle import move
from orchestrator.plan.observed import Problem, Routed
from orchestrator.plan.status import Status, status
from orchestrator.plan.types import Generation
from orchestrator.ports import ReplicaExit, Route, Upstream

Lookup = Callable[[int], Generation | None]


class Reports:
    """Enters news about one model. `wake` asks for a new look at it; `lookup` finds a stored generation by number."""

    def __init__(self, state: ModelState, world: World, lookup: Lookup, wake: Callable[[], None]) -> None:
        self._state = state
        self._world = world
        self._lookup = lookup
        self._wake = wake
        self.reloads = Reloads(state, world)

    # What agents say

    def receive(self, replica: Replica, message: Message) -> None:
        """Enter one message of an agent. What is malformed or unknown is ignored: the model can reach that socket."""
        kind = message.get("type")
        if kind == "state":
            self._greeted(replica, message)
        elif kind == "logged":
            self._world.logs.poke(replica.incarnation)
            return
        elif kind == "activated":
            replica.activated.set()
            return
        elif kind == "configured":
            replica.confirmed()
        elif kind == "zygote":
            before = replica.unforkable
            replica.zygote = {key: message.get(key) for key in ("state", "pid", "reason", "imports")}
            self.reloads.forkability(before, replica.unforkable)
        elif kind == "usage":
            used = message.get("memory")
            replica.memory = used if isinstance(used, int) else None
            replica.measured.set()
            return
        else:
            self._about_worker(replica, message)
            if kind == "phase":
                return  # nothing is to be done about it
        self._wake()

    def _greeted(self, replica: Replica, message: Message) -> None:
        listed: dict[int, Mapping[str, Any]] = {int(each["attempt"]): each for each in message.get("workers", ())}
        for attempt in [each for each in replica.workers if each not in listed]:
            self._gone(replica, replica.workers[attempt], "unknown (the agent was not connected)")
        for attempt, entry in listed.items():
            self._listed(replica, attempt, entry)
        replica.agent_pid = message.get("pid")
        replica.zygote = message.get("zygote") or {}
        told = tuple(str(each) for each in message.get("not_enforced", ()))
        replica.not_enforced = tuple(dict.fromkeys([*replica.not_enforced, *told]))
        if replica.state in {"starting", "lost"}:
            replica.state = "up"
        active = message.get("active")
        replica.active = int(active) if isinstance(active, int) else None
        replica.silent_since = None
        if replica.record is not None:
            imports = self._world.learned.of(replica.record.lock_hash, self._state.name)
            if imports:
                replica.send({"type": "learned", "imports": imports})
        replica.greeted.set()

    def _listed(self, replica: Replica, attempt: int, entry: Mapping[str, Any]) -> None:
        worker = replica.workers.get(attempt)
        if worker is None:
            generation = self._lookup(int(entry["generation"]))
            if generation is None:
                replica.send({"type": "kill", "generation": entry["generation"], "attempt": attempt})
                return
            worker = replica.workers[attempt] = Worker(generation, attempt, "loading", time.monotonic())
        if worker.state != "draining":
            worker.state = entry["state"]
        worker.socket, worker.pid = str(entry.get("socket") or ""), entry.get("pid")
        worker.info, worker.phases = entry.get("info") or {}, dict(entry.get("phases") or {})
        if worker.state == "ready":
            replica.taught = True
            self._state.peak = peak_of(entry.get("peak")) or self._state.peak

    def _about_worker(self, replica: Replica, message: Message) -> None:
        generation, attempt = message.get("generation"), message.get("attempt")
        if not isinstance(generation, int) or not isinstance(attempt, int):
            return
        worker = replica.find(generation, attempt)
        if worker is None:
            return
        kind = message.get("type")
        if kind == "phase":
            worker.phases[str(message["phase"])] = float(message["seconds"])
        elif kind == "paused" and worker.state == "loading":
            worker.state = "paused"
        elif kind == "ready":
            self._ready(replica, worker, message)
        elif kind == "failed":
            self._failed(replica, worker, problem(message.get("error") or {}, str(message.get("phase", ""))))
        elif kind == "exited":
            self._exited(replica, worker, message)

    def _ready(self, replica: Replica, worker: Worker, message: Message) -> None:
        if worker.state == "loading":
            worker.state = "ready"
        worker.socket, worker.pid = str(message["socket"]), message.get("pid")
        worker.phases, worker.info = dict(message.get("phases") or {}), message.get("info") or {}
        worker.spawned = str(message.get("spawned") or "")
        self._state.peak = peak_of(message.get("peak")) or self._state.peak
        self._state.retry_at.pop(f"load:{replica.incarnation}", None)
        if replica.record is not None:
            # The first of a replica has a zygote that no worker taught, and one of an interpreter of its own has none.
            alone = "spawn" in worker.phases or not replica.taught
            enter = self._world.learned.replace if alone else self._world.learned.add
            enter(replica.record.lock_hash, self._state.name, message.get("imports"))
        replica.taught = True

    def _failed(self, replica: Replica, worker: Worker, found: Problem) -> None:
        replica.workers.pop(worker.attempt, None)
        if worker.killed:
            return
        state, number = self._state, worker.generation.number
        state.superseded = 0
        here = Routed(number, replica.replica_hash, state.routed.upstreams) if state.routed is not None else None
        if here is not None and here == state.routed and here.upstreams:
            # It ran before: the machine, not the code, may be at fault.
            wait = state.failed(f"load:{replica.incarnation}")
            note = f"g{number} did not come back: {found.line_for_people}; again in {wait:.1f} s"
            self._world.journal.add("exit", note, model=state.name)
            return
        state.rejected[(number, replica.replica_hash)] = found
        if state.desired is not None and replica.replica_hash != state.desired.replica_hash:
            note = f"g{number} does not run on the old replicas ({found.line_for_people}): it waits for the new ones"
            self._world.journal.add("reload", note, model=state.name, generation=number)
            return
        self.reloads.rejected(replica, worker, found)

    def _exited(self, replica: Replica, worker: Worker, message: Message) -> None:
        cause = str(message.get("cause", "unknown"))
        if cut := message.get("cut"):
            self._world.meters.cut(self._state.name, int(cut))
            note = f"g{worker.generation.number}: {cut} open at the drain deadline were cut"
            self._world.journal.add("reload", note, model=self._state.name, cut=cut)
        elif worker.state == "draining" and cause == "signal 9":
            note = f"g{worker.generation.number}: killed after the drain deadline, with whatever it still had open"
            self._world.journal.add("reload", note, model=self._state.name, generation=worker.generation.number)
        if worker.drains_since is not None:
            self._world.meters.phase(self._state.name, "drain", time.monotonic() - worker.drains_since)
        self._gone(replica, worker, cause)

    def _gone(self, replica: Replica, worker: Worker, cause: str) -> None:
        if worker.killed or worker.state == "draining" or replica.state == "stopping":
            replica.workers.pop(worker.attempt, None)
        elif worker.state in {"loading", "paused"}:
            found = Problem("WorkerDied", f"ended while loading: {cause}", phase="load")
            if cause.startswith("unknown"):
                replica.workers.pop(worker.attempt, None)  # nobody saw it: try again rather than blame the code
            else:
                self._failed(replica, worker, found)
        else:
            replica.workers.pop(worker.attempt, None)
            self._died(replica, worker, cause)

    def _died(self, replica: Replica, worker: Worker, cause: str) -> None:
        """A worker that served has ended by itself: told, counted, and respawned as `restart` says."""
        state, number = self._state, worker.generation.number
        state.restarts += 1
        state.exit_code = exit_code(cause)
        restart = state.desired.restart if state.desired is not None else "no"
        comes_back = restart in {"always", "unless-stopped"} or (restart == "on-failure" and cause != "exit 0")
        if not comes_back:
            state.halted.add((replica.incarnation, number))
        wait = state.failed(f"load:{replica.incarnation}")
        self._world.meters.restart(state.name, cause)
        then = f"again in {wait:.1f} s" if comes_back else f"left so (restart: {restart})"
        note = f"worker of g{number} ended: {cause}; {then}"
        self._world.journal.add("exit", note, model=state.name, generation=number, cause=cause, pid=worker.pid)

    # What runtimes say

    def lost(self, replica: Replica) -> None:
        """Note that the connection to an agent ended; whether the agent did, its runtime says."""
        if replica.state == "up":
            replica.state = "lost"
            replica.telling = None  # it may not have arrived: it is told again
            replica.silent_since = time.monotonic()
        if replica.state == "stopping":
            replica.ended.set()
        self._wake()

    def ended(self, replica: Replica, exit_: ReplicaExit) -> None:
        """Enter that an agent (a container) ended; where it can be revived, its workers serve on."""
        replica.ended.set()
        if replica.state == "stopping" or replica.record is None or replica.comes_up:
            return  # whoever stops it, or brings it up, sees it
        replica.state = "dead"
        if replica.link_task is not None:
            replica.link_task.cancel()
        if not self._world.runtimes[replica.record.runtime].revivable:
            replica.workers.clear()
            self._state.halted = {each for each in self._state.halted if each[0] != replica.incarnation}
            self._state.restarts += 1
        wait = self._state.failed(f"start:{replica.place.index}")
        self._world.meters.restart(self._state.name, f"agent {exit_.cause}")
        note = f"agent of replica {replica.place.index} ended: {exit_.cause}; again in {wait:.1f} s"
        self._world.journal.add("exit", note, model=self._state.name, cause=exit_.cause)
        self._wake()

    # What is told on

    async def publish(self) -> None:
        """Derive the status, tell people when it changed, and have every gateway confirm the route."""
        state = self._state
        found = status(
            state.desired,
            state.observe(self._world.revivable()),
            state.first_trouble,
            stopping=state.stopping,
            orphan=state.orphan,
        )
        self._tell(found)
        await self._world.traffic.route(
            state.name, None if state.stopping and found.state == "stopped" else self._route(found)
        )

    def _tell(self, found: Status) -> None:
        state, before = self._state, self._state.status
        if (found.state, found.reason) == (before.state, before.reason):
            return
        if found.state != before.state:
            state.status_since = time.time()
        state.status = Status(move(before.state, found.state), found.reason, found.problem)
        if found.state in {"degraded", "failed"}:
            detail = asdict(found.problem) if found.problem is not None else None
            note = found.reason
            if found.state == "degraded" and found.problem is not None and state.routed is not None:
                note += f"; g{state.routed.generation} goes on answering"
            self._world.journal.add(found.state, note, model=state.name, error=detail)
        elif found.state == "running" and before.state == "degraded" and not found.reason:
            self._world.journal.add("ready", "running again", model=state.name)

    def _route(self, found: Status) -> Route:
        state, routed = self._state, self._state.routed
        workers = list(self.routed_workers())
        any_info = next((worker.info for _, worker in workers), {})
        desired = state.desired
        return Route(
            state=found.state,
            generation=routed.generation if routed is not None else None,
            content=workers[0][1].generation.content if workers else state.good.content if state.good else None,
            upstreams=tuple(_upstream(replica, worker) for replica, worker in workers),
            reason=found.reason or None,
            error=asdict(found.problem) if found.problem is not None else None,
            timeout=desired.serving.timeout if desired is not None else 60.0,
            queue_timeout=desired.serving.queue_timeout if desired is not None else 30.0,
            info={**any_info, "unforkable": state.unforkable or None},
        )

    def routed_workers(self) -> list[tuple[Replica, Worker]]:
        """Those that the gateways are sent to now."""
        routed = self._state.routed
        if routed is None:
            return []
        found = []
        for incarnation, attempt in sorted(routed.upstreams):
            replica = self._state.replicas.get(incarnation)
            worker = replica.find(routed.generation, attempt) if replica is not None else None
            if replica is not None and worker is not None:
                found.append((replica, worker))
        return found


def exit_code(cause: str) -> int:
    """How a shell writes the end of a process."""
    kind, _, number = cause.partition(" ")
    if kind in {"exit", "signal"} and number.isdecimal():
        return int(number) + (128 if kind == "signal" else 0)
    return 137 if cause == "out of memory" else 1


def _upstream(replica: Replica, worker: Worker) -> Upstream:
    record = replica.record
    if record is None:
        raise LookupError(f"{replica.incarnation} has a worker and no record")
    return Upstream(f"{replica.incarnation}-{worker.attempt}", record.sockets, worker.socket, record.uid)
