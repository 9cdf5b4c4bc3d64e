"""A model's generations for people: which there are, keeping one, going back to one, waiting for one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from orchestrator.control.generations import Generations
from orchestrator.control.model import Model
from orchestrator.control.reconciler import Reconciler
from orchestrator.errors import SandboxError, near
from orchestrator.plan.types import ModelDesired
from orchestrator.plan.waiting import Awaited, Coming, Hopeless, Live, Newest, Numbered
from orchestrator.store import GenerationRow

Json = Mapping[str, Any]


class History:
    """What the management API says and does about generations. Every error is a SandboxError."""

    def __init__(self, reconciler: Reconciler, generations: Generations) -> None:
        self._reconciler = reconciler
        self._generations = generations

    async def listed(self, name: str) -> list[Json]:
        """Every kept generation of a model, newest first."""
        workshop = self._generations.workshop(self.known(name)[1])
        return [shown(row) for row in await asyncio.to_thread(workshop.kept)]

    async def pin(self, name: str, number: int, *, pinned: bool) -> Json:
        """Keep a generation whatever comes, or no longer."""
        workshop = self._generations.workshop(self.known(name)[1])
        return shown(await asyncio.to_thread(workshop.pin, number, pinned))

    async def roll_back(self, name: str, number: int | None) -> bool:
        """Serve a kept content under a new number (None: the one before), and wait; False where it was rejected."""
        model, _ = self.known(name)
        await model.roll_back(number)
        wanted = model.state.wanted
        awaited = Numbered(wanted.number if wanted is not None else 0)
        await model.until(lambda _: not isinstance(model.answers(awaited), Coming))
        return isinstance(model.answers(awaited), Live)

    async def wait(self, name: str, number: int | None, seconds: float | None) -> Json:
        """Return once that generation or a newer one answers (None: what is on disk now).

        Raises SandboxError where it cannot be, or is not within `seconds`.
        """
        model, _ = self.known(name)
        awaited: Awaited | None = None
        late = ""
        try:
            async with asyncio.timeout(seconds):
                awaited = Numbered(number) if number is not None else await self._newest(model)
                await model.until(lambda _: not isinstance(model.answers(awaited), Coming))
        except TimeoutError:
            late = f" after {seconds:g} s"
        match model.answers(awaited) if awaited is not None else Coming("its directory is being read"):
            case Live(generation):
                return {"type": "live", "model": name, "generation": generation, "content": _content(model)}
            case Coming(reason):
                reference = "not-live"
            case Hopeless(reason, reference):
                pass
        what = "what is on disk" if number is None else f"g{number}"
        raise SandboxError(reference, f"{name}: {what} does not answer{late}: {reason}", hint=_next(model))

    async def _newest(self, model: Model) -> Newest:
        with contextlib.suppress(SandboxError):  # a wrong file changes nothing: the model is as it was wanted
            await self._reconciler.reread()
        return await model.newest()

    def known(self, name: str) -> tuple[Model, ModelDesired]:
        """A model that sandbox.yaml has. Raises SandboxError("unknown-model")."""
        desired = self._reconciler.desired
        model = self._reconciler.models.get(name)
        wish = desired.models.get(name) if desired is not None else None
        if model is None or wish is None:
            known = list(desired.models) if desired is not None else []
            hint = near(name, known) or f"there are: {', '.join(known) or 'none'}"
            raise SandboxError("unknown-model", f"no model named {name}", hint=hint)
        return model, wish


def shown(row: GenerationRow) -> Json:
    """One generation (docs/internals.md, "Generation")."""
    created = datetime.fromtimestamp(row.created, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {
        "number": row.number,
        "content": row.content[:12],
        "created": created,
        "state": row.state,
        "pinned": row.pinned,
        "origin": row.origin or None,
        "changed": list(row.changed),
    }


def _content(model: Model) -> str | None:
    return model.state.good.content[:12] if model.state.good is not None else None


def _next(model: Model) -> str:
    name, wanted = model.state.name, model.state.wanted
    if wanted is not None and wanted.origin is not None:
        return f"save a file of the model, or: sandbox reload {name}"
    return f"see: sandbox logs {name}"
