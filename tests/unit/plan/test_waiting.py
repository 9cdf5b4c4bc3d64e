"""Whether a generation answers or still can: each rule alone, on values."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.plan.actions import Load
from orchestrator.plan.observed import ModelObserved, Problem, ReplicaObserved, Routed, WorkerObserved
from orchestrator.plan.status import status
from orchestrator.plan.types import Generation, ModelDesired
from orchestrator.plan.waiting import Awaited, Coming, Hopeless, Live, Newest, Numbered, verdict

NEW, OLD = "1:new", "1:old"
WISH = ModelDesired(name="m", path="/m", runtime="process", lock_hash="lock", replica_hash=NEW)
G2 = Generation("m", 2, "c2", "tree-2")
BROKEN = Problem("SyntaxError", "invalid syntax", "main.py", 3)
BUILD = Problem("build", "no matching distribution", reference="build", phase="build")


def replica(*numbers: int, hash_: str = NEW, state: str = "loading") -> ReplicaObserved:
    workers = tuple(WorkerObserved(each, each, state) for each in numbers)  # type: ignore[arg-type]
    return ReplicaObserved("a", 0, hash_, "up", workers)


def routed(number: int, hash_: str = NEW) -> Routed:
    return Routed(number, hash_, frozenset({("a", number)}))


def seen(**fields: object) -> ModelObserved:
    return ModelObserved(**{"wanted": G2, "routed": routed(1), "environments": {"lock": "ready"}, **fields})  # type: ignore[arg-type]


REJECTED = {"rejected": {(2, NEW): BROKEN}}
ROLLED_BACK = {"wanted": replace(G2, origin=1), "routed": routed(2)}

CASES = {
    "it answers": (seen(routed=routed(2)), Newest(2), Live(2)),
    "a newer one is as good": (seen(routed=routed(3)), Numbered(2), Live(3)),
    "nobody answers for it any more": (
        seen(routed=Routed(2, NEW, frozenset()), replicas=(replica(2),)),
        Numbered(2),
        Coming("loading"),
    ),
    "on old replicas a number is live": (seen(routed=routed(2, OLD)), Numbered(2), Live(2)),
    "on old replicas the newest is not": (
        seen(routed=routed(2, OLD)),
        Newest(2),
        Coming("replacing its replicas"),
    ),
    "a rollback is live by its number": (seen(**ROLLED_BACK), Numbered(2), Live(2)),
    "a rollback holds back what is on disk": (
        seen(**ROLLED_BACK),
        Newest(2),
        Hopeless("rolled back to g1's content; the directory differs", "not-live"),
    ),
    "the next save may come": (seen(routed=routed(2)), Numbered(3), Coming("the newest is g2")),
    "the next save may come after a broken one": (seen(**REJECTED), Numbered(3), Coming("the newest is g2")),
    "it was rejected": (
        seen(**REJECTED, replicas=(replica(2, state="ready"),)),
        Newest(2),
        Hopeless("SyntaxError main.py:3 invalid syntax", "model-failed"),
    ),
    "it loads": (seen(replicas=(replica(2),)), Newest(2), Coming("loading g2")),
    "an older one loads": (seen(replicas=(replica(1),)), Newest(2), Coming("loading g2")),
    "nothing was read yet": (seen(wanted=None, routed=None), Newest(0), Coming("reading its directory")),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_live_coming_or_hopeless(case: str) -> None:
    observed, awaited, expected = CASES[case]
    found = status(WISH, observed, None, stopping=False)
    assert verdict(WISH, observed, found, (), awaited) == expected


@pytest.mark.parametrize(
    ("observed", "awaited", "expected"),
    [
        (seen(routed=routed(2)), Newest(2), Hopeless(BUILD.line_for_people, "build")),
        (seen(routed=routed(2)), Numbered(2), Live(2)),
        (seen(replicas=(replica(2, hash_=OLD),)), Newest(2), Hopeless(BUILD.line_for_people, "build")),
        (seen(replicas=(replica(2, hash_=OLD),)), Numbered(2), Coming(BUILD.line_for_people)),
    ],
)
def test_a_failed_build_keeps_the_newest_from_being_live_and_code_only_where_it_needs_it(
    observed: ModelObserved, awaited: Awaited, expected: object
) -> None:
    found = status(WISH, observed, BUILD, stopping=False)
    assert verdict(WISH, observed, found, (), awaited) == expected


def test_what_is_about_to_load_is_on_its_way_whatever_was_wrong_before() -> None:
    observed = seen(replicas=(replica(1, state="ready"),))
    found = status(WISH, observed, BUILD, stopping=False)
    assert isinstance(verdict(WISH, observed, found, (Load("a", 2, "main.py"),), Newest(2)), Coming)
    assert isinstance(verdict(WISH, observed, found, (Load("a", 1, "main.py"),), Newest(2)), Hopeless)


@pytest.mark.parametrize("awaited", [Newest(2), Numbered(2), Numbered(9)])
def test_nothing_is_waited_for_where_nothing_runs(awaited: Awaited) -> None:
    none = replace(WISH, replicas=0)
    observed = seen(routed=None)
    found = status(none, observed, None, stopping=False)
    assert verdict(none, observed, found, (), awaited) == Hopeless("replicas: 0", "not-live")
    ending = status(WISH, observed, None, stopping=True)
    assert isinstance(verdict(WISH, observed, ending, (), awaited), Hopeless)
