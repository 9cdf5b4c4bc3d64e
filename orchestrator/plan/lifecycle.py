"""The states of a model and which may follow which. The diagram in docs/design.md is generated from this table."""

from __future__ import annotations

from typing import Literal, get_args

State = Literal["pending", "building", "loading", "running", "degraded", "draining", "stopped", "failed"]

STATES: tuple[State, ...] = get_args(State)

# pending: known, nothing begun (waits for depends_on, or for its first look at the disk).
# building: no replica yet, its environment or image is being made.
# loading: a replica starts or a worker loads, and nothing answers yet.
# running: what is on disk (or a newer content on its way) is served.
# degraded: something answers, but not what is on disk, or not as many replicas as wanted; the reason is told.
# failed: nothing answers, and nothing will until somebody mends it.
# draining: being stopped, finishing what it has.
# stopped: gone.
# A model without a replica is gone the moment that it is stopped, so stopped may follow everything; and it comes back
# (replicas: 0 was taken out again, `up` while it was still being stopped) as whatever it is by then: what was not yet
# told to stop answers at once.
TABLE: dict[State, frozenset[State]] = {
    "pending": frozenset({"building", "loading", "running", "degraded", "failed", "draining", "stopped"}),
    "building": frozenset({"pending", "loading", "running", "degraded", "failed", "draining", "stopped"}),
    "loading": frozenset({"pending", "building", "running", "degraded", "failed", "draining", "stopped"}),
    "running": frozenset({"pending", "building", "loading", "degraded", "failed", "draining", "stopped"}),
    "degraded": frozenset({"pending", "building", "loading", "running", "failed", "draining", "stopped"}),
    "failed": frozenset({"pending", "building", "loading", "running", "degraded", "draining", "stopped"}),
    "draining": frozenset({"pending", "building", "loading", "running", "degraded", "failed", "stopped"}),
    "stopped": frozenset({"pending", "building", "loading", "running", "degraded", "failed", "draining"}),
}

ANSWERS: frozenset[State] = frozenset({"running", "degraded"})


class IllegalMove(Exception):  # noqa: N818 - the name says it
    """A state was to follow another that it cannot follow: a defect of ours."""


def move(old: State, new: State) -> State:
    """Return `new`, or raise IllegalMove. Staying is always legal."""
    if new != old and new not in TABLE[old]:
        raise IllegalMove(f"{old} → {new}")
    return new


def diagram() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", "    [*] --> pending"]
    lines += [f"    {old} --> {new}" for old in STATES for new in STATES if new in TABLE[old]]
    return "\n".join([*lines, "    stopped --> [*]"])
