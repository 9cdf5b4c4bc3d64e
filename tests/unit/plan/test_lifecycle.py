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


def test_an_unknown_move_is_refused() -> None:
    with pytest.raises(IllegalMove):
        move("stopped", "gone")  # type: ignore[arg-type]


@pytest.mark.parametrize("state", ["running", "degraded"])
def test_what_is_wanted_again_before_it_was_told_to_stop_answers_at_once(state: State) -> None:
    assert move("draining", state) == state


def test_every_state_is_reached_and_left() -> None:
    assert set(TABLE) == set(STATES)
    assert set().union(*TABLE.values()) == set(STATES)
    assert all(TABLE.values())


def test_the_diagram_draws_exactly_the_table() -> None:
    drawn = [tuple(line.split(" --> ")) for line in map(str.strip, diagram().splitlines()[1:])]
    assert drawn[0] == ("[*]", "pending")
    assert drawn[-1] == ("stopped", "[*]")
    assert set(drawn[1:-1]) == {(old, new) for old, news in TABLE.items() for new in news}
