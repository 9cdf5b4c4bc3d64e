"""What a zygote imports for its workers, and when it must not be forked from."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.guest.process.driver import Replica, eventually

HEAVY = (
    "import os\nPID = os.getpid()\nPINNED = os.environ.get('OPENBLAS_NUM_THREADS')\nSTEERED = os.environ.get('STEER')\n"
)
USER = """
import os, heavy
def predict() -> dict:
    return {"imported_by": heavy.PID, "pid": os.getpid(), "pinned": heavy.PINNED, "steered": heavy.STEERED}
"""
THREADED = "import threading, time\nthreading.Thread(target=time.sleep, args=(3600,), daemon=True).start()\n"


def preloaded(replica: Replica, *names: str) -> dict[str, Any]:
    """Wait for a zygote with exactly these imports."""
    return eventually(lambda: (state := replica.zygote())["imports"] == list(names) and state, f"a zygote with {names}")


def test_what_a_worker_imported_is_preloaded_for_the_next(
    make_replica: Callable[..., Replica], environment: Callable[..., str]
) -> None:
    replica = make_replica(environment(heavy=HEAVY))
    first = replica.predict(replica.ready(1, USER)["socket"])
    assert first["imported_by"] == first["pid"]
    zygote = preloaded(replica, "heavy")
    second = replica.predict(replica.ready(2, USER)["socket"])
    assert second["imported_by"] == zygote["pid"]
    assert second["pid"] != zygote["pid"]
    assert zygote["state"] == "ready"


def test_a_zygote_preloads_what_control_asks_for_pinned_and_steered(
    make_replica: Callable[..., Replica], environment: Callable[..., str]
) -> None:
    replica = make_replica(environment(heavy=HEAVY))
    order = {"type": "preload", "imports": ["heavy"], "environment": {"STEER": "left"}}
    replica.control.send(order)
    zygote = preloaded(replica, "heavy")
    seen = replica.predict(replica.ready(1, "import os\nos.environ['STEER'] = 'left'\n" + USER)["socket"])
    assert (seen["imported_by"], seen["pinned"], seen["steered"]) == (zygote["pid"], "1", "left")
    assert replica.control.ask(order, "zygote", imports=["heavy"])["pid"] == zygote["pid"]


TORCH = """
SEEDS = []
THREADS = []
set_num_threads = THREADS.append
get_num_threads = lambda: 0
class default_generator:
    manual_seed = staticmethod(SEEDS.append)
"""


def test_a_forked_worker_gets_seeds_and_threads_of_its_own(
    make_replica: Callable[..., Replica], environment: Callable[..., str]
) -> None:
    replica = make_replica(environment(torch=TORCH))
    replica.control.send({"type": "preload", "imports": ["torch"], "environment": {}})
    preloaded(replica, "torch")
    main = "import torch\ndef predict() -> list:\n    return [torch.SEEDS, torch.THREADS]\n"
    seen = [replica.predict(replica.ready(generation, main)["socket"]) for generation in (1, 2, 3)]
    assert len({tuple(seeds) for seeds, _ in seen}) == 3
    assert [threads for _, threads in seen] == [[len(os.sched_getaffinity(0))]] * 3


def test_the_old_zygote_ends_when_its_successor_is_in_place(
    make_replica: Callable[..., Replica], environment: Callable[..., str]
) -> None:
    replica = make_replica(environment(heavy=HEAVY))
    old = eventually(lambda: replica.zygote()["state"] == "ready" and replica.zygote()["pid"], "a zygote")
    replica.control.send({"type": "preload", "imports": ["heavy"], "environment": {}})
    preloaded(replica, "heavy")
    eventually(lambda: not Path(f"/proc/{old}").exists(), "the end of the old zygote")


def test_what_cannot_be_imported_is_skipped(
    make_replica: Callable[..., Replica], environment: Callable[..., str]
) -> None:
    broken = {"broken": "raise RuntimeError\n", "leaving": "import sys\nsys.exit(3)\n"}
    replica = make_replica(environment(heavy=HEAVY, **broken))
    names = ["broken", "leaving", "nowhere", "json", "main", "sandbox", "heavy"]
    replica.control.send({"type": "preload", "imports": names, "environment": {}})
    assert preloaded(replica, "heavy")["state"] == "ready"


def test_a_library_that_kills_its_importer_leaves_the_old_zygote_in_use(
    make_replica: Callable[..., Replica], environment: Callable[..., str]
) -> None:
    replica = make_replica(environment(deadly="import os\nos._exit(5)\n"))
    eventually(lambda: replica.zygote()["state"] == "ready", "a zygote")
    replica.control.send({"type": "preload", "imports": ["deadly"], "environment": {}})
    event = eventually(lambda: _event(replica, lambda seen: "deadly" in seen["reason"]), "the reason")
    assert (event["state"], event["imports"]) == ("ready", [])
    assert event["reason"] == replica.zygote()["reason"] == "preloading deadly failed: exit 5"
    assert "fork" in replica.ready(1)["phases"]


def test_a_library_that_starts_threads_makes_workers_be_spawned(
    make_replica: Callable[..., Replica], environment: Callable[..., str]
) -> None:
    replica = make_replica(environment(threaded=THREADED))
    replica.control.send({"type": "preload", "imports": ["threaded"], "environment": {}})
    event = eventually(lambda: _event(replica, lambda seen: seen["state"] == "unsafe"), "an unsafe zygote")
    assert event["reason"] == "2 threads run after importing"
    ready = replica.ready(1)
    assert "spawn" in ready["phases"]
    assert replica.predict(ready["socket"], x=1) == 2
    assert replica.zygote()["state"] == "unsafe"


def test_a_model_with_many_saves_forks_each_of_them(replica: Replica) -> None:
    """Faster than children can wait for them."""
    for generation in range(1, 9):
        assert "fork" in replica.ready(generation)["phases"]
        replica.control.ask({"type": "kill", "generation": generation, "attempt": 1}, "exited", generation=generation)


def test_waiting_children_end_with_their_agent(replica: Replica) -> None:
    replica.ready(1)
    waiting = eventually(lambda: len(found := _sessions(replica)) >= 4 and found, "zygote, worker and two that wait")
    replica.agent.kill()
    replica.agent.wait()
    served = set(replica.workers)
    eventually(lambda: not [pid for pid in waiting - served if Path(f"/proc/{pid}").exists()], "their end")


def _sessions(replica: Replica) -> set[int]:
    """Direct children of the agent."""
    pid = replica.agent.pid
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def _event(replica: Replica, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any] | None:
    """A `zygote` event that was seen, after a turn of the agent."""
    replica.zygote()
    return next((seen for seen in replica.control.seen if seen["type"] == "zygote" and wanted(seen)), None)


def test_a_zygote_has_one_thread(replica: Replica) -> None:
    pid = eventually(lambda: replica.zygote()["state"] == "ready" and replica.zygote()["pid"], "a zygote")
    assert len(os.listdir(f"/proc/{pid}/task")) == 1


STEERED = """
import os
os.environ["STEER"] = "{value}"
import heavy
def predict() -> dict:
    return {{"imported_by": heavy.PID, "pid": os.getpid(), "steered": heavy.STEERED}}
