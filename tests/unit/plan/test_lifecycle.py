"""The table of states holds for whatever the status of a model is derived to be."""

from __future__ import annotations

import pytest

from orchestrator.plan.lifecycle import STATES, TABLE, IllegalMove, State, diagram, move


@pytest.mark.parametrize("state", STATES)
def test_a_model_without_replicas_can_be_stopped_in_every_state(state: State) -> None:
    assert move(state, "stopped") == "stopped"


@pytest.mark.parametrize("state", STATES)
def test_staying_is_legal(state: State) -> None:
    assert move(state, state) == state


def test_what_was_let_go_of_does_not_answer_again_before_it_was_loaded() -> None:
    for state in ("running", "degraded"):
        with pytest.raises(IllegalMove):
            move("draining", state)


def test_every_state_is_reached_and_left() -> None:
    assert set(TABLE) == set(STATES)
    assert set().union(*TABLE.values()) == set(STATES)
    assert all(TABLE.values())


def test_the_diagram_draws_exactly_the_table() -> None:
    drawn = [tuple(line.split(" --> ")) for line in map(str.strip, diagram().splitlines()[1:])]
    assert drawn[0] == ("[*]", "pending")
    assert drawn[-1] == ("stopped", "[*]")
    assert set(drawn[1:-1]) == {(old, new) for old, news in TABLE.items() for new in news}
