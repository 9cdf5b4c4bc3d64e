"""Going back, keeping and waiting, on a whole control of fakes: what is live, what is remembered, and what is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.control.generations import Generations
from orchestrator.control.history import History
from orchestrator.control.model import Model
from orchestrator.control.reconciler import Reconciler
from orchestrator.control.state import ModelState
from orchestrator.control.watcher import Watcher
from orchestrator.errors import SandboxError
from orchestrator.plan.observed import Problem
from orchestrator.plan.types import Desired, GatewayDesired, ReloadPolicy
from tests.unit.control.conftest import GOOD, Bench

OTHER = GOOD + "# other\n"
BROKEN = "# syntax\n"


class Control:
    """What a control process is made of, on the bench's folder. `begin` starts it, `end` leaves what runs running."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    async def begin(self) -> None:
        bench = self.bench
        root = str(bench.folder)
        generations = Generations(root, bench.store, allowed=[root], read_config=lambda _path, _shown: {})
        self.watcher = Watcher(lambda _: None)
        self.reconciler = Reconciler(bench.world, generations, self.watcher, self.read, f"{root}/sandbox.yaml")
        self.history = History(self.reconciler, generations)
        await self.reconciler.start((), ())

    def read(self, _profiles: Sequence[str], _models: Sequence[str]) -> Desired:
        root = str(self.bench.folder)
        return Desired("0" * 12, "test", root, GatewayDesired(), {"hello": self.bench.wish}, roots=(root,))

    async def end(self) -> None:
        await self.reconciler.close()
        await self.watcher.close()

    async def again(self) -> None:
        """Control dies and comes back."""
        await self.end()
        await self.begin()

    async def down_and_up(self) -> None:
        await self.reconciler.down(1.0)
        await self.again()

    @property
    def model(self) -> Model:
        return self.reconciler.models["hello"]

    async def save(self, text: str) -> None:
        self.bench.write(text)
        await self.model.source.look(["main.py"])

    async def live(self, number: int | None = None) -> int:
        """Wait until it answers; the number of what answers."""
        return int((await self.history.wait("hello", number, 10.0))["generation"])

    async def refused(self, number: int | None = None, seconds: float = 10.0) -> SandboxError:
        with pytest.raises(SandboxError) as raised:
            await self.history.wait("hello", number, seconds)
        return raised.value

    async def until_reason(self, reason: str) -> None:
        def told(state: ModelState) -> bool:
            return state.status.reason == reason

        async with asyncio.timeout(10):
            await self.model.until(told)

    async def states(self) -> dict[int, str]:
        """What is remembered of each generation, once the loop has rested."""
        await self.model.until(lambda state: not self.model.pending())
        return {each["number"]: each["state"] for each in await self.history.listed("hello")}

    async def rest(self, number: int) -> None:
        """Wait until nothing is left of older generations."""
        await self.model.until(lambda state: state.generations_in_use() == {number} and not state.untidy)
        await self.model.source.tidy()  # it may be under way

    def want(self, **changes: Any) -> None:
        """Change what the next read of the files says."""
        self.bench.wish = replace(self.bench.wish, **changes)

    def code(self, number: int) -> str:
        """The main.py that the workers of a generation run."""
        row = self.bench.store.generation("hello", number)
        assert row is not None
        return (self.bench.folder / "generations" / "hello" / row.tree / "main.py").read_text()


@pytest.fixture
async def control(bench: Bench) -> AsyncIterator[Control]:
    bench.write(GOOD)
    made = Control(bench)
    await made.begin()
    yield made
    await made.end()


async def edited(control: Control) -> None:
    """Two contents were live, the second is."""
    assert await control.live() == 1
    await control.save(OTHER)
    assert await control.live() == 2


async def test_a_rollback_serves_the_old_content_under_a_new_number_until_the_next_save(control: Control) -> None:
    await edited(control)
    contents = [each["content"] for each in await control.history.listed("hello")]
    assert await control.history.roll_back("hello", None)
    assert await control.live(3) == 3
    assert control.code(3) == GOOD
    assert control.bench.traffic.routes["hello"].content is not None
    assert control.bench.traffic.routes["hello"].content[:12] == contents[1]
    await control.until_reason("rolled back to g1's content; the directory differs")
    assert (control.bench.path / "main.py").read_text() == OTHER
    assert any("rollback to g1, as g3" in line for line in control.bench.events("reload"))
    assert any("✔ g3" in line and "rollback to g1" in line for line in control.bench.events("reload"))

    await control.model.source.look(None)
    assert await control.live(3) == 3

    await control.save(OTHER + "# saved\n")
    assert await control.live() == 4
    await control.until_reason("")


