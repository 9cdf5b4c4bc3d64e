"""What preload.py makes is kept across edits that do not touch it, and never beyond one that does."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.guest.process.driver import Replica, eventually

MAIN = """
import os, sandbox
EDIT = {edit}
class Model(sandbox.Model):
    def predict(self) -> dict:
        return dict(self.preloaded, pid=os.getpid(), edit=EDIT)
"""
PRELOAD = """
import os
def preload(ctx):
    return {"by": os.getpid(), "name": ctx.name, "k": ctx.config.get("k"), "value": 1}
"""


def answer(replica: Replica, generation: int, edit: int = 0, preload: str = PRELOAD, **fields: Any) -> dict[str, Any]:
    """What this generation predicts, and whether it was forked."""
    files = {"preload": preload, **fields.pop("files", {})}
    ready = replica.ready(generation, fields.pop("main", MAIN.format(edit=edit)), files=files, **fields)
    return {**replica.predict(ready["socket"]), "forked": "fork" in ready["phases"], "phases": ready["phases"]}


def test_an_edit_of_main_keeps_what_was_preloaded(replica: Replica) -> None:
    first, second = answer(replica, 1, edit=1), answer(replica, 2, edit=2)
    assert first["by"] == second["by"] not in (first["pid"], second["pid"])
    assert (second["edit"], second["forked"], second["name"]) == (2, True, "hello")
    assert "preload" in first["phases"]
    assert "preload" not in second["phases"]
    assert replica.zygote()["preload"] == {"state": "ready", "pid": first["by"], "reason": ""}


def test_children_that_waited_before_it_was_made_are_not_used(replica: Replica) -> None:
    """They have nothing of it: such a worker would run preload.py once more, by itself."""
    slow = PRELOAD + "import time\ntime.sleep(0.5)\n"  # time enough for the clean zygote to have two that wait
    first = answer(replica, 1, preload=slow)
    assert first["by"] != first["pid"]
    assert first["by"] == replica.zygote()["preload"]["pid"]
    anew = answer(replica, 2, preload=slow + "# edited\n")
    assert anew["by"] not in (first["by"], anew["pid"])


def test_functions_ask_for_it(replica: Replica) -> None:
    main = "import sandbox\ndef predict() -> dict:\n    return sandbox.preloaded()\n"
    assert answer(replica, 1, main=main)["value"] == 1


@pytest.mark.parametrize("mode", ["fork", "spawn"])
@pytest.mark.parametrize("edited", ["preload", "helper", "opened", "config", "data", "other file", "new module"])
def test_an_edit_of_what_it_was_made_from_makes_it_anew(
    make_replica: Callable[..., Replica], python: str, tmp_path: Path, edited: str, mode: str
) -> None:
    """The value says what every ingredient was; the new generation must never answer with the old one."""
    replica = make_replica(python)
    data = tmp_path / "data"
    data.mkdir()
    (data / "weights").write_text("old")
    replica.restart(data=str(data))
    preload = (
        "import ctypes, os, helper\n"
        "def native(path):\n"
        "    libc = ctypes.CDLL(None)\n"
        "    fd = libc.open(os.fsencode(str(path)), 0)\n"
        "    text = ctypes.create_string_buffer(100)\n"
        "    libc.read(fd, text, 100); libc.close(fd)\n"
        "    return text.value.decode()\n"
        "try:\n    import new\n    NEW = 'new'\nexcept ImportError:\n    NEW = 'old'\n"
        "VALUE = '{word}'\n"
        "def preload(ctx):\n"
        "    return {{'by': os.getpid(), 'preload': VALUE, 'helper': helper.VALUE, 'config': ctx.config['k'],\n"
        "             'opened': open(ctx.model_dir / 'opened.py').read(), 'data': native(ctx.data_dir / 'weights'),\n"
        "             'other file': native(ctx.model_dir / 'words.txt'), 'new module': NEW}}\n"
    )
    main = "import helper\n" + MAIN

    def load(generation: int, words: dict[str, str]) -> dict[str, Any]:
        files = {"helper": f"VALUE = '{words['helper']}'\n", "opened": words["opened"]}
        if words["new module"] == "new":
            files["new"] = ""
        texts = {"words.txt": words["other file"]}
        text = preload.format(word=words["preload"])
        fields = {"files": files, "texts": texts, "mode": mode, "config": {"k": words["config"]}, "check": []}
        return answer(replica, generation, generation, text, main=main.format(edit=generation), **fields)

    names = ["preload", "helper", "opened", "config", "data", "other file", "new module"]
    words = dict.fromkeys(names, "old")
    first = load(1, words)
    assert {name: first[name] for name in names} == words
    kept = load(2, words)
    assert (kept["by"] == first["by"]) == (mode == "fork")
    words[edited] = "new"
    (data / "weights").write_text(words["data"])
    seen = load(3, words)
    assert {name: seen[name] for name in names} == words
    assert seen["forked"] == (mode == "fork")
    assert seen["by"] != kept["by"]
    if mode == "fork":
        assert replica.zygote()["preload"]["pid"] == seen["by"]


def test_a_preload_py_that_goes_takes_everything_with_it(replica: Replica) -> None:
    main = "import sandbox, sys\ndef predict() -> list:\n    return [sandbox.preloaded(), 'fractions' in sys.modules]\n"
    text = "import fractions\ndef preload(ctx):\n    return 3\n"
    ready = replica.ready(1, main, files={"preload": text})
    assert replica.predict(ready["socket"]) == [3, True]
    second = eventually(lambda: replica.zygote()["preload"]["pid"], "the second zygote")
    assert replica.predict(replica.ready(2, main)["socket"]) == [None, False]
    assert replica.zygote()["preload"]["state"] == "absent"
    eventually(lambda: not Path(f"/proc/{second}").exists(), "its end")


REFUSED = {
    "an instance": ("class Net:\n    pass\ndef preload(ctx):\n    return {'a': [Net()]}\n", "class Net of preload.py"),
    "a class": ("import helper\ndef preload(ctx):\n    return (helper.Thing,)\n", "the class Thing of helper.py"),
    "a function": ("import helper\ndef preload(ctx):\n    return {helper.work}\n", "the function work of helper.py"),
    "a lambda": (
        "import functools\ndef preload(ctx):\n    return functools.partial(lambda x: x, 1)\n",
        "of preload.py",
    ),
    "a method": ("import helper\ndef preload(ctx):\n    return helper.Thing().go\n", "of helper.py"),
    "a module": ("import helper\ndef preload(ctx):\n    return [helper]\n", "the module helper"),
    "a generator": ("import helper\ndef preload(ctx):\n    return helper.items()\n", "the function items of helper.py"),
    "a subclass": ("import helper\ndef preload(ctx):\n    return helper.Other(a=1)\n", "the class Other of helper.py"),
    "a closure": (
        "import functools, helper\ndef preload(ctx):\n    return functools.lru_cache(helper.work)\n",
        "the function work of helper.py",
    ),
}
HELPER = (
    "import collections\nclass Thing:\n    def go(self):\n        return 1\n"
    "def work():\n    return 1\ndef items():\n    yield 1\n"
    "class Other(collections.Counter):\n    pass\n"
)


@pytest.mark.parametrize("mode", ["fork", "spawn"])
def test_what_would_run_old_code_is_refused(replica: Replica, mode: str) -> None:
    for generation, (text, named) in enumerate(REFUSED.values(), 1):
        error = replica.failed(generation, files={"preload": text, "helper": HELPER}, mode=mode)
        assert (error["phase"], error["type"], error["file"]) == ("preload", "PreloadRefused", "preload.py")
        assert named in error["message"], error["message"]
        assert "it would run old code after an edit" in error["message"]


def test_data_and_objects_of_libraries_are_taken(replica: Replica) -> None:
    """Also where a library puts what is no module among the modules, with any attribute that it is asked for."""
    text = (
        "import sys\nclass Anything(type(sys)):\n    def __getattr__(self, name):\n        return Anything('x')\n"
        "sys.modules['made.up'] = Anything('made.up')\n"
        "import collections, datetime, fractions, functools, operator, re, types, helper\n"
        "Point = collections.namedtuple('Point', 'x y')\n"
        "def preload(ctx):\n"
        "    graph = [1, 'a', {2: b'b'}]; graph.append(graph)\n"
        "    return {'by': 1, 'value': [len(graph), re.compile('a').pattern]}\n"
    )
    assert answer(replica, 1, preload=text, files={"helper": HELPER})["value"] == [4, "a"]


@pytest.mark.parametrize("mode", ["fork", "spawn"])
def test_a_failing_preload_is_told_with_its_line_and_the_last_good_code_serves(replica: Replica, mode: str) -> None:
    good = replica.ready(1, MAIN.format(edit=1), files={"preload": PRELOAD})
    replica.activate(1)
    broken = "def preload(ctx):\n    return 1 / 0\n"
    error = replica.failed(2, MAIN.format(edit=2), files={"preload": broken}, mode=mode)
    assert (error["phase"], error["type"], error["file"], error["line"]) == (
        "preload",
        "ZeroDivisionError",
        "preload.py",
        2,
    )
    assert "return 1 / 0" in error["traceback"]
    for generation, text, said in (
        (3, "x = 1\n", "preload.py has no function preload(ctx)"),
        (4, "async def preload(ctx):\n    pass\n", "preload() must be a plain function"),
        (5, "import os\ndef preload(ctx):\n    os._exit(3)\n", "exited with status 3 during preload.py"),
    ):
        error = replica.failed(generation, files={"preload": text}, mode=mode)
        assert said in error["message"]
        assert error["file"] == "preload.py"
    assert replica.predict(good["socket"])["edit"] == 1
    assert answer(replica, 6, 6)["edit"] == 6


@pytest.mark.parametrize("mode", ["fork", "spawn"])
def test_a_preload_that_takes_too_long_is_ended_where_it_hangs(replica: Replica, mode: str) -> None:
    text = "import time\ndef preload(ctx):\n    time.sleep(3600)\n"
    error = replica.failed(1, files={"preload": text}, mode=mode, load_timeout=1.0)
    assert (error["phase"], error["type"], error["file"], error["line"]) == ("preload", "TimeoutError", "preload.py", 3)
    assert "did not finish in 1 s" in error["message"]


def test_threads_that_preload_leaves_are_refused_and_the_message_says_what_to_do(replica: Replica) -> None:
    text = (
        "import threading, time\n"
        "def preload(ctx):\n    threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()\n    return {}\n"
    )
    error = replica.failed(1, files={"preload": text})
    assert error["type"] == "PreloadRefused"
    assert "2 threads run after preload()" in error["message"]
    assert "reload.mode: spawn" in error["message"]
    replica.ready(2, files={"preload": text}, mode="spawn")


def test_a_load_that_is_killed_takes_its_preload_along(replica: Replica) -> None:
    replica.ready(1)
    replica.load(2, files={"preload": "import time\ndef preload(ctx):\n    time.sleep(3600)\n"}, load_timeout=600.0)
    pid = eventually(lambda: replica.zygote()["preload"]["pid"], "preload.py at work")
    began = time.monotonic()
    replica.control.ask({"type": "kill", "generation": 2, "attempt": 1}, "exited", generation=2)
    assert time.monotonic() - began < 60
    eventually(lambda: not Path(f"/proc/{pid}").exists(), "its end")
    assert answer(replica, 3, 3)["edit"] == 3


def test_a_dead_second_zygote_is_made_again(replica: Replica) -> None:
    first = answer(replica, 1, 1)
    os.kill(first["by"], 9)
    eventually(lambda: replica.zygote()["preload"]["state"] == "absent", "the news of its death")
    second = answer(replica, 2, 2)
    assert second["by"] not in (first["by"], second["pid"])
    assert second["forked"]


def test_what_preload_sets_in_the_environment_main_sees_in_either_mode(replica: Replica) -> None:
    text = "import os\nos.environ['MADE'] = 'by preload'\ndef preload(ctx):\n    return {}\n"
    main = "import os\nSEEN = os.environ.get('MADE')\ndef predict() -> list:\n    return [SEEN, os.environ.get('OMP_NUM_THREADS')]\n"
    for generation, mode in ((1, "fork"), (2, "fork"), (3, "spawn")):
        ready = replica.ready(generation, main, files={"preload": text}, mode=mode)
        assert replica.predict(ready["socket"]) == ["by preload", None]
