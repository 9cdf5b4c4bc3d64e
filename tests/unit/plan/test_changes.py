"""Each edit gets the smallest tier that is safe, and says why."""

from dataclasses import replace

import pytest

from orchestrator.plan.changes import classify
from orchestrator.plan.types import Limits, ModelDesired, Mount, ReloadPolicy, Requirements, Serving

OLD = ModelDesired("hello", "/p/hello", "process", "lock", "1:replica")


def reborn(**wish):
    return replace(OLD, replica_hash="1:other", **wish)


@pytest.mark.parametrize(
    ("changed", "new", "text"),
    [
        ([], OLD, "none"),
        (["main.py"], OLD, "fork: main.py"),
        (["b.py", "a.py"], OLD, "fork: a.py, b.py"),
        ([f"{n}.py" for n in range(9)], OLD, "fork: 0.py, 1.py, 2.py, 6 more files"),
        (["config.yaml"], OLD, "fork: config.yaml"),
        (["data/weights"], OLD, "fork: data/weights"),
        (["main.py"], replace(OLD, reload=ReloadPolicy(mode="spawn")), "spawn: main.py, reload.mode"),
        (["main.py"], replace(OLD, reload=ReloadPolicy(mode="replace")), "replace: main.py, reload.mode"),
        (["main.py"], replace(OLD, reload=ReloadPolicy(mode="off")), "live: reload.mode"),
        ([], replace(OLD, serving=Serving(timeout=20.0)), "live: timeout 60 s → 20 s"),
        ([], replace(OLD, serving=Serving(queue_timeout=0.5)), "live: queue_timeout 30 s → 0.5 s"),
        ([], replace(OLD, serving=Serving(max_input=5120)), "live: max_input no limit → 5120"),
        ([], replace(OLD, serving=Serving(debug=True)), "live: debug off → on"),
        ([], replace(OLD, replicas=2), "live: replicas 1 → 2"),
        ([], replace(OLD, load_timeout=5.0), "live: load_timeout 300 s → 5 s"),
        (["main.py"], replace(OLD, replicas=2), "fork: main.py, replicas 1 → 2"),
        (
            ["requirements.txt"],
            reborn(lock_hash="other", requirements=Requirements("numpy==2")),
            "replace: requirements.txt",
        ),
        (["requirements.txt"], OLD, "fork: requirements.txt"),
        ([], reborn(python="3.13"), "replace: python default → 3.13"),
        ([], reborn(runtime="docker"), "replace: runtime process → docker"),
        ([], reborn(limits=Limits(memory=512 << 20)), "replace: memory no limit → 512M"),
        ([], reborn(limits=Limits(cpus=1.5, pids=64)), "replace: cpus no limit → 1.5, pids 512 → 64"),
        ([], reborn(environment={"A": "secret"}), "replace: environment"),
        ([], reborn(mounts=(Mount("/a", "/b"),)), "replace: volumes"),
        ([], reborn(data_writable=True), "replace: data ro → rw"),
        ([], reborn(network="bridge"), "replace: network none → bridge"),
        ([], reborn(), "replace: replica settings"),
        ([], reborn(lock_hash="other"), "replace: environment of its packages"),
        ([], reborn(network="bridge", replicas=3), "replace: network none → bridge, replicas 1 → 3"),
    ],
)
def test_an_edit_is_the_smallest_safe_tier_and_says_why(changed, new, text):
    assert str(classify(changed, OLD, new)) == text


def test_a_new_model_needs_replicas():
    assert str(classify(["main.py"], None, OLD)) == "replace: new model"


def test_without_a_safe_zygote_an_edit_spawns():
    assert classify(["main.py"], OLD, OLD, forkable=False).tier == "spawn"


def test_limits_that_change_beside_files_are_still_sent_to_running_workers():
    new = replace(OLD, serving=Serving(timeout=20.0))
    assert classify(["main.py"], OLD, new).live
    assert not classify(["main.py"], OLD, OLD).live


def test_secrets_of_the_environment_are_never_shown():
    assert "secret" not in str(classify([], OLD, reborn(environment={"A": "secret"})))
