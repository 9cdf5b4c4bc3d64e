"""What is kept of the gateway's policy: digests, and one key that is our own."""

from __future__ import annotations

import hashlib
from pathlib import Path

from orchestrator.commands.calls import own_key
from orchestrator.control.told import Told
from orchestrator.folders import Folders
from orchestrator.plan.types import ApiKey, GatewayDesired

KEYED = GatewayDesired(api_keys=(ApiKey("ci", "ab" * 32, ("hello",), ("observe",), (5, 60.0)),))


def place(tmp_path: Path, monkeypatch) -> Folders:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    found = Folders(str(tmp_path))
    Path(found.state).mkdir(parents=True)
    return found


def test_our_own_commands_have_a_key_that_the_gateways_know_and_keep_it(tmp_path, monkeypatch) -> None:
    where = place(tmp_path, monkeypatch)
    told = Told(where.state)
    theirs, ours = told.tell(KEYED)["keys"]
    told.keep()
    assert theirs == {
        "name": "ci",
        "digest": "ab" * 32,
        "models": ["hello"],
        "allow": ["observe"],
        "rate_limit": [5, 60.0],
    }
    key = own_key(where)
    assert key is not None
    assert (ours["digest"], ours["allow"]) == (hashlib.sha256(key.encode()).hexdigest(), ["infer"])
    assert Path(where.state, "policy.json").stat().st_mode & 0o777 == 0o600

    again = Told(where.state)
    assert again.policy is not None
    assert again.policy["keys"] == [theirs, ours]
    assert again.tell(KEYED)["keys"] == [theirs, ours]


def test_without_keys_there_is_none_of_our_own(tmp_path, monkeypatch) -> None:
    where = place(tmp_path, monkeypatch)
    told = Told(where.state)
    told.tell(KEYED)
    told.keep()
    assert told.tell(GatewayDesired())["keys"] == []
    told.keep()
    assert own_key(where) is None