"""


def test_a_literal_variable_before_an_import_is_set_for_it_in_the_zygote(
    make_replica: Callable[..., Replica], environment: Callable[..., str]
) -> None:
    replica = make_replica(environment(heavy=HEAVY))
    replica.ready(1, STEERED.format(value="left"))
    zygote = preloaded(replica, "heavy")
    seen = replica.predict(replica.ready(2, STEERED.format(value="left"))["socket"])
    assert (seen["imported_by"], seen["steered"]) == (zygote["pid"], "left")


def test_an_edited_variable_that_steers_an_import_is_never_ignored(
    make_replica: Callable[..., Replica], environment: Callable[..., str]
) -> None:
    """The fork finds that `heavy` was imported under another value: this generation is spawned, the next is not."""
    replica = make_replica(environment(heavy=HEAVY))
    replica.ready(1, STEERED.format(value="left"))
    old = preloaded(replica, "heavy")["pid"]
    ready = replica.ready(2, STEERED.format(value="right"))
    assert replica.predict(ready["socket"])["steered"] == "right"
    assert "spawn" in ready["phases"]
    new = eventually(lambda: (pid := replica.zygote()["pid"]) != old and pid, "a zygote with the new variable")
    seen = replica.predict(replica.ready(3, STEERED.format(value="right"))["socket"])
    assert (seen["imported_by"], seen["steered"]) == (new, "right")


COMPUTED = """
import os
os.environ["STEER"] = "".join(["r", "ight"])
try:
    import heavy
except BaseException:
    heavy = None
def predict() -> list:
    return [heavy.STEERED, os.getpid()]
"""


def test_a_computed_variable_makes_each_worker_import_for_itself(
    make_replica: Callable[..., Replica], environment: Callable[..., str]
) -> None:
    """No scan can know it, and the model itself catches everything: the answer is right all the same."""
    replica = make_replica(environment(heavy=HEAVY, other=HEAVY))
    replica.ready(1, "import other\n" + COMPUTED)
    preloaded(replica, "other", "heavy")
    first = replica.ready(2, "import other\n" + COMPUTED)
    assert replica.predict(first["socket"])[0] == "right"
    assert "spawn" in first["phases"]
    preloaded(replica, "other")
    assert "heavy was preloaded under another value of the environment variable STEER" in replica.zygote()["reason"]
    second = replica.ready(3, "import other\n" + COMPUTED)
    assert replica.predict(second["socket"])[0] == "right"
    assert "fork" in second["phases"]


def test_what_a_library_sets_while_it_is_imported_is_there_in_a_fork_too(
    make_replica: Callable[..., Replica], environment: Callable[..., str]
) -> None:
    setting = "import os\nos.environ.setdefault('OWN', 'set by the library')\n"
    main = "import heavy\nimport os\ndef predict() -> list:\n    return [os.environ.get('OWN'), heavy.PID]\n"
    replica = make_replica(environment(heavy="import setting\n" + HEAVY, setting=setting))
    assert replica.predict(replica.ready(1, main)["socket"])[0] == "set by the library"
    zygote = preloaded(replica, "heavy", "setting")
    assert replica.predict(replica.ready(2, main)["socket"]) == ["set by the library", zygote["pid"]]


def test_an_import_of_a_generation_that_cannot_load_is_preloaded_too(
    make_replica: Callable[..., Replica], environment: Callable[..., str]
) -> None:
    replica = make_replica(environment(heavy=HEAVY))
    replica.ready(1)
    replica.failed(2, "import heavy\nraise RuntimeError('not yet')\n")
    preloaded(replica, "heavy")
