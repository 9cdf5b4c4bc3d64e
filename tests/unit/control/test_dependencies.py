"""What a model waits for before it starts: another that answers, or one that only runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from orchestrator.control.state import ModelState
from orchestrator.plan.types import Desired
from tests.unit.control.conftest import GOOD, Bench
from tests.unit.control.test_history import Control

BROKEN = "# import\n"


class Pair(Control):
    """`hello`, and `other`, which waits for it in one of two ways."""

    def __init__(self, bench: Bench, condition: str) -> None:
        super().__init__(bench)
        self.condition = condition

    def read(self, profiles: Sequence[str], models: Sequence[str]) -> Desired:
        desired = super().read(profiles, models)
        folder = self.bench.folder / "other"
        folder.mkdir(exist_ok=True)
        (folder / "main.py").write_text(GOOD)
        other = replace(self.bench.wish, name="other", path=str(folder), **{self.condition: ("hello",)})
        return replace(desired, models={**desired.models, "other": other})

    async def until(self, name: str, state: str) -> ModelState:
        async with asyncio.timeout(10):
            await self.reconciler.models[name].until(lambda found: found.status.state == state)
        return self.reconciler.models[name].state


@pytest.mark.parametrize(("condition", "state"), [("starts_after", "running"), ("depends_on", "pending")])
async def test_a_model_that_runs_and_cannot_answer_holds_back_who_needs_its_answers(
    bench: Bench, condition: str, state: str
) -> None:
    bench.write(BROKEN)
    control = Pair(bench, condition)
    await control.begin()
    await control.until("hello", "failed")
    found = await control.until("other", state)
    assert found.blocked == (() if state == "running" else ("hello",))
    await control.end()
