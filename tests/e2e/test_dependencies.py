"""An environment that takes long is built once, whoever asks, beside what answers; saves meanwhile are not held up."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.sandbox import Sandbox

pytestmark = pytest.mark.timeout(300)

BUILD = 120.0
# A package that needs nothing to be built, takes its time, and is another one whenever it is.
PROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
BACKEND = """# {nonce}: no build of an earlier run is in the engine's cache
import base64, hashlib, os, time, uuid, zipfile

NAME = "{name}-1.0"

def build_wheel(directory, config_settings=None, metadata_directory=None):
    time.sleep({seconds})
    files = {{
        "{name}.py": f"BUILT = {{str(uuid.uuid4())!r}}\\n",
        f"{{NAME}}.dist-info/METADATA": "Metadata-Version: 2.1\\nName: {name}\\nVersion: 1.0\\n",
        f"{{NAME}}.dist-info/WHEEL": "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }}
    record = "".join(
        f"{{path}},sha256={{base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip('=')}},{{len(text)}}\\n"
        for path, text in files.items()
    )
    wheel = f"{{NAME}}-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(directory, wheel), "w") as archive:
        for path, text in {{**files, f"{{NAME}}.dist-info/RECORD": record}}.items():
            archive.writestr(path, text)
    return wheel
"""
USER = "import {name}\ndef predict() -> str:\n    return {name}.BUILT\n"


@pytest.fixture
def package(tmp_path: Path) -> Callable[..., Path]:
    def make(name: str, seconds: float) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "pyproject.toml").write_text(PROJECT)
        (folder / "backend.py").write_text(BACKEND.format(name=name, seconds=seconds, nonce=uuid.uuid4()))
        return folder

    return make


def test_what_many_models_of_two_sandboxes_ask_for_at_once_is_built_once(
    make: Callable[[], Sandbox], package: Callable[..., Path]
) -> None:
    found = package("asked_by_many", 2.0)
    both = [make(), make()]
    for each in both:
        for number in range(4):
            each.model(f"m{number}", USER.format(name=found.name), requirements__txt=f"{found}\n")
        each.spec({f"m{number}": None for number in range(4)}, allow_outside=[str(found)])
    starting = [threading.Thread(target=each.up, kwargs={"deadline": BUILD}) for each in both]
    for thread in starting:
        thread.start()
    for thread in starting:
        thread.join()
    assert len({each.call(f"m{number}").prediction for each in both for number in range(4)}) == 1


def test_saves_during_a_build_are_live_at_once_where_they_work_and_all_are_once_it_is_done(
    sandbox: Sandbox, package: Callable[..., Path]
) -> None:
    found = package("takes_long", 4.0)
    sandbox.model("one", "def predict() -> int:\n    return 1\n")
    sandbox.spec({"one": None}, allow_outside=[str(found)])
    sandbox.up(deadline=BUILD)
    with sandbox.load("one", keep=3, fresh=1).running() as load:
        since = sandbox.mark()
        sandbox.save("one/requirements.txt", f"{found}\n")
        sandbox.event("one", "spec", since)  # the build begins; what it says of itself may come late
        forked = sandbox.edit("one/main.py", "def predict() -> int:\n    return 2\n")
        assert sandbox.call("one").prediction == 2
        sandbox.save("one/main.py", USER.format(name=found.name))
        told = sandbox.event("one", "reload", since, deadline=BUILD, tier="replace", result="ok")

    assert load.failures() == []
    assert forked["data"]["tier"] == "fork"
    built = sandbox.event("one", "build", since, ok=True)
    assert sandbox.events.index(forked) < sandbox.events.index(built), "the build was over before the save was live"
    assert len(sandbox.call("one").prediction) == 36
    assert told["data"]["phases"]["build"] > 3.5
    notes = [each["message"] for each in sandbox.events[since:]]
    assert any("does not run on the old replicas" in note for note in notes)
    assert sandbox.row("one")["state"] == "running"


def test_a_failed_build_tells_the_installers_own_last_lines(sandbox: Sandbox, package: Callable[..., Path]) -> None:
    found = package("cannot_be_built", 0.0)
    (found / "backend.py").write_text(
        "def build_wheel(*_, **__):\n    raise RuntimeError('no compiler of this kind')\n"
    )
    sandbox.model("one", "def predict() -> int:\n    return 1\n")
    sandbox.spec({"one": None}, allow_outside=[str(found)])
    sandbox.up(deadline=BUILD)
    since = sandbox.mark()
    sandbox.save("one/requirements.txt", f"{found}\n")
    event = sandbox.event("one", "build", since, deadline=BUILD, result="failed")
    assert "no compiler of this kind" in event["data"]["log"]
    assert (event["data"]["tier"], event["data"]["files"]) == ("replace", ["requirements.txt"])
    row = sandbox.state_of("one", "degraded")
    assert "no compiler of this kind" in row["error"]["traceback"]
    assert sandbox.call("one").prediction == 1

    # A save of code is live all the same, on the packages that there are.
    sandbox.edit("one/main.py", "def predict() -> int:\n    return 2\n")
    assert sandbox.call("one").prediction == 2
    assert sandbox.row("one")["state"] == "degraded"
