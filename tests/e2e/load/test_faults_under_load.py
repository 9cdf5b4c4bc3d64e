"""Whatever goes wrong with an edit, its files or a process beside the one that answers: nothing is lost, and it is told.

One load runs on one model through all of it; each test does one thing wrong, looks what is told, and mends it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.load import editor, model, verdict
from tests.e2e.load.clients import Load
from tests.e2e.sandbox import Sandbox

Json = dict[str, Any]

# Long enough for a worker to start on a busy machine, short enough to wait for.
LOAD_TIMEOUT = "3s"
HANG = "(self.data_dir / 'pid').write_text(str(os.getpid())); import time; time.sleep(3600)"
# Room for the store, the logs and some generations.
DISK = "16m"
_VERSIONS = itertools.count(1)


@pytest.fixture(scope="module")
def disk(shared: Sandbox) -> Iterator[Path | None]:
    """`.sandbox/` on a disk of its own, small enough to fill; None where none can be mounted."""
    place = shared.project / ".sandbox"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=755", "tmpfs", place]
    if os.geteuid() != 0 or subprocess.run(words, check=False, capture_output=True).returncode != 0:
        yield None
        return
    yield place
    shared.down()
    subprocess.run(["umount", place], check=True)


@pytest.fixture(scope="module", autouse=True)
def load(shared: Sandbox, disk: Path | None, tell: Callable[[str], None]) -> Iterator[Load]:
    """The load on a model whose folder is a link, and whose data lie beside all that the tests do to it."""
    ran = shared.project / "ran"
    ran.mkdir()
    ran.chmod(0o777)
    copy = tree(shared, "first", source())
    (shared.project / model.NAME).symlink_to(copy)
    shared.spec({model.NAME: {"data": "rw", "concurrency": 256, "load_timeout": LOAD_TIMEOUT}})
    shared.up()
    load = Load(shared.port, shared.state / "control.sock")
    with load.running():
        yield load
    held = editor.held(shared)
    tell(verdict.Figures(f"faults under load, {shared.runtime}", load, more={"held": f"{held:.0f}"}).line())
    assert verdict.judge(load, (ran / "ran.txt").read_text()).faults == ()
    assert held == 0


def tree(shared: Sandbox, name: str, text: str) -> Path:
    """A model directory of this content."""
    folder = shared.project / "trees" / name
    folder.mkdir(parents=True)
    (folder / "main.py").write_text(text)
    (folder / "data").symlink_to("../../ran")
    return folder


def source(**more: str) -> str:
    """The next version."""
    return model.source(next(_VERSIONS), **more)


def rejected(shared: Sandbox, text: str, *words: str) -> Json:
    """Save what cannot be loaded, and wait until it is told: with `words`, and the generation before it going on."""
    before = shared.row(model.NAME)
    since = shared.mark()
    shared.save(editor.MAIN, text)
    event = shared.event(model.NAME, "degraded", since)
    row = shared.state_of(model.NAME, "degraded")
    for each in words:
        assert each in event["message"]
        assert each in row["reason"]
    assert goes_on(before, row)
    return event


def goes_on(before: Json, after: Json) -> bool:
    """Whether the worker that answered answers on; older ones may have finished their streams meanwhile."""
    workers = set(after["pids"]["workers"])
    return bool(workers) and workers <= set(before["pids"]["workers"]) and after["generation"] == before["generation"]


def mended(shared: Sandbox) -> None:
    """The next good save is what answers, and nothing is wrong any more."""
    before = shared.row(model.NAME)["generation"]
    event = shared.edit(editor.MAIN, source())
    assert event["data"]["generation"] > before
    row = shared.state_of(model.NAME, "running")
    assert (row["generation"], row["reason"], row["error"]) == (event["data"]["generation"], None, None)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"call": "return ("}, ("SyntaxError", "main.py:16")),
        ({"more": "import no_such_module"}, ("no_such_module", "main.py:2")),
        ({"load": "raise ValueError('no weights')"}, ("no weights", "main.py:11")),
        ({"load": "os._exit(3)"}, ("exited with status 3", "main.py:11")),
        ({"load": HANG}, ("did not finish in 3 s", "main.py:11")),
    ],
    ids=["syntax", "import", "exception", "exit", "hang"],
)
def test_an_edit_that_does_not_load_loses_nothing_and_is_told(
    shared: Sandbox, more: dict[str, str], words: tuple[str, ...]
) -> None:
    rejected(shared, source(**more), *words)
    mended(shared)


def test_the_death_of_a_candidate_loses_nothing_and_is_told(shared: Sandbox) -> None:
    told = shared.project / "ran" / "pid"
    told.unlink(missing_ok=True)
    since = shared.mark()
    shared.save(editor.MAIN, source(load=HANG))
    pid = shared.until(lambda: told.exists() and told.read_text())
    os.kill(shared.host_process(model.NAME, int(pid)), signal.SIGKILL)
    event = shared.event(model.NAME, "degraded", since)

    assert "signal 9" in event["message"]
    mended(shared)


def test_the_death_of_the_zygote_loses_nothing(shared: Sandbox) -> None:
    before = shared.row(model.NAME)
    os.kill(shared.host_pid(before, "zygote"), signal.SIGKILL)
    shared.until(lambda: shared.row(model.NAME)["pids"]["zygote"] not in ([], before["pids"]["zygote"]))

    assert goes_on(before, shared.row(model.NAME))
    mended(shared)


def test_a_full_disk_loses_nothing_and_is_told(shared: Sandbox, disk: Path | None) -> None:
    if disk is None:
        pytest.skip("no disk of its own can be mounted here")
    before = shared.row(model.NAME)
    filler = disk / "filler"
    try:
        fill(filler)
        shared.save(editor.MAIN, source())
        row = shared.state_of(model.NAME, "degraded")
    finally:
        filler.unlink()

    assert "no space left" in row["reason"]
    assert goes_on(before, row)
    mended(shared)


def fill(filler: Path) -> None:
    """Write until nothing more can be written."""
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_a_folder_that_is_deleted_and_comes_back_loses_nothing(shared: Sandbox) -> None:
    folder = (shared.project / model.NAME).resolve()
    before = shared.row(model.NAME)
    shutil.rmtree(folder)
    shared.until(lambda: "source missing" in (shared.row(model.NAME)["reason"] or ""))
    since = shared.mark()
    tree(shared, folder.name, source())

    event = shared.event(model.NAME, "reload", since, ok=True)
    assert event["data"]["generation"] == before["generation"] + 1
    assert shared.state_of(model.NAME, "running")["reason"] is None


def test_a_folder_that_is_renamed_and_comes_back_loses_nothing_and_reloads_nothing(shared: Sandbox) -> None:
    folder = (shared.project / model.NAME).resolve()
    before = shared.row(model.NAME)
    folder.rename(folder.with_name("away"))
    shared.until(lambda: "source missing" in (shared.row(model.NAME)["reason"] or ""))
    folder.with_name("away").rename(folder)
    after = shared.until(lambda: (row := shared.row(model.NAME))["reason"] is None and row)

    assert goes_on(before, after)
    mended(shared)


def test_a_link_that_is_pointed_elsewhere_loses_nothing(shared: Sandbox) -> None:
    since = shared.mark()
    aside = shared.project / "aside"
    aside.symlink_to(tree(shared, "second", source()))
    aside.replace(shared.project / model.NAME)

    # Another directory is another replica's: the old one has the code at once, the new one takes over.
    event = shared.event(model.NAME, "reload", since, ok=True, tier="replace")
    row = shared.until(lambda: (row := shared.row(model.NAME))["reason"] is None and row)
    assert row["generation"] == event["data"]["generation"]
    mended(shared)


def test_edits_of_one_size_and_one_time_end_in_the_last_one(shared: Sandbox, load: Load) -> None:
    version = 0
    for _ in range(10):
        version = next(_VERSIONS)
        shared.save(editor.MAIN, model.source(version), rename=version % 2 == 0)
        os.utime(shared.project / editor.MAIN, (1_700_000_000, 1_700_000_000))
    shared.cli("wait", model.NAME, "--generation", "latest")

    shared.until(lambda: load.samples[-1].version == version)
    assert shared.state_of(model.NAME, "running")["generation"] == load.samples[-1].generation
