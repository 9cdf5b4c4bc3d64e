"""What `up` was told beside the files: how many replicas, and whether edits are acted on. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.plan.types import Desired, ModelDesired


@dataclass(frozen=True, slots=True)
class Overlay:
    """It holds until the next `up`, also over a restart of control. scale: replicas by model."""

    scale: Mapping[str, int] = field(default_factory=dict)
    watched: bool = True

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Overlay:
        """From JSON types; what is malformed counts as not told."""
        scale = told.get("scale")
        counts = scale.items() if isinstance(scale, Mapping) else ()
        valid = {str(name): count for name, count in counts if type(count) is int and count >= 0}
        return cls(valid, told.get("watched") is not False)

    def as_json(self) -> dict[str, Any]:
        """What `of` reads."""
        return {"scale": dict(self.scale), "watched": self.watched}

    def told(self, newer: Overlay, selected: Collection[str]) -> Overlay:
        """After another `up`, for these models (none named: all): what it says, and for the others what was said."""
        kept = {name: count for name, count in self.scale.items() if selected and name not in selected}
        return Overlay({**kept, **newer.scale}, newer.watched)

    def over(self, desired: Desired) -> Desired:
        """What is wanted with it."""
        return replace(desired, models={name: self._model(wish) for name, wish in desired.models.items()})

    def _model(self, wish: ModelDesired) -> ModelDesired:
        reload = wish.reload if self.watched else replace(wish.reload, mode="off")
        return replace(wish, replicas=self.scale.get(wish.name, wish.replicas), reload=reload)
