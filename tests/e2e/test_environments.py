"""Each model has its own packages; requirements change beside what answers, and one that cannot be built harms nothing."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest

from tests.e2e.sandbox import Sandbox

Json = dict[str, Any]

pytestmark = pytest.mark.timeout(300)

OLD = "1.10.24"
# Building takes what the index and the engine take.
BUILD = 90.0
PYDANTIC = """
import pydantic

class Point(pydantic.BaseModel):
    x: int

def predict() -> str:
    return pydantic.VERSION if Point(x="3").x == 3 else "does not work"
"""
# Which version of a small package without dependencies there is.
IDNA = """
import importlib.metadata

def predict() -> list:
    return [each.version for each in importlib.metadata.distributions(name="idna")]
"""


@pytest.fixture(scope="module", autouse=True)
def running(shared: Sandbox) -> None:
    shared.model("old", PYDANTIC, requirements__txt=f"pydantic=={OLD}\n")
    shared.model("new", PYDANTIC, requirements__txt="pydantic>=2\n")
    shared.model("edited", IDNA)
    shared.spec({"old": None, "new": None, "edited": None})
    shared.up(deadline=2 * BUILD)


def test_an_old_and_a_new_version_of_a_library_of_the_host_run_side_by_side(shared: Sandbox) -> None:
    assert shared.call("old").prediction == OLD
    assert shared.call("new").prediction.startswith("2.")
    assert pydantic.VERSION.startswith("2.")


def test_new_requirements_are_built_while_the_old_environment_answers_and_then_swapped(shared: Sandbox) -> None:
    before = {name: shared.identity(row) for name, row in shared.rows().items()}
    assert shared.call("edited").prediction == []

    with shared.load("edited", keep=3, fresh=1).running() as load:
        event = shared.edit("edited/requirements.txt", "idna==3.10\n", deadline=BUILD)
        assert shared.call("edited").prediction == ["3.10"]

    assert load.failures() == []
    assert load.stale([(event["seen"], event["data"]["generation"])]) == []
    assert event["data"]["tier"] == "replace"
    assert "requirements" in event["message"]
    after = shared.until(lambda: replaced(shared, before["edited"]))
    assert {name: after[name] for name in ("old", "new")} == {name: before[name] for name in ("old", "new")}


def replaced(shared: Sandbox, before: Json) -> dict[str, Json] | None:
    """All identities, once nothing of `edited` is left of what it was."""
    found = {name: shared.identity(row) for name, row in shared.rows().items()}
    kind = "containers" if shared.runtime == "docker" else "agent"
    return None if set(found["edited"][kind]) & set(before[kind]) else found


def test_requirements_that_cannot_be_installed_leave_the_old_ones_serving_until_they_are_mended(
    shared: Sandbox,
) -> None:
    before = shared.call("old")
    since = shared.mark()
    with shared.load("old", keep=2, fresh=1).running() as load:
        shared.save("old/requirements.txt", "no-such-package-anywhere==9.9\n")
        event = shared.event("old", "degraded", since, deadline=BUILD)
        row = shared.row("old")

    assert {(each.status, each.generation) for each in load.samples} == {(200, before.generation)}
    assert row["state"] == "degraded"
    for text in (event["message"], row["reason"], shared.info("old")["reason"]):
        assert "no-such-package-anywhere" in text

    shared.edit("old/requirements.txt", f"pydantic=={OLD}\n", deadline=BUILD)

    row = shared.state_of("old", "running")
    assert row["reason"] is None
    assert shared.call("old").prediction == OLD
