"""`sandbox plan` says of each edit what it will do, and why, before it does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.plan.changes import classify_gateway
from orchestrator.plan.forecast import Forecast, forecast
from orchestrator.plan.observed import ModelObserved, Problem, Routed
from orchestrator.plan.overlap import Tight
from orchestrator.plan.types import ApiKey, GatewayDesired, Generation, ModelDesired, ReloadPolicy, Serving

WISH = ModelDesired("hello", "/p/hello", "process", "lock", "1:replica")
G3 = Generation("hello", 3, "c3", "tree-0")
G4 = Generation("hello", 4, "c4", "tree-1", changed=("main.py",))
LIVE = ModelObserved(
    wanted=G3,
    good=G3,
    routed=Routed(3, "1:replica", frozenset({("ab12cd34", 1)})),
    environments={"lock": "ready", "other": "building"},
)
REJECTED = replace(LIVE, wanted=G4, rejected={(4, "1:replica"): Problem("SyntaxError", "invalid syntax", "main.py", 3)})
OFF = replace(WISH, reload=ReloadPolicy(mode="off"))
OTHER_LOCK = replace(WISH, lock_hash="other", replica_hash="1:other", replicas=2)


def told(forecasts: tuple[Forecast, ...]) -> list[str]:
    return [f"{each.tier} {each.effect} ({each.cause})" for each in forecasts]


@pytest.mark.parametrize(
    ("new", "changed", "observed", "unforkable", "lines"),
    [
        (WISH, (), LIVE, "", []),
        (WISH, ("main.py",), LIVE, "", ["fork a forked worker beside g3 (main.py)"]),
        (
            WISH,
            ("main.py",),
            replace(LIVE, tight=Tight("load", "short")),
            "",
            ["stop-first compiled and imported beside g3, which then ends first, requests held (main.py; short)"],
        ),
        (
            WISH,
            ("main.py",),
            LIVE,
            "torch left 2 threads",
            ["spawn a worker in a new interpreter beside g3 (main.py; torch left 2 threads)"],
        ),
        (
            replace(WISH, reload=ReloadPolicy(mode="spawn")),
            ("main.py",),
            LIVE,
            "",
            ["spawn a worker in a new interpreter beside g3 (main.py, reload.mode; reload.mode: spawn)"],
        ),
        (
            replace(WISH, serving=Serving(timeout=20.0)),
            (),
            LIVE,
            "",
            ["live told to what runs (timeout 60 s → 20 s)"],
        ),
        (
            OTHER_LOCK,
            ("requirements.txt",),
            LIVE,
            "",
            ["replace its environment, then 2 new replicas beside g3 (environment of its packages, replicas 1 → 2)"],
        ),
        (
            replace(WISH, network="bridge", replica_hash="1:other"),
            (),
            LIVE,
            "",
            ["replace a new replica beside g3 (network none → bridge)"],
        ),
        (WISH, (), replace(LIVE, wanted=G4), "", ["fork g4: under way (main.py)"]),
        (
            WISH,
            (),
            replace(LIVE, routed=Routed(3, "1:old", frozenset({("ab12cd34", 1)}))),
            "",
            ["replace g3: under way (its specification changed)"],
        ),
        (
            WISH,
            (),
            REJECTED,
            "",
            ["none g3 goes on answering (g4 was rejected: SyntaxError main.py:3 invalid syntax)"],
        ),
        (
            WISH,
            (),
            replace(LIVE, environments={"lock": "failed"}, routed=Routed(3, "1:old", frozenset({("ab12cd34", 1)}))),
            "",
            ["none g3 goes on answering (its new environment could not be built)"],
        ),
        (
            WISH,
            (),
            ModelObserved(wanted=G3, blocked=("other",)),
            "",
            ["replace its first replica, once they answer (waits for other)"],
        ),
    ],
)
def test_each_edit_is_told_with_its_tier_its_effect_and_its_cause(
    new: ModelDesired, changed: tuple[str, ...], observed: ModelObserved, unforkable: str, lines: list[str]
) -> None:
    assert told(forecast(WISH, new, changed, observed, unforkable)) == lines


def test_a_directory_that_a_rollback_left_is_told_though_nothing_will_be_done() -> None:
    assert told(forecast(WISH, WISH, (), replace(LIVE, wanted=replace(G3, origin=1)))) == [
        "none g3 goes on answering until the next save (rolled back to g1's content; the directory differs)"
    ]


def test_an_edit_that_waits_to_be_asked_for_says_what_it_waits_for() -> None:
    assert told(forecast(OFF, OFF, ("main.py",), LIVE)) == [
        "fork a forked worker beside g3 (main.py; reload.mode is off: when asked for by sandbox reload)"
    ]


def test_what_is_live_is_told_apart_from_an_edit_that_waits() -> None:
    new = replace(OFF, serving=Serving(timeout=20.0))
    assert [each.tier for each in forecast(OFF, new, ("main.py",), LIVE)] == ["live", "fork"]


def test_a_new_model_is_told() -> None:
    assert told(forecast(None, WISH, (), ModelObserved())) == [
        "replace its environment, then a new replica (new model)"
    ]


def test_the_files_of_an_edit_are_named() -> None:
    [found] = forecast(WISH, WISH, ("b.py", "a.py"), LIVE)
    assert found.files == ("a.py", "b.py")


@pytest.mark.parametrize(
    ("new", "text"),
    [
        (GatewayDesired(), "none"),
        (GatewayDesired(port=9), "live: gateway.port 8080 → 9"),
        (GatewayDesired(workers=2, host="::1"), "live: gateway.host 127.0.0.1 → ::1, gateway.workers 1 → 2"),
        (GatewayDesired(rate_limit=(100, 60.0)), "live: gateway.rate_limit no limit → 100 in 60 s"),
        (GatewayDesired(api_keys=(ApiKey("ci", "ab" * 32),)), "live: gateway.api_keys"),
        (GatewayDesired(max_body=1 << 20, hosts=("a",)), "live: gateway.max_body 10M → 1M, gateway.hosts"),
    ],
)
def test_an_edit_of_the_gateway_is_live_and_says_what_changed(new: GatewayDesired, text: str) -> None:
    assert str(classify_gateway(GatewayDesired(), new)) == text
