"""`sandbox plan` on a whole control of fakes: what is edited and not live yet is told as it will be done; nothing is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from orchestrator.control.preview import preview
from orchestrator.errors import SandboxError
from orchestrator.plan.types import ReloadPolicy, Serving
from tests.unit.control.conftest import GOOD, Bench
from tests.unit.control.test_history import OTHER
from tests.unit.control.test_reconciler import Troubled

OFF = ReloadPolicy(mode="off")


async def lines(control: Troubled) -> list[str]:
    return [" ".join(str(each[key]) for key in ("verb", "detail", "cause")) for each in await told(control)]


async def told(control: Troubled) -> list[Any]:
    return list(await preview(control.reconciler))


@pytest.fixture
async def control(bench: Bench) -> AsyncIterator[Troubled]:
    bench.write(GOOD)
    made = Troubled(bench)
    made.want(reload=OFF)
    await made.begin()
    await made.live(1)
    yield made
    await made.end()


async def test_nothing_is_told_where_nothing_was_edited(control: Troubled) -> None:
    assert await told(control) == []


async def test_an_edit_that_waits_is_told_as_it_is_then_done(control: Troubled) -> None:
    control.bench.write(OTHER)
    [found] = await told(control)
    assert (found["verb"], found["detail"]) == ("fork", "a forked worker beside g1")
    assert found["files"] == ["main.py"]
    assert "reload.mode is off" in found["cause"]
    assert await control.live(1) == 1, "a look at what would be done did it"

    await control.reconciler.reload("hello")
    assert await told(control) == []
    [event] = [each for each in control.bench.store.events() if each["data"].get("generation") == 2]
    assert event["data"]["tier"] == found["verb"]


async def test_a_file_that_was_not_read_yet_is_told(control: Troubled) -> None:
    control.want(serving=Serving(concurrency=2))
    assert await lines(control) == ["live told to what runs concurrency 16 → 2"]
    control.want(replica_hash="1:b", network="bridge")
    assert await lines(control) == [
        "replace a new replica beside g1 network none → bridge, concurrency 16 → 2",
    ]


async def test_a_wrong_file_is_an_error(control: Troubled) -> None:
    control.faults.append(SandboxError("yaml-syntax", "no"))
    with pytest.raises(SandboxError):
        await told(control)


async def test_a_directory_that_cannot_be_read_is_told_and_nothing_will_come_of_it(control: Troubled) -> None:
    (control.bench.path / "main.py").unlink()
    [found] = await told(control)
    assert (found["verb"], found["detail"]) == ("none", "g1 goes on answering")
    assert "main.py" in found["cause"]


async def test_a_rejected_edit_is_told_as_what_it_is(control: Troubled) -> None:
    control.bench.write("# syntax\n")
    await control.reconciler.reload("hello")
    assert await lines(control) == ["none g1 goes on answering g2 was rejected: SyntaxError main.py:1 as asked"]
