"""start, stop, restart, kill: what people ask of models that runs against, or beside, what the files say."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from orchestrator.control.model import Model
from orchestrator.control.reconciler import Reconciler
from orchestrator.control.state import ModelState
from orchestrator.errors import SandboxError, near


class Verbs:
    """Each returns when it is done, with the names of those for which it failed."""

    def __init__(self, reconciler: Reconciler) -> None:
        self._reconciler = reconciler

    async def start(self, names: Sequence[str]) -> list[str]:
        """Start models again that were stopped or failed, and those they depend on; wait until they answer."""
        chosen = self._with_dependencies(self._wanted(names))
        await self._begin(chosen)
        return await self._reconciler.settled(chosen)

    async def bring_back(self, names: Sequence[str]) -> None:
        """Start those of the named that are stopped, and of what they depend on; wait for none. For `up`."""
        chosen = self._with_dependencies(self._wanted(names))
        await self._begin([name for name in chosen if self._reconciler.models[name].state.stopped])

    async def _begin(self, names: Sequence[str]) -> None:
        for name in names:
            model = self._reconciler.models[name]
            model.begin()
            await model.reports.publish()  # it is not what it was: who waits for it must not see that

    async def stop(self, names: Sequence[str], drain: float | None) -> list[str]:
        """Drain models and end them, for at most `drain` seconds; they stay so until somebody starts them."""
        await asyncio.gather(*(model.halt(drain) for model in self._running(names)))
        return []

    async def kill(self, names: Sequence[str]) -> list[str]:
        """End models at once; they stay so until somebody starts them."""
        await asyncio.gather(*(model.kill() for model in self._running(names)))
        return []

    async def restart(self, names: Sequence[str], drain: float | None = None) -> list[str]:
        """Give models new replicas; the old ones answer until these do, and then have `drain` seconds."""
        chosen = self._wanted(names)
        models = [self._reconciler.models[name] for name in chosen]
        for model in models:
            model.renew(drain)
        await asyncio.gather(*(model.until(_renewed) for model in models))
        return [name for name, model in zip(chosen, models, strict=True) if not _answers_anew(model.state)]

    def known(self, name: str) -> None:
        """Raise SandboxError("unknown-model") for a name that is none."""
        self._running([name])

    async def ended(self, name: str) -> int:
        """Wait until a model does not run and will not; the exit code of what ran last. Raises "unknown-model"."""
        [model] = self._running([name])
        await model.until(lambda state: state.status.state in {"stopped", "failed"})
        state = model.state
        if state.stopped or state.exit_code is None:
            return 0 if state.status.state == "stopped" else 1
        return state.exit_code

    async def renew(self, names: Sequence[str]) -> list[str]:
        """`restart` of those that have replicas and are not stopped; the others need no new ones. For `up`."""
        models = self._reconciler.models
        there = [name for name in self._wanted(names) if models[name].state.replicas and not models[name].state.stopped]
        return await self.restart(there) if there else []

    def _wanted(self, names: Sequence[str]) -> list[str]:
        """Models of the file. Raises SandboxError("unknown-model")."""
        desired = self._reconciler.desired
        known = [name for name in (desired.models if desired is not None else ()) if name in self._reconciler.models]
        return _checked(names, known)

    def _running(self, names: Sequence[str]) -> list[Model]:
        """Models of the file, and orphans."""
        return [self._reconciler.models[name] for name in _checked(names, list(self._reconciler.models))]

    def _with_dependencies(self, names: Iterable[str]) -> list[str]:
        found: dict[str, None] = {}
        coming = list(names)
        while coming:
            name = coming.pop(0)
            model = self._reconciler.models.get(name)
            if name not in found and model is not None and model.state.wish is not None:
                found[name] = None
                coming += [*model.state.wish.depends_on, *model.state.wish.starts_after]
        return list(found)


def _checked(names: Sequence[str], known: Sequence[str]) -> list[str]:
    for name in names:
        if name not in known:
            hint = near(name, known) or f"there are: {', '.join(known) or 'none'}"
            raise SandboxError("unknown-model", f"no model named {name}", hint=hint)
    return list(dict.fromkeys(names)) or list(known)


def _answers_anew(state: ModelState) -> bool:
    """Whether the replicas that are wanted now answer."""
    routed, desired = state.routed, state.desired
    if desired is None or routed is None:
        return False
    return bool(routed.upstreams) and routed.replica_hash == desired.replica_hash


def _renewed(state: ModelState) -> bool:
    """Whether they do, or nothing will make them."""
    desired, wanted, good = state.desired, state.wanted, state.good
    if desired is None or desired.replicas == 0 or state.blocked or state.first_trouble is not None:
        return True
    rejected = [(each.number, desired.replica_hash) in state.rejected for each in (wanted, good) if each is not None]
    return _answers_anew(state) or (bool(rejected) and all(rejected))