async def test_after_a_rollback_what_is_on_disk_cannot_be_waited_for(control: Control) -> None:
    await edited(control)
    await control.history.roll_back("hello", 1)
    error = await control.refused()
    assert (error.reference, error.hint) == ("not-live", "save a file of the model, or: sandbox reload hello")
    assert error.message == (
        "hello: what is on disk does not answer: rolled back to g1's content; the directory differs"
    )
    await control.model.reload()
    assert await control.live() == 4
    assert control.code(4) == OTHER


async def test_a_directory_that_is_brought_to_the_old_content_ends_the_rollback_without_a_reload(
    control: Control,
) -> None:
    await edited(control)
    await control.history.roll_back("hello", 1)
    control.bench.write(GOOD)
    assert await control.live() == 3
    await control.until_reason("")


async def test_a_rollback_outlives_control_but_not_a_down(control: Control) -> None:
    await edited(control)
    await control.history.roll_back("hello", None)
    await control.again()
    assert await control.live(3) == 3
    await control.until_reason("rolled back to g1's content; the directory differs")
    assert (await control.refused()).reference == "not-live"

    await control.down_and_up()
    assert await control.live() == 4
    assert control.code(4) == OTHER


async def test_a_rollback_outlives_a_reboot(control: Control) -> None:
    await edited(control)
    await control.history.roll_back("hello", None)
    await control.end()
    engine = control.bench.runtime.engine
    for agent in engine.agents.values():
        await agent.end()
    engine.agents.clear()
    engine.records.clear()
    await control.begin()
    assert await control.live(3) == 3
    assert control.code(3) == GOOD


async def test_a_rollback_takes_another_try_of_what_failed_before(control: Control) -> None:
    await edited(control)
    engine = control.bench.runtime.engine
    engine.unbuildable.add("lock-2")
    control.want(lock_hash="lock-2", replica_hash="1:b")
    assert (await control.refused()).reference == "build"
    engine.unbuildable.clear()
    assert await control.history.roll_back("hello", 1)
    await control.until_reason("rolled back to g1's content; the directory differs")
    assert engine.builds == ["lock-1", "lock-2"]


async def test_a_generation_that_new_replicas_refuse_was_active_all_the_same(control: Control) -> None:
    await edited(control)
    state = control.model.state
    state.rejected[1, "1:b"] = state.rejected[2, "1:b"] = Problem("ImportError", "not here")
    control.model.wake()
    await control.save(OTHER + "# third\n")
    assert await control.live() == 3
    assert await control.states() == {3: "active", 2: "retired", 1: "retired"}


async def test_a_rollback_that_does_not_run_any_more_changes_nothing(control: Control) -> None:
    await control.live()
    await control.save(BROKEN)
    assert (await control.refused()).reference == "model-failed"
    await control.save(OTHER)
    assert await control.live() == 3
    assert not await control.history.roll_back("hello", 2)
    assert control.bench.traffic.routes["hello"].generation == 3
    assert await control.states() == {4: "failed", 3: "active", 2: "failed", 1: "retired"}


async def test_going_back_to_a_damaged_content_is_refused_and_what_answers_goes_on(control: Control) -> None:
    await edited(control)
    await control.save(OTHER + "# third\n")
    await control.live()
    await control.rest(3)
    for each in (control.bench.folder / "objects").glob("*/*"):
        if each.is_file() and each.read_text() in {GOOD, OTHER}:
            each.chmod(0o644)
            each.write_text("evil")
    for each in (control.bench.folder / "generations").rglob("main.py"):
        if each.read_text() in {GOOD, OTHER}:
            each.chmod(0o644)
            each.write_text("evil")
    with pytest.raises(SandboxError, match="generation 1 cannot be restored") as raised:
        await control.history.roll_back("hello", 1)
    assert raised.value.reference == "store"
    assert await control.live() == 3


