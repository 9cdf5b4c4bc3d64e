"""What workers of other replicas imported is preloaded by this one, and used by no worker before it was tried."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from tests.guest.process.driver import Replica, eventually
from tests.guest.process.test_preload import HEAVY, THREADED, preloaded
from tests.guest.process.test_trial import FRAGILE, verdict

# Leaves a mark where it was imported.
MARKED = "import os, pathlib\npathlib.Path(os.environ['HOME'], 'imported').touch()\nPID = os.getpid()\n"
LATE = "import sys\nTHERE = sys.modules.get('heavy')\ndef predict() -> int:\n    return THERE.PID if THERE else 0\n"
# Goes on with load() once a zygote beside it has imported what is handed.
WAITS = """
import os, pathlib, time
def load():
    while not pathlib.Path(os.environ["HOME"], "imported").exists():
        time.sleep(0.001)
    {then}
def predict() -> int:
    return 1
"""
NOT_YET = "raise RuntimeError('not yet')"


def hand(replica: Replica, *names: str) -> None:
    replica.control.send({"type": "learned", "imports": list(names)})


def test_what_is_handed_is_preloaded_for_the_first_reload(
    make_replica: Callable[..., Replica], environment: Callable[..., str]
) -> None:
    """No worker of this replica imports it."""
    replica = make_replica(environment(heavy=HEAVY))
    hand(replica, "heavy", "nowhere", "json")
    assert replica.predict(replica.ready(1, LATE)["socket"]) == 0
    zygote = preloaded(replica, "heavy")
    ready = replica.ready(2, LATE)
    assert "fork" in ready["phases"]
    assert replica.predict(ready["socket"]) == zygote["pid"]


def test_what_is_handed_is_not_in_use_before_a_load_went_well_and_it_was_tried(
    make_replica: Callable[..., Replica], environment: Callable[..., str]
) -> None:
    """A zygote that is there long before the load is over is tried all the same."""
    replica = make_replica(environment(fragile=FRAGILE + MARKED))
    hand(replica, "fragile")
    replica.load(1, WAITS.format(then="time.sleep(0.3); import fragile; fragile.use('raise')"))
    eventually(lambda: list(Path(replica.sockets).parent.glob("imported")), "a zygote that imports")
    assert replica.zygote()["imports"] == []
    ready = replica.control.wait("ready", "failed", generation=1)
    replica.workers.add(ready["pid"])
    assert verdict(replica)["reason"] == "a trial fork failed in load: RuntimeError: not after a fork"


def test_what_is_handed_keeps_no_model_from_being_forked(
    make_replica: Callable[..., Replica], environment: Callable[..., str]
) -> None:
    """Another model with this environment may be spawned for it; this one does without."""
    replica = make_replica(environment(threaded=THREADED + MARKED, heavy=HEAVY))
    hand(replica, "threaded")
    main = WAITS.format(then="time.sleep(0.3)")
    replica.ready(1, "import heavy\n" + main)
    assert preloaded(replica, "heavy")["state"] == "ready"
    assert "fork" in replica.ready(2, "import heavy\n" + main)["phases"]


def test_where_no_load_goes_well_what_the_files_import_is_preloaded_without_what_is_handed(
    make_replica: Callable[..., Replica], environment: Callable[..., str]
) -> None:
    replica = make_replica(environment(heavy=HEAVY, marked=MARKED))
    hand(replica, "marked")
    replica.failed(1, "import heavy\n" + WAITS.format(then=NOT_YET))
    preloaded(replica, "heavy")


def test_a_name_that_is_a_file_of_the_directory_is_left_out(
    make_replica: Callable[..., Replica], environment: Callable[..., str]
) -> None:
    replica = make_replica(environment(heavy=HEAVY, helper=HEAVY))
    hand(replica, "helper", "heavy")
    replica.ready(1, LATE, files={"helper": "VALUE = 1\n"})
    preloaded(replica, "heavy")


def test_it_is_not_used_by_a_zygote_that_takes_the_place_of_a_dead_one(
    make_replica: Callable[..., Replica], environment: Callable[..., str]
) -> None:
    replica = make_replica(environment(heavy=HEAVY))
    hand(replica, "heavy")
    dead = eventually(lambda: replica.zygote()["state"] == "ready" and replica.zygote()["pid"], "a zygote")
    os.kill(dead, signal.SIGKILL)
    new = eventually(lambda: (it := replica.zygote())["state"] == "ready" and it["pid"] != dead and it, "another")
    assert new["imports"] == []
