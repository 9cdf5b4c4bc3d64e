"""A save becomes what answers next, once, in every way that editors and git save."""

from __future__ import annotations

import compileall
import functools
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e import figures
from tests.e2e.sandbox import Sandbox

MODELS = ("one", "same", "renamed", "storm", "gone", "twins", "several", "forced", "compiled", "large")


def says(word: str) -> str:
    return f"def predict() -> str:\n    return {word!r}\n"


@pytest.fixture(scope="module", autouse=True)
def running(shared: Sandbox) -> None:
    for name in MODELS:
        shared.model(name, says("first"))
    shared.data("storm")
    with (shared.data("large") / "weights").open("wb") as file:
        file.truncate(2 << 30)
    shared.spec({**dict.fromkeys(MODELS), "storm": {"data": "rw"}})
    shared.up()


def answers(shared: Sandbox, model: str, prediction: str) -> bool:
    return bool(shared.call(model).prediction == prediction)


def loaded(shared: Sandbox, model: str, since: int) -> list[int]:
    """Generations that were acknowledged after `since`."""
    events = shared.events[since:]
    found = [each for each in events if (each["model"], each["event"]) == (model, "reload")]
    return [each["data"]["generation"] for each in found if each["data"].get("ok")]


def test_the_next_call_after_the_acknowledgement_gets_the_new_code_and_says_so(shared: Sandbox) -> None:
    before = shared.call("one")
    assert before.prediction == "first"

    event = shared.edit("one/main.py", says("second"))

    after = shared.call("one")
    assert after.prediction == "second"
    assert after.generation == event["data"]["generation"] == before.generation + 1
    assert after.content != before.content
    assert event["data"]["content"].startswith(after.content)
    assert shared.row("one")["generation"] == after.generation


def test_a_save_of_equal_content_is_no_generation(shared: Sandbox) -> None:
    before = shared.call("same")
    since = shared.mark()
    shared.save("same/main.py", says("first"))
    shared.save("same/main.py", says("first"), rename=False)
    os.utime(shared.project / "same/main.py", (1, 1))
    # Whatever these would have made comes before this one's.
    shared.edit("same/main.py", says("second"))

    assert loaded(shared, "same", since) == [before.generation + 1]


def test_what_main_imports_never_runs_from_bytecode_of_its_last_text(shared: Sandbox) -> None:
    """Python itself takes bytecode for current whose source has the same size and second."""
    shared.model(
        "compiled", "import words\n\n\ndef predict() -> str:\n    return words.WORD\n", words__py="WORD = 'aa'\n"
    )
    shared.until(functools.partial(answers, shared, "compiled", "aa"))
    words = shared.project / "compiled/words.py"
    os.utime(words, (1_700_000_000, 1_700_000_000))
    compileall.compile_file(words, quiet=1)  # by the user, beside it

    for word in ("bb", "cc"):
        since = shared.mark()
        words.write_text(f"WORD = {word!r}\n")
        os.utime(words, (1_700_000_000, 1_700_000_000))
        shared.until(functools.partial(answers, shared, "compiled", word))
        shared.event("compiled", "reload", since, ok=True)


def test_a_large_file_in_data_is_not_read_by_any_save(shared: Sandbox) -> None:
    before = shared.keeper["control"]["pid"], bytes_read(shared)
    since = shared.mark()

    shared.edit("large/main.py", says("second"))
    os.utime(shared.project / "large/data/weights", (1_700_000_000, 1_700_000_000))  # that is an edit, too
    shared.event("large", "reload", since, ok=True, files=["data/weights"])

    assert shared.keeper["control"]["pid"] == before[0]
    assert bytes_read(shared) - before[1] < 64 << 20
    assert shared.call("large").prediction == "second"


def bytes_read(shared: Sandbox) -> int:
    """What control has read of files and sockets since it began."""
    lines = Path(f"/proc/{shared.keeper['control']['pid']}/io").read_text().splitlines()
    return int(lines[0].removeprefix("rchar: "))


@pytest.mark.parametrize("rename", [True, False], ids=["renamed-over", "in-place"])
def test_saves_of_equal_size_and_time_run_the_new_code(shared: Sandbox, *, rename: bool) -> None:
    for number in range(4):
        word = f"{number}{rename:d}"
        since = shared.mark()
        shared.save("twins/main.py", says(word), rename=rename)
        os.utime(shared.project / "twins/main.py", (1_700_000_000, 1_700_000_000))
        shared.until(functools.partial(answers, shared, "twins", word))
        assert loaded(shared, "twins", since) or shared.event("twins", "reload", since, ok=True)


