"""What `stats` and `top` are told, on fakes."""

from __future__ import annotations

import pytest

from orchestrator.control import usage
from orchestrator.plan.types import Limits
from orchestrator.ports import ReplicaRecord, Usage
from tests.unit.control.conftest import Bench


async def test_a_row_for_each_living_replica(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "SAMPLE_EVERY", 0.0)
    bench.want(replicas=2, limits=Limits(memory=1000))
    await bench.begin()
    await bench.until(lambda state: state.routed is not None and len(state.routed.upstreams) == 2)
    used = iter(range(100))

    async def measured(_: ReplicaRecord) -> Usage:
        return Usage(float(next(used)), 2000, 3)

    monkeypatch.setattr(bench.runtime, "usage", measured)
    models = {"hello": bench.model}
    rows = await anext(aiter(usage.samples(models, bench.world, ["hello"])))
    assert [(row["model"], row["replica"], row["memory_limit"], row["pids"]) for row in rows] == [
        ("hello", 0, 1000, 3),
        ("hello", 1, 1000, 3),
    ]
    assert all(row["cpu_percent"] > 0 for row in rows)
    assert await anext(aiter(usage.samples(models, bench.world, ["other"]))) == []
    assert [row["command"] for row in await usage.processes(models, bench.world, ["hello"])] == ["fake agent"] * 2
