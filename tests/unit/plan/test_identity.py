"""A replica's identity says what it was born with, and each part can be read out of it."""

from __future__ import annotations

import pytest

from orchestrator.plan.identity import born_with, mounts_of, specification_of

DATA = {"/p/data": "1:2"}


def test_without_mounts_it_is_the_specification() -> None:
    assert born_with("1:a", {}) == "1:a"


def test_another_folder_at_the_same_path_is_another_identity() -> None:
    assert born_with("1:a", DATA) != born_with("1:a", {"/p/data": "1:3"})
    assert born_with("1:a", DATA) == born_with("1:a", dict(DATA))


@pytest.mark.parametrize("mounts", [{}, DATA])
@pytest.mark.parametrize("generation", [None, 18])
def test_its_parts_can_be_told_apart(mounts: dict[str, str], generation: int | None) -> None:
    found = born_with("1:a", mounts, generation)
    assert specification_of(found) == "1:a"
    assert mounts_of(found) == mounts_of(born_with("1:b", mounts))
    assert bool(mounts_of(found)) == bool(mounts)
    assert found.endswith("+g18") == (generation == 18)
