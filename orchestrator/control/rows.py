"""A model as `ps`, the API and the metrics show it. Read-only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from orchestrator.control.model import Model
from orchestrator.control.state import ModelState

Row = Mapping[str, Any]


def row(model: Model, url: str) -> Row:
    """One model (docs/internals.md, "Row"). url: of the gateway."""
    state = model.state
    status = state.status
    live = [each for each in state.replicas.values() if each.state not in {"stopping", "dead"}]
    since = datetime.fromtimestamp(state.status_since, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {
        "name": state.name,
        "state": status.state,
        "reason": status.reason or None,
        "error": asdict(status.problem) if status.problem is not None else None,
        "generation": state.routed.generation if state.routed is not None else None,
        "content": state.good.content[:12] if state.good is not None else None,
        "runtime": state.desired.runtime if state.desired is not None else None,
        "python": python(state),
        "replicas": {
            "ready": len(state.routed.upstreams) if state.routed is not None else 0,
            "desired": state.desired.replicas if state.desired is not None else 0,
        },
        "restarts": state.restarts,
        "not_enforced": sorted({sentence for each in live for sentence in each.not_enforced}),
        "since": since,
        "pids": {
            "agent": [each.agent_pid for each in live if each.agent_pid],
            "zygote": [each.zygote["pid"] for each in live if each.zygote.get("pid")],
            "workers": [worker.pid for each in live for worker in each.workers.values() if worker.pid],
        },
        "containers": [each.record.container for each in live if each.record and each.record.container],
        "url": f"{url}/models/{state.name}/predict",
        "unforkable": state.unforkable or None,
        "example": next((worker.info.get("example") for each in live for worker in each.workers.values()), None),
    }


def python(state: ModelState) -> str | None:
    """The Python version that the model's newest replica runs on."""
    found = [each.record.python for each in state.replicas.values() if each.record is not None and each.record.python]
    return found[-1] if found else None
