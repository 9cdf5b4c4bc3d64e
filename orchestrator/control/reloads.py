"""What an edit came to: one event for people and programs, and the figures. It decides nothing, and tells each once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from orchestrator.control.replica import Replica, Worker
from orchestrator.control.state import Edit, ModelState
from orchestrator.control.world import World
from orchestrator.plan.changes import Tier
from orchestrator.plan.observed import Problem, Routed
from orchestrator.plan.types import Generation

Result = Literal["ok", "failed", "superseded"]


@dataclass(frozen=True, slots=True)
class _Reload:
    """A reload as it is told of: the step that was taken for a generation, why, and how long its phases took."""

    tier: Tier
    generation: Generation | None
    cause: str
    phases: Mapping[str, float]


class Reloads:
    """Tells of one model's reloads (docs/internals.md, "Event": what a reload carries)."""

    def __init__(self, state: ModelState, world: World) -> None:
        self._state = state
        self._world = world

    def live(
        self, before: Routed | None, routed: Routed, workers: Sequence[tuple[Replica, Worker]], swap_began: float
    ) -> None:
        """Tell that a new generation is what answers from now on: the acknowledgement."""
        state, number, now = self._state, routed.generation, time.monotonic()
        state.untidy = True
        tier, edit = self._tier_and_edit(routed.replica_hash, before, [worker for _, worker in workers], number)
        phases = _seen(edit)
        for replica, worker in workers[:1]:
            phases |= self._phases(replica, worker, tier) | {"ready": swap_began - worker.asked_at}
        began = edit.seen_at if edit else min((worker.asked_at for _, worker in workers), default=now)
        if tier == "stop-first":
            phases |= {"held": now - state.empty_since} if state.empty_since is not None else {}
            state.empty_since = None
        phases |= {"swap": now - swap_began, "total": now - began}
        cause = edit.cause if edit is not None and edit.cause else "asked for"
        shown = cause + _why(tier, workers)
        took = f"g{number} in {_duration(now - began)}"
        message = f"✔ ready {took}" if before is None else f"✔ {took} ({tier}: {shown})"
        if tier == "replace":
            state.respec = None
        state.edits.pop(number, None)
        generation = workers[0][1].generation if workers else state.good
        event = "ready" if before is None else "reload"
        self._tell(event, message, "ok", _Reload(tier, generation, shown, phases))

    def gap(self, before: Routed, routed: Routed) -> None:
        """Tell that the old generation ended for want of memory; or that it is back, since the new one failed."""
        state, number = self._state, routed.generation
        waiting = [each for replica in state.replicas.values() for each in replica.workers.values() if each.waits]
        reason = next((each.waits for each in waiting if each.state == "paused"), "")
        if before.upstreams and not routed.upstreams and reason:
            state.empty_since = time.monotonic()
            message = f"g{number} ends first, requests are held: {reason}"
            self._world.journal.add("reload", message, model=state.name, generation=number, cause=reason)
        elif routed.upstreams and not before.upstreams and state.empty_since is not None:
            held, state.empty_since = time.monotonic() - state.empty_since, None
            message = f"g{number} answers again after {_duration(held)}"
            self._world.journal.add("reload", message, model=state.name, generation=number, held=round(held, 6))

    def rejected(self, replica: Replica, worker: Worker, found: Problem) -> None:
        """Tell that a generation does not run."""
        number = worker.generation.number
        tier, edit = self._tier_and_edit(replica.replica_hash, self._state.routed, [worker], number)
        phases = _seen(edit) | self._phases(replica, worker, tier)
        if edit is not None:
            phases["total"] = time.monotonic() - edit.seen_at
        message = f"✖ g{number} rejected: {found.line_for_people}"
        cause = edit.cause if edit is not None else ""
        self._tell("reload", message, "failed", _Reload(tier, worker.generation, cause, phases), error=asdict(found))

    def superseded(self, worker: Worker) -> None:
        """Tell that a candidate is given up for a newer one; once, on however many replicas it loads."""
        state, number = self._state, worker.generation.number
        edit = state.edits.pop(number, None)
        if edit is None:
            return
        newer = f"g{state.wanted.number}" if state.wanted is not None else "a newer one"
        phases = _seen(edit) | worker.phases
        message = f"g{number} gave way to {newer} before it was ready ({edit.cause})"
        self._tell(
            "reload", message, "superseded", _Reload(_forked(worker.phases), worker.generation, edit.cause, phases)
        )

    def unbuilt(self, message: str, lock_hash: str, seconds: float, *, log: str) -> None:
        """Tell that an environment, and with it the reload that needs it, failed."""
        state = self._state
        if state.routed is None or state.desired is None or state.desired.lock_hash != lock_hash:
            self._world.journal.add("build", message, model=state.name, ok=False, log=log)
            return
        cause = state.respec.cause if state.respec is not None else ""
        phases = _seen(state.respec) | {"build": seconds}
        self._tell("build", message, "failed", _Reload("replace", state.wanted, cause, phases), log=log)

    def forkability(self, before: str, now: str) -> None:
        """Tell that from now on workers are spawned, and why; or that they are forked again."""
        if now and now != before:
            message = f"new workers are spawned, not forked: {now}"
            self._world.journal.add("reload", message, model=self._state.name, reason=now)
        elif before and not now:
            self._world.journal.add("reload", "new workers are forked again", model=self._state.name)

    def told(self) -> None:
        """Tell of limits once all that runs has taken them over. Called after the gateways have confirmed."""
        state, edit, desired = self._state, self._state.told_live, self._state.desired
        if edit is None or desired is None or state.routed is None or len(state.routed.upstreams) != desired.replicas:
            return
        wished = (desired.serving, desired.load_timeout)
        here = [each for each in state.replicas.values() if each.state == "up"]
        if any(each.telling is not None or each.told not in (None, wished) for each in here):
            return
        state.told_live = None
        now, number = time.monotonic(), state.routed.generation
        message = f"✔ g{number} in {_duration(now - edit.seen_at)} (live: {edit.cause})"
        phases = {"detect": edit.looked_at - edit.seen_at, "total": now - edit.seen_at}
        self._tell("reload", message, "ok", _Reload("live", state.good, edit.cause, phases))

    def _tier_and_edit(
        self, replica_hash: str, before: Routed | None, workers: Sequence[Worker], number: int
    ) -> tuple[Tier, Edit | None]:
        """The step that was taken, as seen by what happened; and what it is for."""
        edit = self._state.edits.get(number)
        if before is not None and before.replica_hash != replica_hash:
            return "replace", self._state.respec or edit
        if any(each.waits for each in workers):
            return "stop-first", edit
        return _forked(workers[0].phases if workers else {}), edit

    def _phases(self, replica: Replica, worker: Worker, tier: Tier) -> dict[str, float]:
        phases = dict(worker.phases)
        if tier == "replace":
            lock_hash = self._state.desired.lock_hash if self._state.desired is not None else ""
            built_in = self._state.built_in.pop(lock_hash, None)
            phases |= {"build": built_in} if built_in is not None else {}
            phases |= {"start": replica.started_in} if replica.started_in is not None else {}
        return phases

    def _tell(self, event: str, message: str, result: Result, done: _Reload, **more: Any) -> None:
        state = self._state
        generation = done.generation
        self._world.meters.reload(state.name, done.tier, result, done.phases)
        self._world.journal.add(
            event,
            message,
            model=state.name,
            **({} if result == "superseded" else {"ok": result == "ok"}),
            result=result,
            generation=generation.number if generation is not None else None,
            content=generation.content if generation is not None else None,
            tier=done.tier,
            files=list(generation.changed) if generation is not None and done.tier != "live" else [],
            cause=done.cause,
            phases={name: round(seconds, 6) for name, seconds in done.phases.items()},
            **more,
        )


def _seen(edit: Edit | None) -> dict[str, float]:
    if edit is None:
        return {}
    found = {"detect": edit.looked_at - edit.seen_at, "snapshot": edit.made_at - edit.looked_at}
    return {name: seconds for name, seconds in found.items() if seconds or name == "detect"}


def _forked(phases: Mapping[str, float]) -> Tier:
    return "spawn" if "spawn" in phases else "fork"


def _why(tier: Tier, workers: Sequence[tuple[Replica, Worker]]) -> str:
    """What else than the edit led to this tier, as "; because"."""
    match tier:
        case "spawn":
            reasons = [worker.spawned or replica.unforkable for replica, worker in workers]
            unforkable = next((reason for reason in reasons if reason), "")
            return f"; {unforkable or 'reload.mode: spawn'}"
        case "stop-first":
            return next((f"; {worker.waits}" for _, worker in workers if worker.waits), "")
        case _:
            return ""


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1.0 else f"{seconds:.1f} s"
