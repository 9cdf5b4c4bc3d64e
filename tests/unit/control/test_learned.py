"""What good workers imported is known to later replicas with the same environment, and to no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.control import learned
from orchestrator.control.learned import Learned
from orchestrator.store import Store
from orchestrator.testing import FakeAgent
from tests.unit.control.conftest import GOOD, Bench


def told(agent: FakeAgent) -> list[dict[str, Any]]:
    return [each for each in agent.received if each["type"] == "learned"]


async def taught(bench: Bench) -> FakeAgent:
    """A replica, one of whose forks imported more than nothing."""
    await bench.begin()
    await bench.until_live(1)
    [agent] = bench.runtime.agents.values()
    agent.imports = ["heavy.part", "heavy"]
    await bench.save(GOOD + "# taught\n")
    await bench.until_live(2)
    return agent


async def replaced(bench: Bench, **changes: str) -> FakeAgent:
    before = set(bench.runtime.agents)
    bench.want(replica_hash="1:b", **changes)
    await bench.until(lambda state: state.routed is not None and state.routed.replica_hash == "1:b")
    [new] = [agent for name, agent in bench.runtime.agents.items() if name not in before]
    return new


async def test_a_new_replica_hears_what_the_last_good_worker_imported_before_it_loads(bench: Bench) -> None:
    first = await taught(bench)
    new = await replaced(bench)
    assert told(first) == []
    assert told(new) == [{"type": "learned", "imports": ["heavy", "heavy.part"]}]
    kinds = [each["type"] for each in new.received]
    assert kinds.index("learned") < kinds.index("load")


async def test_it_is_not_told_to_a_replica_with_another_environment(bench: Bench) -> None:
    await taught(bench)
    assert told(await replaced(bench, lock_hash="lock-2")) == []


async def test_a_later_control_still_knows_it(bench: Bench) -> None:
    await taught(bench)
    assert Learned(bench.store).of("lock-1", "hello") == ("heavy", "heavy.part")


async def test_a_worker_that_inherited_nothing_replaces_the_list_and_a_fork_adds_to_it(bench: Bench) -> None:
    agent = await taught(bench)
    agent.imports = ["light"]
    await bench.save(GOOD + "# forked\n")
    await bench.until_live(3)
    assert bench.world.learned.of("lock-1", "hello") == ("heavy", "light", "heavy.part")
    agent.how = "spawn"
    await bench.save(GOOD + "# spawned\n")
    await bench.until_live(4)
    assert bench.world.learned.of("lock-1", "hello") == ("light",)


@pytest.fixture
def lists(tmp_path: Path) -> Learned:
    return Learned(Store(str(tmp_path / "store.db")))


def test_a_model_without_a_list_begins_with_that_of_another_with_its_environment(lists: Learned) -> None:
    lists.replace("lock-1", "first", ["numpy"])
    lists.replace("lock-1", "second", ["scipy"])
    lists.replace("lock-2", "third", ["torch"])
    assert lists.of("lock-1", "new") == ("scipy",)
    assert lists.of("lock-1", "first") == ("numpy",)
    lists.add("lock-1", "new", ["pandas"])
    assert lists.of("lock-1", "new") == ("pandas",)


def test_what_is_no_list_of_module_names_is_left_out_and_the_rest_bounded(lists: Learned) -> None:
    lists.replace("lock-1", "hello", ["fine.part", "../etc", "a b", "", 3, None, "x" * 300, "fine"])
    assert lists.of("lock-1", "hello") == ("fine", "fine.part")
    lists.replace("lock-1", "hello", "os")
    assert lists.of("lock-1", "hello") == ()
    lists.replace("lock-1", "hello", [f"m{number}.part" for number in range(learned.MOST_NAMES)] + ["shallow"])
    assert len(lists.of("lock-1", "hello")) == learned.MOST_NAMES
    assert lists.of("lock-1", "hello")[0] == "shallow"
