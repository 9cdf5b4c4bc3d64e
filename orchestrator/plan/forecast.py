"""What an edit that does not answer yet will do, and why: said beforehand, from what the planner reads. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from orchestrator.plan.changes import Change, Tier, classify
from orchestrator.plan.observed import ModelObserved
from orchestrator.plan.situation import target
from orchestrator.plan.types import Generation, ModelDesired

OFF = "reload.mode is off: when asked for by sandbox reload"


@dataclass(frozen=True, slots=True)
class Forecast:
    """tier: "none" where nothing will come of the edit. effect: what will be done. cause: what was edited, and what
    else explains the tier. files: the edited ones.
    """

    tier: Tier
    effect: str
    cause: str
    files: tuple[str, ...] = ()


def forecast(
    applied: ModelDesired | None,
    desired: ModelDesired,
    changed: Collection[str],
    observed: ModelObserved,
    unforkable: str = "",
) -> tuple[Forecast, ...]:
    """Foretell the edits of one model.

    applied: what the files said when they were last acted on (None: the model was not there). desired: what they say
    now. changed: files unlike the newest generation. unforkable: why no worker can be forked, "" where one can.

    1. The files and settings that differ from what was acted on, by their tier; files apart where they wait for a
       `sandbox reload`.
    2. A generation, or replicas, that were acted on and do not answer yet: under way.
    3. A newest generation that was rejected, or a directory that a rollback left: nothing comes of it.
    """
    held = tuple(sorted(changed)) if desired.reload.mode == "off" else ()
    found = []
    change = classify(() if held else changed, applied, desired, forkable=not unforkable)
    if change.tier != "none":  # 1
        found.append(_told(change, desired, () if held else changed, observed, unforkable))
    if held and applied is not None:
        asked = replace(desired, reload=replace(desired.reload, mode="auto"))
        waiting = _told(classify(held, asked, asked, forkable=not unforkable), desired, held, observed, unforkable)
        found.append(replace(waiting, cause=f"{waiting.cause}; {OFF}"))
    return tuple(found) or _acted_on(desired, observed, unforkable)


def _told(
    change: Change, desired: ModelDesired, changed: Collection[str], observed: ModelObserved, unforkable: str
) -> Forecast:
    cause = ", ".join(change.causes)
    serving = observed.routed is not None and bool(observed.routed.upstreams)
    if serving and observed.tight is not None and change.tier in {"fork", "spawn"}:
        change = replace(change, tier="stop-first")
        cause += f"; {observed.tight.reason}"
    if change.tier == "spawn":
        cause += f"; {unforkable or 'reload.mode: spawn'}"
    return Forecast(change.tier, _effect(change.tier, desired, observed), cause, tuple(sorted(changed)))


def _effect(tier: Tier, desired: ModelDesired, observed: ModelObserved) -> str:
    serving = observed.routed is not None and bool(observed.routed.upstreams)
    beside = f" beside g{observed.routed.generation}" if serving and observed.routed is not None else ""
    match tier:
        case "none":
            return ""
        case "live":
            return "told to what runs"
        case "fork":
            return f"a forked worker{beside}"
        case "spawn":
            return f"a worker in a new interpreter{beside}"
        case "stop-first":
            return f"compiled and imported{beside}, which then ends first, requests held"
        case "replace":
            built = observed.environments.get(desired.lock_hash) == "ready"
            count = "a new replica" if desired.replicas == 1 else f"{desired.replicas} new replicas"
            return f"{'' if built else 'its environment, then '}{count}{beside}"


def _acted_on(desired: ModelDesired, observed: ModelObserved, unforkable: str) -> tuple[Forecast, ...]:
    wanted, routed = observed.wanted, observed.routed
    if wanted is None or not desired.replicas:
        return ()
    if observed.blocked:
        return (Forecast("replace", "its first replica, once they answer", f"waits for {', '.join(observed.blocked)}"),)
    if routed is None or not routed.upstreams:
        return ()  # nothing answers: what is done about that are actions, not edits
    elsewhere = routed.replica_hash != desired.replica_hash
    hopeless = _hopeless(desired, observed, elsewhere)
    if hopeless:  # 3
        return (Forecast("none", f"g{routed.generation} goes on answering", hopeless, wanted.changed),)
    if elsewhere:  # 2
        number = target(observed, desired.replica_hash) or wanted
        return (Forecast("replace", f"g{number.number}: under way", "its specification changed"),)
    if wanted.number == routed.generation:
        return _rolled_back(wanted)
    change = classify(wanted.changed, desired, desired, forkable=not unforkable)
    told = _told(change, desired, wanted.changed, observed, unforkable)
    return (replace(told, effect=f"g{wanted.number}: under way"),)


def _rolled_back(wanted: Generation) -> tuple[Forecast, ...]:
    if wanted.origin is None:
        return ()
    cause = f"rolled back to g{wanted.origin}'s content; the directory differs"
    return (Forecast("none", f"g{wanted.number} goes on answering until the next save", cause),)


def _hopeless(desired: ModelDesired, observed: ModelObserved, elsewhere: bool) -> str:
    """Why the newest generation, or what it is to run on, will not come; "" where it may."""
    wanted = observed.wanted
    if elsewhere and observed.environments.get(desired.lock_hash) == "failed":
        return "its new environment could not be built"
    rejection = observed.rejected.get((wanted.number, desired.replica_hash)) if wanted is not None else None
    if wanted is None or rejection is None:
        return ""
    return f"g{wanted.number} was rejected: {rejection.line_for_people}"
