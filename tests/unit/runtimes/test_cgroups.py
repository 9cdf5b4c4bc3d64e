"""Groups share the folder above them, with other threads and other sandboxes: nobody's removal costs anyone a group."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.plan.types import Limits
from orchestrator.runtimes import cgroups, walls


def test_a_group_can_be_made_while_the_last_other_one_is_removed(tmp_path: Path) -> None:
    plain = cgroups.Hierarchy(1, str(tmp_path), frozenset())  # without controllers a folder is all that is made

    def make_and_remove(number: int) -> list[bool]:
        made = []
        for turn in range(300):
            group = cgroups.group((plain,), "demo", f"{number}-{turn}")
            group.make(Limits())
            made.append(Path(group.folders[0]).is_dir())
            group.remove()
        return made

    with ThreadPoolExecutor(4) as threads:
        assert all(all(made) for made in threads.map(make_and_remove, range(4)))
    assert not (tmp_path / cgroups.ROOT_NAME).exists()


def test_two_threads_that_ask_about_the_machine_at_once_are_told_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two surveys at once took each other's trial group away, and one model ran without limits."""
    surveys: list[walls.Machine] = []
    never = threading.Event()

    def survey() -> walls.Machine:
        never.wait(0.1)  # long enough for the other thread to come
        surveys.append(walls.Machine(root=False, refused={}, said=(), hierarchies=()))
        return surveys[-1]

    monkeypatch.setattr(walls, "survey", survey)
    walls._surveyed.cache_clear()
    try:
        with ThreadPoolExecutor(2) as threads:
            first, second = threads.map(lambda _: walls.machine(), range(2))
    finally:
        walls._surveyed.cache_clear()
    assert first is second
    assert len(surveys) == 1
