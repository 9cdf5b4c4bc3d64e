"""`down` leaves nothing but what it says it keeps, and never touches data or volumes."""

from __future__ import annotations

from tests.e2e import remains
from tests.e2e.sandbox import Sandbox

ANSWER = "def predict() -> int:\n    return 1\n"


def test_down_removes_all_that_runs_and_the_search_for_it_is_able_to_find_it(sandbox: Sandbox) -> None:
    sandbox.model("one", ANSWER)
    sandbox.spec({"one": {"resources": {"memory": "512M"}}})
    sandbox.up()
    docker = sandbox.runtime == "docker"
    kinds = {line.split()[0] for line in remains.find(sandbox.root, sandbox.id, docker=docker)}
    assert {"process", "file"} <= kinds
    assert ("container" in kinds) == docker

    sandbox.down()

    assert sandbox.remains() == []