def test_what_editors_leave_beside_a_file_is_no_save(shared: Sandbox) -> None:
    before = shared.call("renamed")
    since = shared.mark()
    folder = shared.project / "renamed"
    for name in (".main.py.swp", "4913", "main.py~", ".#main.py", "main.py___jb_tmp___", "notes.log"):
        (folder / name).write_text("of an editor")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__/main.cpython-311.pyc").write_text("of Python")
    # As vim saves: the old file becomes a backup, the new one takes its name.
    (folder / "main.py").rename(folder / "main.py~")
    (folder / "main.py").write_text(says("second"))

    shared.event("renamed", "reload", since, ok=True)

    assert shared.call("renamed").prediction == "second"
    assert loaded(shared, "renamed", since) == [before.generation + 1]


def test_a_hundred_saves_in_a_second_end_in_the_last_content_with_few_forks(shared: Sandbox) -> None:
    born = shared.project / "storm/data/born"

    def version(number: int) -> str:
        # Every process that begins to run this file says so.
        begun = "import os\nos.write(os.open('data/born', os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666), b'.')\n"
        return f"{begun}{says(f'save {number}')}"

    since = shared.mark()
    began = time.monotonic()
    for number in range(100):
        shared.save("storm/main.py", version(number))
        time.sleep(max(0.0, began + (number + 1) / 100 - time.monotonic()))

    shared.until(lambda: shared.call("storm").prediction == "save 99")

    shared.event("storm", "reload", since, ok=True, generation=shared.call("storm").generation)
    forks, live = born.stat().st_size, len(loaded(shared, "storm", since))
    figures.tell(f"{shared.runtime}: 100 saves in a second: {forks} forks, {live} generations went live")
    assert forks < 50
    # And nothing goes on once it is quiet.
    shared.edit("forced/main.py", says("after the storm"))
    assert born.stat().st_size == forks


def test_a_model_whose_files_vanish_serves_on_and_takes_them_up_when_they_are_back(shared: Sandbox) -> None:
    before = shared.call("gone")
    folder, aside = shared.project / "gone", shared.project / "aside"
    (folder / "main.py").unlink()
    row = shared.until(lambda: (found := shared.row("gone"))["reason"] and found)
    assert "source missing" in row["reason"]
    assert shared.call("gone").generation == before.generation

    since = shared.mark()
    shared.save("gone/main.py", says("back"))
    shared.event("gone", "reload", since, ok=True)
    assert shared.call("gone").prediction == "back"
    assert shared.state_of("gone", "running")["reason"] is None

    # The whole directory goes, and another takes its place.
    shutil.move(folder, aside)
    shared.until(lambda: "source missing" in (shared.row("gone")["reason"] or ""))
    assert shared.call("gone").prediction == "back"
    since = shared.mark()
    shutil.copytree(aside, folder)
    (folder / "main.py").write_text(says("again"))
    shared.event("gone", "reload", since, ok=True)
    assert shared.call("gone").prediction == "again"


def test_a_file_that_main_imports_is_part_of_the_model(shared: Sandbox) -> None:
    since = shared.mark()
    (shared.project / "several/words.py").write_text("WORD = 'one'\n")
    shared.save("several/main.py", "import words\n\n\ndef predict() -> str:\n    return words.WORD\n")
    shared.until(lambda: shared.call("several").prediction == "one")
    shared.event("several", "reload", since, ok=True)

    shared.edit("several/words.py", "WORD = 'two'\n")

    assert shared.call("several").prediction == "two"


def test_reload_makes_a_new_generation_of_equal_content(shared: Sandbox) -> None:
    before = shared.call("forced")

    shared.cli("reload", "forced")

    after = shared.call("forced")
    assert (after.generation, after.content) == (before.generation + 1, before.content)


def test_a_checkout_of_two_hundred_files_is_one_generation(sandbox: Sandbox) -> None:
    files = [f"part{number}.py" for number in range(200)]
    source = "import glob\n\n\ndef predict() -> list:\n    return sorted({open(each).read() for each in glob.glob('part*')})\n"
    sandbox.model("one", source)
    git(sandbox, "init", "--initial-branch", "main")
    for branch in ("main", "other"):
        git(sandbox, "checkout", "-B", branch)
        for name in files:
            (sandbox.project / "one" / name).write_text(f"# {branch}\n")
        git(sandbox, "add", "one")
        git(sandbox, "commit", "-m", branch)
    sandbox.spec({"one": None})
    sandbox.up()
    assert sandbox.call("one").prediction == ["# other\n"]

    for branch in ("main", "other", "main"):
        since = sandbox.mark()
        git(sandbox, "checkout", branch)
        sandbox.event("one", "reload", since, ok=True)
        assert sandbox.call("one").prediction == [f"# {branch}\n"]

    assert sandbox.call("one").generation == 4


def git(sandbox: Sandbox, *words: str) -> None:
    identity = ("-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *identity, *words], cwd=sandbox.project, check=True, capture_output=True)
