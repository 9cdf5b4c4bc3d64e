"""Before a zygote comes into use, one fork of it loads the model and answers its example, beside what answers."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.guest.process.driver import Replica, eventually

HEAVY = "import os\nPID = os.getpid()\n"
# What a library may do that only works where it was imported.
FRAGILE = """
import os, time
PID = os.getpid()
def use(how):
    if os.getpid() != PID:
        if how == "hang":
            time.sleep(3600)
        elif how == "die":
            os.kill(os.getpid(), 11)
        elif how == "raise":
            raise RuntimeError("not after a fork")
"""
MAIN = """
import fragile
def load():
    fragile.use({load!r})
def predict(x: int = 0) -> int:
    fragile.use({predict!r})
    return x + {edit}
"""


def verdict(replica: Replica) -> dict[str, Any]:
    """The state of the zygote that has imported, or is not to be forked from."""
    return eventually(lambda: (it := replica.zygote())["state"] == "unsafe" and it, "an unsafe zygote")


@pytest.mark.parametrize(
    ("load", "predict", "reason"),
    [
        ("raise", "", "a trial fork failed in load: RuntimeError: not after a fork"),
        ("die", "", "a trial fork ended by signal 11 while loading"),
        ("", "raise", "a trial fork failed in warmup: RuntimeError: not after a fork"),
    ],
)
def test_a_model_that_does_not_bear_a_fork_is_spawned_and_says_why(
    make_replica: Callable[..., Replica], environment: Callable[..., str], load: str, predict: str, reason: str
) -> None:
    replica = make_replica(environment(fragile=FRAGILE))
    config = {"config": {"example": {"x": 1}}}
    replica.ready(1, MAIN.format(load=load, predict=predict, edit=1), **config)
    assert verdict(replica)["reason"] == reason
    ready = replica.ready(2, MAIN.format(load=load, predict=predict, edit=2), **config)
    assert "spawn" in ready["phases"]
    assert replica.predict(ready["socket"], x=1) == 3


def test_a_trial_that_hangs_ends_at_its_deadline_and_the_model_is_spawned(
    make_replica: Callable[..., Replica], environment: Callable[..., str]
) -> None:
    replica = make_replica(environment(fragile=FRAGILE), trial_seconds=0.5)
    replica.ready(1, MAIN.format(load="hang", predict="", edit=1))
    assert verdict(replica)["reason"].startswith("a trial fork did not load in ")
    assert "spawn" in replica.ready(2, MAIN.format(load="hang", predict="", edit=2))["phases"]


def test_code_that_bears_a_fork_again_is_forked_again(
    make_replica: Callable[..., Replica], environment: Callable[..., str]
) -> None:
    replica = make_replica(environment(fragile=FRAGILE))
    replica.ready(1, MAIN.format(load="raise", predict="", edit=1))
    verdict(replica)
    replica.ready(2, MAIN.format(load="", predict="", edit=2))
    zygote = eventually(lambda: (it := replica.zygote())["state"] == "ready" and it, "a zygote after another trial")
    assert zygote["imports"] == ["fragile"]
    assert "fork" in replica.ready(3, MAIN.format(load="", predict="", edit=3))["phases"]


def test_a_trial_leaves_nothing_in_the_log_and_nothing_behind(
    make_replica: Callable[..., Replica], environment: Callable[..., str]
) -> None:
    replica = make_replica(environment(heavy=HEAVY))
    main = "import heavy, os\ndef load():\n    print('loaded by', os.getpid())\ndef predict() -> int:\n    return heavy.PID\n"
    ready = replica.ready(1, main)
    zygote = eventually(lambda: (it := replica.zygote())["imports"] == ["heavy"] and it, "a zygote with heavy")
    assert [line["m"] for line in replica.log()] == [f"loaded by {ready['pid']}"]
    second = replica.ready(2, main)
    assert replica.predict(second["socket"]) == zygote["pid"] != os.getpid()


def test_a_bare_zygote_needs_no_trial(replica: Replica) -> None:
    replica.ready(1, "loads = 0\ndef load():\n    print('loaded')\ndef predict() -> int:\n    return 1\n")
    assert "fork" in replica.ready(2)["phases"]
    assert [line["m"] for line in replica.log()] == ["loaded"]
