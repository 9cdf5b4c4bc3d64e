"""A project whose files tests save as people and their editors do, with a watcher over it."""

import asyncio

from orchestrator.control.watcher import Batch, Watcher
from orchestrator.plan.types import ModelDesired

DEADLINE = 20.0


class Desk:
    """A project with model directories and a watcher over them."""

    def __init__(self, folder):
        self.folder = folder
        self.told = []
        self.use(None)
        self.models = {}
        self.files = set()

    def use(self, notifier):
        self.watcher = Watcher(self.told.append, notifier)
        self.batches = self.watcher.batches()

    def model(self, name, **wish):
        source = self.folder / "models" / name
        source.mkdir(parents=True, exist_ok=True)
        (source / "main.py").write_text("one")
        self.models[name] = ModelDesired(name, str(source), "process", "", "", **wish)
        return source

    async def watch(self):
        """Arm, and let the first "anything may have changed" of the new models pass."""
        self.watcher.watch(self.models, self.files)
        for _ in self.models:
            assert (await self.next()).paths is None

    async def next(self):
        async with asyncio.timeout(DEADLINE):
            return await anext(self.batches)

    async def saved(self, model, path):
        """Save a file until a save of it is told (what a new portable watch finds on its first look is no event)."""
        number = 0
        told = Batch(None, None, 0.0)
        while told.model != model or told.paths is None or path not in told.paths:
            number += 1
            (self.folder / "models" / model / path).write_text("x" * number)
            told = await self.next()

    async def until(self, model, path):
        """All paths of a model that are told up to and with `path`; "anything" counts as "*"."""
        found = set()
        while path not in found:
            batch = await self.next()
            assert batch.model == model
            found |= batch.paths if batch.paths is not None else {"*"}
        return found