async def test_what_became_of_each_generation_is_remembered_by_the_next_control_too(control: Control) -> None:
    await edited(control)
    await control.save(BROKEN)
    error = await control.refused()
    assert error.message == "hello: what is on disk does not answer: SyntaxError main.py:1 as asked"
    assert await control.live(2) == 2
    assert await control.states() == {3: "failed", 2: "active", 1: "retired"}
    await control.again()
    assert await control.states() == {3: "failed", 2: "active", 1: "retired"}


async def test_a_pinned_generation_outlives_the_others(control: Control) -> None:
    control.want(reload=ReloadPolicy(keep=2))
    await control.reconciler.reread()
    await control.live()
    assert (await control.history.pin("hello", 1, pinned=True))["pinned"]
    for number in range(2, 6):
        await control.save(f"{GOOD}# {number}\n")
        assert await control.live() == number
        await control.rest(number)
    assert set(await control.states()) == {5, 4, 1}
    with pytest.raises(SandboxError, match="generation 2 is not kept"):
        await control.history.pin("hello", 2, pinned=True)


async def test_waiting_sees_a_save_that_no_event_has_told_of(control: Control) -> None:
    await control.live()
    control.bench.write(OTHER)
    assert await control.live() == 2


async def test_a_newer_generation_is_as_good_as_the_one_waited_for(control: Control) -> None:
    await control.live()
    waiting = asyncio.create_task(control.live(2))
    await control.save("# hang\n")
    await control.save(OTHER)
    assert await waiting == 3


async def test_waiting_ends_when_its_time_is_over_and_says_what_is_missing(control: Control) -> None:
    await control.live()
    error = await control.refused(7, 0.05)
    assert (error.reference, error.message) == ("not-live", "hello: g7 does not answer after 0.05 s: the newest is g1")
    await control.save("# hang\n")
    error = await control.refused(None, 0.05)
    assert error.message == "hello: what is on disk does not answer after 0.05 s: loading g2"


async def test_what_cannot_be_waited_for_says_why(control: Control) -> None:
    bench = control.bench
    await control.live()
    control.want(reload=ReloadPolicy(mode="off"))
    await control.reconciler.reread()
    assert await control.live() == 1
    bench.write(OTHER)
    assert (await control.refused()).message == "hello: the directory was edited, and reload.mode is off"
    control.want(reload=ReloadPolicy())
    await control.live()
    bench.runtime.engine.unbuildable.add("lock-2")
    control.want(lock_hash="lock-2", replica_hash="1:b")
    error = await control.refused()
    assert (error.reference, "no matching distribution" in error.message) == ("build", True)
    (bench.path / "main.py").unlink()
    assert (await control.refused()).reference == "no-main"
    control.want(replicas=0)
    bench.write(GOOD)
    assert (await control.refused()).message == "hello: what is on disk does not answer: replicas: 0"
    with pytest.raises(SandboxError, match="no model named helo") as raised:
        await control.history.wait("helo", None, None)
    assert raised.value.hint == "did you mean hello?"


async def test_a_rollback_waits_for_a_tree_where_all_are_in_use(control: Control) -> None:
    control.want(reload=ReloadPolicy(max_draining=1))
    await control.reconciler.reread()
    await edited(control)
    await control.rest(2)
    for number in range(3, 7):  # the third of them is let finish, the last one waits for it
        await control.save(f"# hang\n# {number}\n")
        await control.model.until(
            lambda state, number=number: (
                state.wanted is not None and state.wanted.number == number and not control.model.pending()
            )
        )
    rolling = asyncio.create_task(control.history.roll_back("hello", 1))
    await asyncio.wait([rolling], timeout=0.2)
    assert not rolling.done()
    (agent,) = control.bench.runtime.agents.values()
    ((attempt, worker),) = ((at, each) for at, each in agent.workers.items() if each["state"] == "loading")
    worker["state"] = "ready"
    ready = {
        "type": "ready",
        "generation": worker["generation"],
        "attempt": attempt,
        "socket": worker["socket"],
        "pid": 1,
    }
    agent.tell({**ready, "phases": {}, "imports": [], "info": {}})
    assert await rolling
    assert control.code(await control.live(max(await control.states()))) == GOOD
