"""The planner, rule by rule: what it is shown and what it answers. No machine, no clock."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.plan.actions import describe
from orchestrator.plan.observed import ModelObserved, Problem, ReplicaObserved, Routed, WorkerObserved
from orchestrator.plan.overlap import Tight
from orchestrator.plan.planner import plan
from orchestrator.plan.types import Generation, ModelDesired, ReloadPolicy, Serving

NEW, OLD = "1:new", "1:old"
WISH = ModelDesired(name="m", path="/m", runtime="process", lock_hash="lock", replica_hash=NEW)
G1 = Generation("m", 1, "c1", "tree-1", changed=("main.py",))
G2 = Generation("m", 2, "c2", "tree-2", changed=("main.py",))
G3, G4 = Generation("m", 3, "c3", "tree-3"), Generation("m", 4, "c4", "tree-4")
TIGHT = Tight("load", "as asked")
BROKEN = Problem("SyntaxError", "invalid syntax", "main.py", 3)
READY = {"lock": "ready"}


def worker(generation: int, attempt: int = 1, state: str = "ready", since: float = 0.0) -> WorkerObserved:
    return WorkerObserved(generation, attempt, state, since)  # type: ignore[arg-type]


def replica(
    name: str,
    *workers: WorkerObserved,
    index: int = 0,
    hash_: str = NEW,
    state: str = "up",
    revivable: bool = True,
    load_timeout: float = 300.0,
) -> ReplicaObserved:
    return ReplicaObserved(name, index, hash_, state, workers, Serving(), revivable, load_timeout)  # type: ignore[arg-type]


def routed(generation: int, *upstreams: tuple[str, int], hash_: str = NEW) -> Routed:
    return Routed(generation, hash_, frozenset(upstreams))


def lines(desired: ModelDesired | None, observed: ModelObserved, now: float = 100.0) -> list[str]:
    return [describe(action) for action in plan(desired, observed, now).actions]


def seen(**fields: object) -> ModelObserved:
    return ModelObserved(**{"wanted": G1, "environments": READY, **fields})  # type: ignore[arg-type]


ONE_DRAINS = replace(WISH, reload=ReloadPolicy(max_draining=1))
FULL = (worker(1, 1, "draining"), worker(2, 2))
PAUSED = worker(2, 2, "paused")
SERVING_G1 = {"good": G1, "routed": routed(1, ("a", 1))}

CASES = {
    "no swap leaves out what serves on without its agent": (
        replace(WISH, replicas=2),
        seen(
            wanted=G2,
            good=G1,
            routed=routed(1, ("a", 1), ("b", 1)),
            replicas=(
                replica("a", worker(1), worker(2, 2, since=99.0)),
                replica("b", worker(1), index=1, state="dead"),
            ),
        ),
        ["revive b: its agent ended"],
    ),
    "nothing is done before the directory was read": (WISH, seen(wanted=None, environments={}), []),
    "the environment is built first": (
        WISH,
        seen(environments={}),
        ["build lock: no environment for these requirements yet"],
    ),
    "nothing starts while it builds": (WISH, seen(environments={"lock": "building"}), []),
    "a failed build is left until something changes": (WISH, seen(environments={"lock": "failed"}), []),
    "a model waits for its dependencies": (WISH, seen(environments={}, blocked=("db",)), []),
    "each missing replica is started": (
        replace(WISH, replicas=2),
        seen(replicas=(replica("a", worker(1, state="loading")),)),
        ["start replica 1: not there"],
    ),
    "a start that failed waits for its back-off": (WISH, seen(retry_at={"start:0": 101.0}), []),
    "a connected replica loads what is wanted": (
        WISH,
        seen(replicas=(replica("a"),)),
        ["load g1 on a: first start"],
    ),
    "a replica that is not connected is left alone": (WISH, seen(replicas=(replica("a", state="starting"),)), []),
    "the first ready replica answers at once": (
        replace(WISH, replicas=2),
        seen(replicas=(replica("a", worker(1)), replica("b", worker(1, state="loading"), index=1))),
        ["swap to g1 on a-1: ready"],
    ),
    "a second one joins": (
        replace(WISH, replicas=2),
        seen(replicas=(replica("a", worker(1)), replica("b", worker(1), index=1)), **SERVING_G1),
        ["swap to g1 on a-1, b-1: a worker joined"],
    ),
    "what is as wanted needs nothing": (WISH, seen(replicas=(replica("a", worker(1)),), **SERVING_G1), []),
    "an edit is loaded beside the one that serves": (
        WISH,
        seen(wanted=G2, replicas=(replica("a", worker(1)),), **SERVING_G1),
        ["load g2 on a: main.py"],
    ),
    "a new generation waits until it is ready everywhere": (
        replace(WISH, replicas=2),
        seen(
            wanted=G2,
            good=G1,
            routed=routed(1, ("a", 1), ("b", 1)),
            replicas=(
                replica("a", worker(1), worker(2, 2)),
                replica("b", worker(1), worker(2, 2, "loading", since=99.0), index=1),
            ),
        ),
        [],
    ),
    "past load_timeout those that are ready are swapped to": (
        replace(WISH, replicas=2, load_timeout=10.0),
        seen(
            wanted=G2,
            good=G1,
            routed=routed(1, ("a", 1), ("b", 1)),
            replicas=(
                replica("a", worker(1), worker(2, 2, since=80.0), load_timeout=10.0),
                replica("b", worker(1), worker(2, 2, "loading", since=80.0), index=1, load_timeout=10.0),
            ),
        ),
        ["swap to g2 on a-2: ready"],
    ),
    "the old worker is retired once the gateways have confirmed": (
        WISH,
        seen(wanted=G2, good=G2, routed=routed(2, ("a", 2)), replicas=(replica("a", worker(1), worker(2, 2)),)),
        ["retire g1-1 on a: replaced"],
    ),
    "a rejected edit leaves the last good one serving": (
        WISH,
        seen(wanted=G2, rejected={(2, NEW): BROKEN}, replicas=(replica("a", worker(1)),), **SERVING_G1),
        [],
    ),
    "a newer edit kills the candidate of an older one": (
        WISH,
        seen(
            wanted=Generation("m", 3, "c3", "tree-3", changed=("main.py",)),
            replicas=(replica("a", worker(1), worker(2, 2, "loading")),),
            **SERVING_G1,
        ),
        ["kill g2-2 on a: g3 is newer", "load g3 on a: main.py"],
    ),
    "but not more than twice in a row": (
        WISH,
        seen(
            wanted=Generation("m", 3, "c3", "tree-3"),
            superseded=2,
            replicas=(replica("a", worker(1), worker(2, 2, "loading")),),
            **SERVING_G1,
        ),
        [],
    ),
    "a worker that died is loaded again, and leaves the route at once": (
        WISH,
        seen(replicas=(replica("a"),), **SERVING_G1),
        ["load g1 on a: its worker ended", "swap to g1 on nothing: a worker ended"],
    ),
    "after its back-off": (
        WISH,
        seen(replicas=(replica("a"),), good=G1, routed=routed(1), retry_at={"load:a": 100.5}),
        [],
    ),
    "unless the restart policy forbids it": (
        WISH,
        seen(replicas=(replica("a"),), good=G1, routed=routed(1), halted=frozenset({("a", 1)})),
        [],
    ),
    "a changed specification gets a replica beside the old one": (
        WISH,
        seen(good=G1, routed=routed(1, ("a", 1), hash_=OLD), replicas=(replica("a", worker(1), hash_=OLD),)),
        ["start replica 0: its specification changed"],
    ),
    "the old one serves until the new one is ready": (
        WISH,
        seen(
            good=G1,
            routed=routed(1, ("a", 1), hash_=OLD),
            replicas=(replica("a", worker(1), hash_=OLD), replica("b", worker(1, state="loading"))),
        ),
        [],
    ),
    "then it is swapped": (
        WISH,
        seen(
            good=G1,
            routed=routed(1, ("a", 1), hash_=OLD),
            replicas=(replica("a", worker(1), hash_=OLD), replica("b", worker(1))),
        ),
        ["swap to g1 on b-1: ready"],
    ),
    "and stopped": (
        WISH,
        seen(
            good=G1,
            routed=routed(1, ("b", 1)),
            replicas=(replica("a", worker(1), hash_=OLD), replica("b", worker(1))),
        ),
        ["stop a: replaced"],
    ),
    "an edit made while the new environment builds goes to the old replicas at once": (
        WISH,
        seen(
            wanted=G2,
            environments={"lock": "building"},
            good=G1,
            routed=routed(1, ("a", 1), hash_=OLD),
            replicas=(replica("a", worker(1), hash_=OLD),),
        ),
        ["load g2 on a: main.py"],
    ),
    "an edit of the requirements is not live before they are installed": (
        WISH,
        seen(
            wanted=replace(G2, changed=("main.py", "requirements.txt")),
            environments={"lock": "building"},
            good=G1,
            routed=routed(1, ("a", 1), hash_=OLD),
            replicas=(replica("a", worker(1), hash_=OLD),),
        ),
        [],
    ),
    "what serves meanwhile is started again where it ends": (
        WISH,
        seen(
            wanted=replace(G2, changed=("requirements.txt",)),
            environments={"lock": "building"},
            good=G1,
            routed=routed(1, hash_=OLD),
            replicas=(replica("a", hash_=OLD),),
        ),
        ["load g1 on a: its worker ended"],
    ),
    "a replica too many leaves the route, then goes": (
        WISH,
        seen(
            good=G1,
            routed=routed(1, ("a", 1), ("b", 1)),
            replicas=(replica("a", worker(1)), replica("b", worker(1), index=1)),
        ),
        ["swap to g1 on a-1: a worker ended"],
    ),
    "a dead agent is revived, its workers stay in the route": (
        WISH,
        seen(replicas=(replica("a", worker(1), state="dead"),), **SERVING_G1),
        ["revive a: its agent ended"],
    ),
    "a dead container is removed and started again": (
        WISH,
        seen(replicas=(replica("a", state="dead", revivable=False),), **SERVING_G1),
        ["stop a: its agent ended", "start replica 0: not there", "swap to g1 on nothing: a worker ended"],
    ),
    "new limits are sent": (
        replace(WISH, serving=Serving(concurrency=2)),
        seen(replicas=(replica("a", worker(1)),), **SERVING_G1),
        ["configure a: limits changed"],
    ),
    "a new load_timeout is sent": (
        replace(WISH, load_timeout=5.0),
        seen(replicas=(replica("a", worker(1)),), **SERVING_G1),
        ["configure a: limits changed"],
    ),
    "at max_draining generations the newest is loaded": (
        ONE_DRAINS,
        seen(wanted=G3, good=G2, routed=routed(2, ("a", 2)), replicas=(replica("a", *FULL),)),
        ["load g3 on a: asked for"],
    ),
    "and waits ready, nothing is cut early": (
        ONE_DRAINS,
        seen(wanted=G3, good=G2, routed=routed(2, ("a", 2)), replicas=(replica("a", *FULL, worker(3, 3)),)),
        [],
    ),
    "the older one that waited is dropped for a newer": (
        ONE_DRAINS,
        seen(wanted=G4, good=G2, routed=routed(2, ("a", 2)), replicas=(replica("a", *FULL, worker(3, 3)),)),
        ["retire g3-3 on a: replaced"],
    ),
    "which is loaded when that has ended": (
        ONE_DRAINS,
        seen(wanted=G4, good=G2, routed=routed(2, ("a", 2)), replicas=(replica("a", *FULL),)),
        ["load g4 on a: asked for"],
    ),
    "and served once a generation has drained": (
        ONE_DRAINS,
        seen(wanted=G4, good=G2, routed=routed(2, ("a", 2)), replicas=(replica("a", worker(2, 2), worker(4, 4)),)),
        ["swap to g4 on a-4: ready"],
    ),
    "where two do not fit, the new one waits before its load": (
        WISH,
        seen(wanted=G2, tight=TIGHT, replicas=(replica("a", worker(1)),), **SERVING_G1),
        ["load g2 on a, waiting before its load: main.py; stop-first: as asked"],
    ),
    "a respawn fits: what it replaces is gone": (
        WISH,
        seen(wanted=G2, tight=TIGHT, replicas=(replica("a"),), good=G2, routed=routed(2)),
        ["load g2 on a: its worker ended"],
    ),
    "while it is compiled and imported, the old one answers": (
        WISH,
        seen(wanted=G2, tight=TIGHT, replicas=(replica("a", worker(1), worker(2, 2, "loading")),), **SERVING_G1),
        [],
    ),
    "then requests are held": (
        WISH,
        seen(wanted=G2, tight=TIGHT, replicas=(replica("a", worker(1), PAUSED),), **SERVING_G1),
        ["swap to g1 on nothing: stop-first: the next generation needs the memory"],
    ),
    "and the old one drains": (
        WISH,
        seen(wanted=G2, tight=TIGHT, good=G1, routed=routed(1), replicas=(replica("a", worker(1), PAUSED),)),
        ["retire g1-1 on a: replaced"],
    ),
    "to its end": (
        WISH,
        seen(
            wanted=G2,
            tight=TIGHT,
            good=G1,
            routed=routed(1),
            replicas=(replica("a", worker(1, 1, "draining"), PAUSED),),
        ),
        [],
    ),
    "then the new one proceeds": (
        WISH,
        seen(wanted=G2, tight=TIGHT, good=G1, routed=routed(1), replicas=(replica("a", PAUSED),)),
        ["proceed g2-2 on a: nothing else runs there"],
    ),
    "and answers": (
        WISH,
        seen(wanted=G2, tight=TIGHT, good=G1, routed=routed(1), replicas=(replica("a", worker(2, 2)),)),
        ["swap to g2 on a-2: ready"],
    ),
    "where it fails, the old one is loaded again": (
        WISH,
        seen(wanted=G2, tight=TIGHT, good=G1, routed=routed(1), rejected={(2, NEW): BROKEN}, replicas=(replica("a"),)),
        ["load g1 on a: its worker ended"],
    ),
    "a newer save ends the wait of an older one": (
        WISH,
        seen(wanted=G3, tight=TIGHT, replicas=(replica("a", worker(1), PAUSED),), **SERVING_G1),
        [
            "kill g2-2 on a: it need not wait any more",
            "load g3 on a, waiting before its load: asked for; stop-first: as asked",
        ],
    ),
    "but not for ever": (
        WISH,
        seen(wanted=G3, tight=TIGHT, superseded=2, replicas=(replica("a", worker(1), PAUSED),), **SERVING_G1),
        ["swap to g1 on nothing: stop-first: the next generation needs the memory"],
    ),
    "of two replicas one makes room at a time, and the other answers": (
        replace(WISH, replicas=2),
        seen(
            wanted=G2,
            tight=TIGHT,
            good=G1,
            routed=routed(1, ("a", 1), ("b", 1)),
            replicas=(replica("a", worker(1), PAUSED), replica("b", worker(1), PAUSED, index=1)),
        ),
        ["swap to g1 on b-1: stop-first: the next generation needs the memory"],
    ),
    "the other's turn is not before the first is back": (
        replace(WISH, replicas=2),
        seen(
            wanted=G2,
            tight=TIGHT,
            good=G1,
            routed=routed(1, ("b", 1)),
            replicas=(replica("a", worker(2, 2, "loading")), replica("b", worker(1), PAUSED, index=1)),
        ),
        [],
    ),
    "with which the new generation begins to answer": (
        replace(WISH, replicas=2),
        seen(
            wanted=G2,
            tight=TIGHT,
            good=G1,
            routed=routed(1, ("b", 1)),
            replicas=(replica("a", worker(2, 2)), replica("b", worker(1), PAUSED, index=1)),
        ),
        ["swap to g2 on a-2: ready"],
    ),
    "and then the other makes room": (
        replace(WISH, replicas=2),
        seen(
            wanted=G2,
            tight=TIGHT,
            good=G2,
            routed=routed(2, ("a", 2)),
            replicas=(replica("a", worker(2, 2)), replica("b", worker(1), PAUSED, index=1)),
        ),
        ["retire g1-1 on b: replaced"],
    ),
    "what was let finish is served until the newer one is": (
        WISH,
        seen(
            wanted=Generation("m", 3, "c3", "tree-3"),
            good=G1,
            routed=routed(1, ("a", 1)),
            superseded=2,
            replicas=(replica("a", worker(1), worker(2, 2), worker(3, 3, "loading")),),
        ),
        ["swap to g2 on a-2: ready"],
    ),
    "even where the newer one is rejected and nothing answered before": (
        WISH,
        seen(
            wanted=Generation("m", 3, "c3", "tree-3"),
            rejected={(3, NEW): BROKEN},
            replicas=(replica("a", worker(2, 2)),),
        ),
        ["swap to g2 on a-2: ready"],
    ),
    "what was let finish waits until it is ready everywhere": (
        replace(WISH, replicas=2),
        seen(
            wanted=Generation("m", 3, "c3", "tree-3"),
            good=G1,
            routed=routed(1, ("a", 1), ("b", 1)),
            superseded=2,
            replicas=(
                replica("a", worker(1), worker(2, 2), worker(3, 3, "loading", since=99.0)),
                replica("b", worker(1), worker(2, 2, "loading", since=99.0), index=1),
            ),
        ),
        [],
    ),
    "a replica too many serves until another one does": (
        WISH,
        seen(good=G1, routed=routed(1, ("b", 1)), replicas=(replica("b", worker(1), index=1),)),
        ["start replica 0: its specification changed"],
    ),
    "none of any specification stays where no replica is wanted": (
        replace(WISH, replicas=0),
        seen(good=G1, routed=routed(1, ("a", 1), hash_=OLD), replicas=(replica("a", worker(1), hash_=OLD),)),
        ["swap to g1 on nothing: a worker ended"],
    ),
    "and is stopped once it is out of the route": (
        replace(WISH, replicas=0),
        seen(good=G1, routed=routed(1, hash_=OLD), replicas=(replica("a", worker(1), hash_=OLD),)),
        ["stop a: replaced"],
    ),
    "a dead agent's workers leave the route before they are ended": (
        replace(WISH, replicas=0),
        seen(replicas=(replica("a", worker(1), state="dead"),), **SERVING_G1),
        ["swap to g1 on nothing: a worker ended"],
    ),
    "a dead agent is revived once its environment is at hand again": (
        WISH,
        seen(environments={}, replicas=(replica("a", worker(1), state="dead"),), **SERVING_G1),
        ["build lock: no environment for these requirements yet"],
    ),
    "of two replicas in one place the one that serves stays": (
        WISH,
        seen(good=G1, routed=routed(1, ("b", 1)), replicas=(replica("a"), replica("b", worker(1)))),
        ["stop a: replaced"],
    ),
    "an unwanted model is stopped": (None, seen(replicas=(replica("a", worker(1)),)), ["stop a: no longer wanted"]),
}


@pytest.mark.parametrize("case", CASES, ids=list(CASES))
def test_plan(case: str) -> None:
    desired, observed, expected = CASES[case]
    assert lines(desired, observed) == expected


def test_a_plan_that_only_waits_says_until_when() -> None:
    assert plan(WISH, seen(retry_at={"start:0": 101.5}), 100.0).wake_at == 101.5


def test_gateways_never_go_back_while_the_newer_generation_answers() -> None:
    back = seen(
        wanted=G2,
        good=G2,
        routed=routed(2, ("a", 2)),
        rejected={(2, NEW): BROKEN},
        replicas=(replica("a", worker(1), worker(2, 2)),),
    )
    assert not any(line.startswith("swap to g1") for line in lines(WISH, back))
