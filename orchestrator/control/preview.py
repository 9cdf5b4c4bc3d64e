"""What `sandbox plan` shows: edits that do not answer yet, and actions that are due. It reads, and changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from orchestrator.control.model import Model
from orchestrator.control.reconciler import Reconciler
from orchestrator.errors import SandboxError
from orchestrator.plan.actions import detail, verb
from orchestrator.plan.changes import classify_gateway
from orchestrator.plan.forecast import Forecast, forecast
from orchestrator.plan.observed import ModelObserved
from orchestrator.plan.types import Desired, ModelDesired

Json = Mapping[str, Any]


async def preview(reconciler: Reconciler) -> list[Json]:
    """Every pending edit and action (docs/internals.md, `GET /api/plan`). Raises SandboxError where a file is wrong."""
    desired, applied = await reconciler.read_anew(), reconciler.desired
    found = _gateway(applied, desired)
    for name, wish in desired.models.items():
        model = reconciler.models.get(name)
        if model is None:
            found += [_edit(name, each) for each in forecast(None, wish, (), ModelObserved())]
            continue
        before = applied.models.get(name) if applied is not None else None
        found += await _model(name, model, before, wish)
    for name, model in reconciler.models.items():
        found += [
            {"model": name, "verb": verb(action), "detail": detail(action), "cause": action.cause}
            for action in model.pending()
        ]
    return found


async def _model(name: str, model: Model, before: ModelDesired | None, wish: ModelDesired) -> list[Json]:
    if model.state.stopped and wish.replicas:
        return [_edit(name, Forecast("replace", "start", "stopped by hand"))]
    try:
        changed = await model.source.edited()
    except SandboxError as error:
        state = model.state
        serves = state.routed is not None and state.routed.upstreams
        effect = f"g{state.routed.generation} goes on answering" if serves and state.routed else "nothing answers"
        return [_edit(name, Forecast("none", effect, str(error)))]
    if model.state.wanted is None:
        changed = None  # its first look is under way: all of it is new, and no edit
    observed = replace(model.observe(), tight=await model.memory.verdict())
    applied = None if before is None else model.state.born(before)
    foretold = forecast(applied, model.state.born(wish), changed or (), observed, model.state.unforkable)
    return [_edit(name, each) for each in foretold]


def _gateway(applied: Desired | None, desired: Desired) -> list[Json]:
    change = classify_gateway(applied.gateway, desired.gateway) if applied is not None else None
    if change is None or change.tier == "none":
        return []
    return [_edit(None, Forecast("live", "told to the gateways", ", ".join(change.causes)))]


def _edit(name: str | None, foretold: Forecast) -> Json:
    told = {"verb": foretold.tier, "detail": foretold.effect, "cause": foretold.cause}
    return {"model": name, **told, "files": list(foretold.files)}
