"""An edit of sandbox.yaml touches what it changed, and nothing else; a wrong one changes nothing."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from tests.e2e.sandbox import Sandbox

Json = dict[str, Any]
MODEL = """
import os, time

def predict(wait: float = 0) -> str:
    time.sleep(wait)
    return os.environ.get("WORD", "none")
"""


@pytest.fixture(scope="module", autouse=True)
def running(shared: Sandbox) -> None:
    for name in ("one", "two", "three"):
        shared.model(name, MODEL)
    shared.spec({"one": None, "two": None})
    shared.up()


def identities(shared: Sandbox) -> dict[str, Json]:
    return {name: shared.identity(row) for name, row in shared.rows().items()}


def wait_for_spec(shared: Sandbox, since: int, model: str | None = "one") -> Json:
    return shared.event(model, "spec", since)


def test_replicas_come_and_go_beside_the_one_that_stays(shared: Sandbox) -> None:
    before = identities(shared)
    shared.spec({"one": {"replicas": 2}, "two": None})
    shared.until(lambda: shared.row("one")["replicas"] == {"ready": 2, "desired": 2})
    both = identities(shared)
    assert set(before["one"]["agent"]) <= set(both["one"]["agent"])
    assert both["two"] == before["two"]

    with shared.load("one", keep=4, fresh=1).running() as load:
        shared.spec({"one": None, "two": None})
        shared.until(lambda: len(shared.row("one")["pids"]["agent"]) == 1)

    assert load.failures() == []
    assert shared.until(lambda: identities(shared) == before)


def test_a_timeout_changes_at_once_and_the_worker_stays(shared: Sandbox) -> None:
    before = identities(shared)
    generation = shared.call("one").generation
    shared.spec({"one": {"timeout": "300ms"}, "two": None})
    shared.until(lambda: shared.call("one", {"wait": 0.6}).status == 504)

    assert shared.call("one", {"wait": 0.6}).code == "UPSTREAM_TIMEOUT"
    shared.spec({"one": None, "two": None})
    shared.until(lambda: shared.call("one", {"wait": 0.6}).status == 200)
    assert identities(shared) == before
    assert shared.call("one").generation == generation


def test_an_environment_variable_is_seen_by_a_new_replica_and_nobody_notices_the_change(shared: Sandbox) -> None:
    before = identities(shared)
    since = shared.mark()
    with shared.load("one", keep=4, fresh=1).running() as load:
        shared.spec({"one": {"environment": {"WORD": "said"}}, "two": None})
        event = shared.event("one", "reload", since, ok=True, tier="replace")
        assert shared.call("one").prediction == "said"

    assert load.failures() == []
    assert "environment" in event["message"]
    assert {each.body["data"]["prediction"] for each in load.samples} == {"none", "said"}
    assert identities(shared)["two"] == before["two"]


def test_a_model_is_added_and_one_that_is_taken_out_runs_on_until_orphans_are_removed(shared: Sandbox) -> None:
    before = identities(shared)
    shared.spec({"one": {"environment": {"WORD": "said"}}, "two": None, "three": None})
    shared.event("three", "ready")
    assert shared.call("three").prediction == "none"

    since = shared.mark()
    shared.spec({"one": {"environment": {"WORD": "said"}}, "two": None})
    shared.event("three", "spec", since)
    assert shared.call("three").status == 200
    done = shared.up()
    assert "three" in done.stdout + done.stderr + shared.cli("ps").stderr
    assert shared.call("three").status == 200

    shared.up("--remove-orphans")

    assert shared.call("three").code == "MODEL_NOT_FOUND"
    assert list(shared.rows()) == ["one", "two"]
    assert identities(shared) == before


def test_a_wrong_file_changes_nothing_is_shown_and_is_mended(shared: Sandbox) -> None:
    before = identities(shared)
    text = (shared.project / "sandbox.yaml").read_text()
    since = shared.mark()
    shared.save("sandbox.yaml", text.replace("path: two", "replica: 2\n    path: two"))
    event = shared.event(None, "spec", since, ok=False)
    assert "models.two.replica" in event["message"]
    assert "sandbox.yaml:" in event["message"]
    assert "replicas" in event["message"]
    assert "models.two.replica" in shared.cli("ps").stderr
    assert "models.two.replica" in shared.cli("up", "-d", code=2).stderr
    assert identities(shared) == before

    # A file that is not even YAML, then no file at all, then the one before.
    shared.save("sandbox.yaml", "models: [")
    shared.event(None, "spec", since, ok=False, reference="yaml-syntax")
    shared.save("sandbox.yaml", text)
    shared.until(lambda: "sandbox.yaml is wrong" not in shared.cli("ps").stderr)
    assert identities(shared) == before
    assert shared.call("two").status == 200


def test_an_override_that_appears_is_laid_over_the_file_and_one_that_goes_is_lifted(shared: Sandbox) -> None:
    before = identities(shared)
    since = shared.mark()
    shared.save("sandbox.override.yaml", "models: {two: {environment: {WORD: over}}}\n")
    shared.until(lambda: shared.call("two").prediction == "over")
    assert identities(shared)["one"] == before["one"]

    shared.save("sandbox.override.yaml", "models:\n  two:\n    environmen: {WORD: over}\n")
    event = shared.event(None, "spec", since, ok=False)
    assert "sandbox.override.yaml:3: models.two.environmen: unknown key" in event["message"]
    assert "WORD: over" not in shared.cli("-f", "sandbox.yaml", "config").stdout
    (shared.project / "sandbox.override.yaml").unlink()
    shared.until(lambda: shared.call("two").prediction == "none")


def test_a_secret_is_read_by_its_model_alone_and_a_changed_one_reaches_it(shared: Sandbox) -> None:
    shared.model("three", "def predict() -> str:\n    return open('/run/secrets/hub').read()\n")
    (shared.project / "hub.txt").write_text("first-confidence")
    confided = {"three": {"secrets": ["hub"]}}
    shared.spec({"one": None, "two": None, **confided}, secrets={"hub": {"file": "hub.txt"}})
    shared.until(lambda: "three" in shared.rows() and shared.call("three").prediction == "first-confidence")
    with shared.load("three", keep=2, fresh=1).running() as load:
        shared.save("hub.txt", "second-confidence")
        shared.until(lambda: shared.call("three").prediction == "second-confidence")
    assert load.failures() == []
    told = "".join(
        shared.cli(*words).stdout for words in (["config"], ["ps", "--format", "json"], ["logs"], ["events"])
    )
    assert "confidence" not in told
    shared.spec({"one": None, "two": None})
    shared.cli("up", "-d", "--remove-orphans")
    assert "confidence" not in shared.cli("config").stdout
    left = [path for path in shared.root.rglob("secrets/*") if path.is_file()]
    assert left == []


def test_plan_says_what_up_would_do_and_nothing_where_all_is_as_written(shared: Sandbox) -> None:
    assert shared.cli("plan", "--exit-code").returncode == 0


def test_up_ends_where_a_dependency_failed_and_the_waiting_model_comes_once_it_is_mended(sandbox: Sandbox) -> None:
    sandbox.model("broken", "import no_such_module\n")
    sandbox.model("waiting", "def predict() -> int:\n    return 1\n")
    sandbox.spec({"waiting": {"depends_on": ["broken"]}, "broken": None})
    refused = sandbox.cli("up", "-d", code=1)
    assert "waits for broken" in refused.stdout + refused.stderr
    sandbox.save("broken/main.py", "def predict() -> int:\n    return 2\n")
    sandbox.state_of("waiting", "running")
    assert sandbox.call("waiting").prediction == 1


def test_keys_come_and_go_at_once_and_are_shown_nowhere(shared: Sandbox) -> None:
    before, since = identities(shared), shared.mark()
    secret, call = "k-e2e-hidden-5f1d", ("POST", "/models/one/predict", {})
    one = {"name": "ci", "key": secret, "models": ["one"]}
    shared.spec({"one": None, "two": None}, gateway={"api_keys": [one]})
    shared.until(lambda: shared.request(*call).status == 401)

    bearer = {"Authorization": f"Bearer {secret}"}
    assert shared.request(*call, headers=bearer).status == 200
    assert shared.request("POST", "/models/two/predict", {}, headers=bearer).code == "FORBIDDEN"
    assert shared.cli("predict", "two", "wait=0").stdout.strip() == '"none"'
    assert secret not in shared.cli("config").stdout + shared.story()
    kept = [path for root in (shared.project / ".sandbox", shared.state) for path in root.rglob("*") if path.is_file()]
    assert [path for path in kept if secret.encode() in path.read_bytes()] == []

    shared.save("sandbox.yaml", "models: [")
    shared.event(None, "spec", since, ok=False)
    old = shared.keeper
    for process in (old["control"], *old["gateways"]):
        os.kill(process["pid"], signal.SIGKILL)
    shared.until(lambda: shared.keeper["control"] != old["control"] and shared.keeper["gateways"] != old["gateways"])
    shared.disconnect()
    assert shared.request(*call).status == 401
    assert shared.request(*call, headers=bearer).status == 200

    shared.spec({"one": None, "two": None})
    shared.until(lambda: shared.request(*call).status == 200)
    assert identities(shared) == before
