"""Long random lives of a model that is often short of memory: longer than those that hypothesis draws."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.unit.plan import test_properties
from tests.unit.plan.test_properties import AnyLife

STEPS = 80
FATES = ("good", "good", "broken", "hang", "tied")
THEN = ("settle", "settle", "settle", "look", "nothing")


def steps(life: AnyLife, chance: random.Random) -> list[tuple[int, Callable[[str], object]]]:
    """What may happen now, with its weight; each is told how far control gets before the next thing happens."""
    pick, fate, lock = chance.randrange(8), chance.choice(FATES), chance.choice(("lock-1", "lock-2"))
    found: list[tuple[int, Callable[[str], object]]] = [
        (20, lambda then: life.save(fate=fate, then=then)),
        (5, lambda then: life.all_finishes(then=then)),
        (5, lambda then: life.time_passes(seconds=chance.choice((0.05, 1.0, 21.0, 90.0)), then=then)),
        (4, lambda then: life.memory_gets_short(short=chance.random() < 0.7, then=then)),
        (3, lambda then: life.control_restarts(then=then)),
        (3, lambda then: life.scale(replicas=chance.randint(0, 3), then=then)),
        (3, lambda then: life.change_specification(lock=lock, limits=chance.choice("ab"), then=then)),
        (2, lambda then: life.change_requirements(lock=lock, fate=fate, then=then)),
        (2, lambda then: life.reload_mode(mode=chance.choice(("auto", "replace")), then=then)),
        (2, lambda then: life.reload(then=then)),
        (2, lambda then: life.go_back(pick=pick, then=then)),
        (2, lambda _: life.save_while_gateways_confirm(fate=fate)),
    ]
    if life.world.pending():
        found.append((30, lambda then: life.something_finishes(pick=pick, then=then)))
    if life.workers():
        cause = chance.choice(("signal 9", "exit 0"))
        found.append((7, lambda then: life.worker_dies(pick=pick, cause=cause, then=then)))
    if life.replicas("up", "lost", "starting"):
        found.append((4, lambda then: life.agent_dies(pick=pick, then=then)))
    if life.replicas("up"):
        found.append((4, lambda then: life.connection_is_lost(pick=pick, then=then)))
    return found


@pytest.mark.parametrize("seed", range(60))
def test_whatever_happens_to_a_model_short_of_memory_it_comes_to_rest(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(test_properties, "note", print)  # hypothesis's own prints nothing outside of it
    chance = random.Random(seed)
    life = AnyLife()
    life.begin(revivable=chance.random() < 0.5, replicas=chance.choice((1, 1, 2, 3)), fate=chance.choice(FATES))
    life.world.short = chance.random() < 0.7
    for _ in range(chance.randint(3, STEPS)):
        weights, possible = zip(*steps(life, chance), strict=True)
        chance.choices(possible, weights)[0](chance.choice(THEN))
    life.scale(replicas=chance.randint(1, 3), then="settle")
    life.reload(then="settle")
    life.world.run_out()
    life.memory_gets_short(short=True, then="settle")
    life.save(fate="good", then=chance.choice(THEN))
    life.teardown()
