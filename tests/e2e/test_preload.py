"""What is made before an edit is never old under a new generation: preload.py, files that it read, steered imports."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.e2e.sandbox import Sandbox

Json = dict[str, Any]

pytestmark = pytest.mark.timeout(240)

PRELOAD = """
import ctypes
import os
import helper

def native(path):
    libc = ctypes.CDLL(None)
    fd = libc.open(os.fsencode(str(path)), 0)
    text = ctypes.create_string_buffer(100)
    libc.read(fd, text, 100)
    libc.close(fd)
    return text.value.decode()

def preload(ctx):
    return {"weights": native(ctx.data_dir / "weights"), "helper": helper.{what}, "made": os.urandom(8).hex()}
"""
HELPER = "class Scale:\n    factor = {factor}\n\nVALUE = {factor}\n"
MAIN = "import sandbox\n\ndef predict() -> dict:\n    return dict(sandbox.preloaded(), edit={edit})\n"
STEERED = 'import os\nos.environ["IDNA_MODE"] = "{mode}"\nimport idna\n\ndef predict() -> str:\n    return os.environ["IDNA_MODE"]\n'

LAZY = """
import os, sys
THERE = "idna" in sys.modules
def load():
    if "STAGE" not in os.environ:
        import idna
def predict() -> dict:
    return {{"there": THERE, "stage": os.environ.get("STAGE"), "edit": {edit}}}
"""


def preload(what: str) -> str:
    return PRELOAD.replace("{what}", what)


@pytest.fixture(scope="module", autouse=True)
def running(shared: Sandbox) -> None:
    shared.model("kept", MAIN.format(edit=1), preload__py=preload("VALUE"), helper__py=HELPER.format(factor=1))
    (shared.data("kept") / "weights").write_text("old")
    shared.model("steered", STEERED.format(mode="left"), requirements__txt="idna==3.10\n")
    shared.model("lazy", LAZY.format(edit=1), requirements__txt="idna==3.10\n")
    shared.spec({"kept": None, "steered": None, "lazy": None})
    shared.up(deadline=180.0)


def test_what_was_preloaded_is_kept_and_made_anew_as_the_edit_asks(shared: Sandbox) -> None:
    first = shared.call("kept").prediction
    assert (first["weights"], first["helper"], first["edit"]) == ("old", 1, 1)

    with shared.load("kept", keep=2, fresh=1).running() as load:
        event = shared.edit("kept/main.py", MAIN.format(edit=2))
        kept = shared.call("kept").prediction
        assert (kept["made"], kept["edit"]) == (first["made"], 2)
        assert event["data"]["tier"] == "fork"

        event = shared.edit("kept/helper.py", HELPER.format(factor=2))
        anew = shared.call("kept").prediction
        assert (anew["helper"], anew["edit"]) == (2, 2)
        assert anew["made"] != kept["made"]
        assert "preload" in event["data"]["phases"]

        event = shared.edit("kept/data/weights", "new", rename=False)
        read = shared.call("kept").prediction
        assert (read["weights"], read["helper"]) == ("new", 2)
    assert load.failures() == []


def test_an_object_that_would_run_old_code_is_refused_and_the_last_good_generation_answers(shared: Sandbox) -> None:
    before = shared.call("kept")
    shared.save("kept/preload.py", preload("Scale()"))
    row = shared.state_of("kept", "degraded")
    assert "PreloadRefused preload.py" in row["reason"]
    assert "an object of the class Scale of helper.py" in row["reason"]
    assert shared.call("kept").prediction == before.prediction
    shared.edit("kept/preload.py", preload("Scale().factor"))
    assert shared.call("kept").prediction["helper"] == shared.call("kept").prediction["helper"]
    assert shared.row("kept")["state"] == "running"


def test_a_variable_that_steers_an_import_is_never_ignored(shared: Sandbox) -> None:
    modes = itertools.cycle(["right", "left"])

    def flip() -> bool:
        """Whether this edit found idna preloaded under the other variable. What answers is right in any case."""
        mode = next(modes)
        event = shared.edit("steered/main.py", STEERED.format(mode=mode))
        assert shared.call("steered").prediction == mode
        return event["data"]["tier"] == "spawn" and "environment variable IDNA_MODE" in event["message"]

    shared.until(flip, deadline=60.0)


def test_a_new_replica_preloads_what_the_workers_of_the_one_before_imported(shared: Sandbox) -> None:
    """Nothing in the new one imports it: it is known from before, and in use once it was tried beside what answers."""
    assert shared.call("lazy").prediction["stage"] is None
    mark = shared.mark()
    shared.spec({"kept": None, "steered": None, "lazy": {"environment": {"STAGE": "second"}}})
    shared.event("lazy", "reload", since=mark, tier="replace", ok=True)
    assert shared.call("lazy").prediction == {"there": False, "stage": "second", "edit": 1}
    edits = itertools.count(2)

    def there() -> bool:
        edit = next(edits)
        event = shared.edit("lazy/main.py", LAZY.format(edit=edit))
        assert event["data"]["tier"] == "fork"
        prediction = shared.call("lazy").prediction
        assert prediction["edit"] == edit
        return bool(prediction["there"])

    shared.until(there, deadline=30.0)
