"""What `up` is told beside the files, and for how long."""

from __future__ import annotations

import pytest

from orchestrator.plan.overlay import Overlay
from orchestrator.plan.types import Desired, GatewayDesired, ModelDesired


def desired() -> Desired:
    models = {
        name: ModelDesired(name=name, path=f"/p/{name}", runtime="process", lock_hash="l", replica_hash="1:a")
        for name in ("one", "two")
    }
    return Desired("0" * 12, "p", "/p", GatewayDesired(), models)


def test_it_changes_what_it_names_and_nothing_else() -> None:
    assert Overlay().over(desired()) == desired()
    found = Overlay({"one": 3}).over(desired())
    assert [each.replicas for each in found.models.values()] == [3, 1]
    assert {each.reload.mode for each in Overlay(watched=False).over(desired()).models.values()} == {"off"}


def test_the_next_up_of_a_model_says_anew() -> None:
    first = Overlay({"one": 3, "two": 2}, watched=False)
    assert first.told(Overlay(), ()) == Overlay()
    assert first.told(Overlay(), ["one"]) == Overlay({"two": 2})
    assert first.told(Overlay({"one": 4}), ["one"]) == Overlay({"one": 4, "two": 2})


def test_it_outlives_its_process() -> None:
    told = Overlay({"one": 3}, watched=False)
    assert Overlay.of(told.as_json()) == told
    assert Overlay.of({"profiles": []}) == Overlay()


@pytest.mark.parametrize("scale", [None, [], {"one": "3"}, {"one": -1}, {"one": True}])
def test_what_is_malformed_was_not_told(scale: object) -> None:
    assert Overlay.of({"scale": scale}) == Overlay()
