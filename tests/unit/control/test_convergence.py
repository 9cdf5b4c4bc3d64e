"""A model's real loop under random lives: it never stops answering without cause, and becomes what is wanted."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest

from orchestrator.control.state import ModelState
from orchestrator.plan.lifecycle import ANSWERS
from orchestrator.plan.types import Serving
from orchestrator.ports import Route
from tests.unit.control.conftest import GOOD, Bench

SEEDS = range(10)
STEPS = 60


class Life:
    """Does one random thing after another to a model. excused: whether an empty route is no wonder any more."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self.bench = bench
        self.random = random.Random(seed)
        self.saves = 0
        self.done: list[str] = []

    async def live(self) -> None:
        steps = [self.save] * 4 + [self.spec, self.scale, self.limit, self.reload, self.mode, self.restart]
        steps += [self.die, self.kill_agent]
        for _ in range(STEPS):
            step = self.random.choice(steps)
            self.done.append(step.__name__)
            await step()
            for _ in range(self.random.choice((0, 0, 1, 5, 50))):
                await asyncio.sleep(0)

    async def save(self) -> None:
        self.saves += 1
        first = self.random.choice((GOOD, GOOD, GOOD, "# syntax\n", "# import\n"))
        self.done[-1] += f" {first.strip()}"
        await self.bench.save(f"{first}# {self.saves}\n")

    async def spec(self) -> None:
        lock, limits = self.random.choice("123"), self.random.choice("ab")
        self.done[-1] += f" {lock}-{limits}"
        self.bench.want(lock_hash=f"lock-{lock}", replica_hash=f"1:{lock}-{limits}")

    async def scale(self) -> None:
        self.bench.want(replicas=self.random.randint(1, 3))

    async def limit(self) -> None:
        self.bench.want(serving=Serving(concurrency=self.random.randint(1, 3)))

    async def reload(self) -> None:
        await self.bench.model.reload()

    async def mode(self) -> None:
        self.bench.want(reload=replace(self.bench.wish.reload, mode=self.random.choice(("auto", "replace"))))

    async def restart(self) -> None:
        """A new control takes over."""
        bench = self.bench
        await bench.model.close()
        bench.model = bench.make_model()
        await bench.model.adopt(bench.wish, await bench.runtime.list())
        bench.model.want(bench.wish, ())
        await bench.model.reports.publish()
        bench.model.start()
        await bench.model.source.look(None)

    async def die(self) -> None:
        """A worker dies, where another one is left to answer."""
        agents = [each for each in self.bench.runtime.agents.values() if each.workers]
        if len(agents) > 1:
            self.random.choice(agents).kill_worker()

    async def kill_agent(self) -> None:
        """An agent dies; its workers serve on."""
        state = self.bench.model.state
        living = [each for each in state.replicas.values() if each.state == "up"]
        if living:
            self.bench.runtime.engine.kill_agent(self.random.choice(living).incarnation)


def as_wanted(state: ModelState) -> bool:
    """Whether exactly the wanted replicas serve exactly the wanted content, and nothing else is left."""
    wish, routed, wanted = state.desired, state.routed, state.wanted
    if wish is None or routed is None or wanted is None:
        return False
    return (
        (routed.generation, routed.replica_hash) == (wanted.number, wish.replica_hash)
        and len(routed.upstreams) == wish.replicas == len(state.replicas)
        and all(each.state == "up" and len(each.workers) == 1 for each in state.replicas.values())
        and all(each.told is not None and each.told[0] == wish.serving for each in state.replicas.values())
        and (state.status.state, state.status.reason) == ("running", "")
    )


def answered(routes: list[Route | None]) -> list[bool]:
    return [route is not None and bool(route.upstreams) and route.state in ANSWERS for route in routes]


@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_happens_it_becomes_what_is_wanted(bench: Bench, seed: int) -> None:
    life = Life(bench, seed)
    bench.want(replicas=2)
    await bench.begin()
    exits = asyncio.create_task(listen(bench))
    try:
        await bench.until_live(1)
        await life.live()
        await bench.save(f"{GOOD}# the last\n")
        async with asyncio.timeout(20):
            await bench.model.until(as_wanted)
    except BaseException:
        print(f"seed {seed}: {'; '.join(life.done)}")
        print(bench.model.state.status, bench.model.observe(), *bench.model.pending(), sep="\n")
        raise
    finally:
        exits.cancel()
        await asyncio.gather(exits, return_exceptions=True)
    assert not bench.events("failed") or all("could not act" not in each for each in bench.events("failed"))
    if "die" not in " ".join(life.done):
        unbroken(bench)


async def listen(bench: Bench) -> None:
    async for exit_ in bench.runtime.exits():
        bench.model.ended(exit_)


def unbroken(bench: Bench) -> None:
    routes = answered([route for _, route in bench.traffic.history])
    assert all(routes[routes.index(True) :]), "the route was empty for a moment"


@pytest.mark.parametrize("seed", SEEDS)
async def test_no_edit_and_no_specification_ever_empties_the_route(bench: Bench, seed: int) -> None:
    life = Life(bench, seed)
    life.die = life.kill_agent = life.save  # type: ignore[method-assign]
    await bench.begin()
    exits = asyncio.create_task(listen(bench))
    try:
        await bench.until_live(1)
        await life.live()
        await bench.save(f"{GOOD}# the last\n")
        async with asyncio.timeout(20):
            await bench.model.until(as_wanted)
        unbroken(bench)
    except BaseException:
        print(f"seed {seed}: {'; '.join(life.done)}")
        print(bench.model.state.status, bench.model.observe(), *bench.model.pending(), sep="\n")
        raise
    finally:
        exits.cancel()
        await asyncio.gather(exits, return_exceptions=True)
