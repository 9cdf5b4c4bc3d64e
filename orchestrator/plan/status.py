"""What to tell people of a model: its state, and why. Pure, derived from the same values that the planner reads."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.plan.lifecycle import State
from orchestrator.plan.observed import ModelObserved, Problem
from orchestrator.plan.types import ModelDesired

ORPHAN = "orphan: no longer in sandbox.yaml"


@dataclass(frozen=True, slots=True)
class Status:
    """state, one line of reason ("" where there is nothing to say), and the problem behind it."""

    state: State
    reason: str = ""
    problem: Problem | None = None


def status(
    desired: ModelDesired | None,
    observed: ModelObserved,
    trouble: Problem | None,
    *,
    stopping: bool,
    orphan: bool = False,
) -> Status:
    """Derive the status.

    orphan: it runs, and the file does not have it any more.

    trouble: what is wrong outside this model's replicas: the source is missing, its config.yaml is wrong, the build
    or the last start failed. A worker that died shows as too few ready ones.
    """
    if stopping:
        return Status("draining", "stopping") if observed.replicas else Status("stopped")
    if observed.stopped:
        return Status("draining", "stopping") if observed.replicas else Status("stopped")
    problem = trouble or _rejection(desired, observed)
    ready = len(observed.routed.upstreams) if observed.routed is not None else 0
    if orphan or desired is None:
        return Status("running" if ready else "failed", ORPHAN)
    if ready:
        return _answering(desired, observed, problem, ready)
    if problem is not None and desired.replicas and not _in_progress(observed, problem):
        return Status("failed", problem.line_for_people, problem)
    return _coming(desired, observed, problem)


def _answering(desired: ModelDesired, observed: ModelObserved, problem: Problem | None, ready: int) -> Status:
    if problem is not None:
        return Status("degraded", problem.line_for_people, problem)
    if ready < desired.replicas:
        return Status("degraded", f"{ready} of {desired.replicas} replicas ready")
    return Status("running", _pending_change(desired, observed))


def _pending_change(desired: ModelDesired, observed: ModelObserved) -> str:
    routed = observed.routed
    if routed is not None and routed.replica_hash != desired.replica_hash:
        building = observed.environments.get(desired.lock_hash) == "building"
        return "building the new environment" if building else "replacing its replicas"
    if routed is not None and observed.wanted is not None and observed.wanted.number != routed.generation:
        return f"loading g{observed.wanted.number}"
    if observed.wanted is not None and observed.wanted.origin is not None:
        return f"rolled back to g{observed.wanted.origin}'s content; the directory differs"
    return ""


def _rejection(desired: ModelDesired | None, observed: ModelObserved) -> Problem | None:
    if desired is None or observed.wanted is None:
        return None
    return observed.rejected.get((observed.wanted.number, desired.replica_hash))


def _in_progress(observed: ModelObserved, problem: Problem) -> bool:
    """Whether another try is under way, so that "failed" would be too early a word."""
    if problem.phase in {"source", "spec", "build"}:
        return False
    if problem.reference == "no-engine" and observed.routed is not None:
        return True  # an engine that is restarted comes back: what is asked meanwhile waits for it
    return any(
        worker.state in {"loading", "paused"} or (observed.wanted is not None and worker.state == "ready")
        for replica in observed.replicas
        for worker in replica.workers
    )


def _coming(desired: ModelDesired, observed: ModelObserved, problem: Problem | None) -> Status:
    if desired.replicas == 0:
        return Status("draining" if observed.replicas else "stopped", "replicas: 0")
    if observed.blocked:
        return Status("pending", f"waits for {', '.join(observed.blocked)}")
    if observed.halted and not any(replica.workers for replica in observed.replicas):
        return Status("failed", f"its worker ended, restart: {desired.restart}", problem)
    if observed.environments.get(desired.lock_hash) == "building":
        return Status("building", "building its environment")
    if observed.wanted is None:
        return Status("pending", "reading its directory")
    gap = f"the old generation ended first: {observed.tight.reason}" if observed.tight and observed.routed else ""
    return Status("loading", problem.line_for_people if problem else gap, problem)
