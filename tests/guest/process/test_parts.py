"""The parts that decide without a process: form, places, counts."""

from __future__ import annotations

import mmap
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox import blame, blas, checker, children, hugepages, orders, roster, trace, wire
from sandbox.forker import Forker
from sandbox.loader import Imports, _is_third_party

STACKS = """\
Thread 0x00007f0000000001 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 320 in wait
  File "/src/helper.py", line 4 in poll

Current thread 0x00007f0000000002 (most recent call first):
  File "/usr/lib/python3.11/json/__init__.py", line 1 in loads
  File "/src/sub/caf\\xe9.py", line 12 in load
  File "/src/main.py", line 3 in load
"""


def test_the_place_is_the_innermost_frame_of_the_user_in_the_interrupted_thread() -> None:
    found = trace.find(STACKS, "/src", "/trees/tree-1")
    assert found is not None
    assert (found.file, found.line) == ("sub/café.py", 12)
    assert found.stack.splitlines()[1:] == STACKS.splitlines()[-2:]


def test_there_is_no_place_without_a_frame_of_the_user() -> None:
    assert trace.find(STACKS, "/elsewhere") is None
    assert trace.find("", "/src") is None


def test_a_line_that_the_worker_named_is_kept() -> None:
    error = {"type": "ValueError", "message": "no", "file": "main.py", "line": 9, "traceback": "…"}
    assert blame.place(error, STACKS, ["/src"]) == error


def test_deaths_in_words() -> None:
    assert blame.death("exit 3", "load")["message"] == "exited with status 3 during load()"
    assert blame.death("signal 9", "import")["message"] == "killed by signal 9 (SIGKILL) during importing main.py"
    assert blame.death("out of memory", "load")["type"] == "MemoryError"
    assert blame.death("unknown (agent was replaced)", "load")["type"] == "ProcessExit"


def test_lines_come_whole_however_they_were_cut() -> None:
    line = wire.encode({"type": "é", "n": 1})
    lines = wire.Lines()
    seen = [message for byte in line + b"\n" + line for message in lines.feed(bytes([byte]))]
    assert seen == [{"type": "é", "n": 1}] * 2


@pytest.mark.parametrize("data", [b"[1]\n", b"{\n", b"\xff\n", b"x" * (wire.LIMIT + 1), b"[" * 100_000 + b"\n"])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.Lines().feed(data)


def test_a_message_over_the_limit_is_not_sent() -> None:
    with pytest.raises(wire.WireError, match="'ready' message of"):
        wire.encode({"type": "ready", "info": "x" * wire.LIMIT})


def test_what_workers_say_is_made_to_fit() -> None:
    assert [wire.number(value) for value in (1, 0.5, "x", None, float("nan"))] == [1.0, 0.5, 0.0, 0.0, 0.0]
    assert wire.mapping([1]) == {}
    assert wire.mapping({"a": "x" * wire.LIMIT}) == {}
    assert wire.names(["a", 1, "x" * 300]) == ["a"]


def test_an_order_without_a_field_is_not_well_formed() -> None:
    assert orders.well_formed({"type": "kill", "generation": 1, "attempt": 1})
    assert not orders.well_formed({"type": "kill", "generation": 1})


def test_the_thread_count_is_the_models_then_its_limit_then_the_cores() -> None:
    cores = len(os.sched_getaffinity(0))
    assert blas.count({"OMP_NUM_THREADS": "3"}, 1.0) == 3
    assert blas.count({}, 0.5) == 1
    assert blas.count({}, None) == cores
    assert blas.count({}, 1000.0) == cores


@pytest.mark.parametrize(
    ("text", "name", "line"),
    [
        (b"x = (\n", "SyntaxError", 1),
        (b"def f():\nreturn 1\n", "IndentationError", 2),
        (b"# coding: nonsense\n", "SyntaxError", None),
        (b"\xff = 1\n", "SyntaxError", None),
    ],
)
def test_what_does_not_compile_is_named_with_its_place(tmp_path, text: bytes, name: str, line: int | None) -> None:
    (tmp_path / "main.py").write_bytes(text)
    error = checker.check(str(tmp_path), "/home/u/model", "main.py")
    assert error is not None
    assert (error["type"], error["file"]) == (name, "main.py")
    assert line is None or error["line"] == line
    assert "/home/u/model/main.py" in error["traceback"] or line is None


def test_null_bytes_and_deep_nesting_are_errors_with_a_file(tmp_path) -> None:
    (tmp_path / "null.py").write_bytes(b"x = 1\0\n")
    (tmp_path / "deep.py").write_bytes(b"x = " + b"(" * 1000 + b")" * 1000)
    for file in ("null.py", "deep.py"):
        error = checker.check(str(tmp_path), "/src", file)
        assert error is not None
        assert error["file"] == file


def test_a_deleted_file_needs_no_check(tmp_path) -> None:
    assert checker.check(str(tmp_path), "/src", "gone.py") is None


class LaterLoop:
    """Keeps what is to be called later, and watches nothing."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def later(self, _seconds: float, callback: Callable[[], None]) -> None:
        self.calls.append(callback)


def test_a_zygote_that_cannot_be_started_is_told_as_dead_and_leaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(children, "spawn", refuse)
    loop, changes = LaterLoop(), []
    before = set(os.listdir("/proc/self/fd"))
    forker = Forker(loop, None, (), None, changes.append)  # type: ignore[arg-type]
    assert set(os.listdir("/proc/self/fd")) == before
    assert (forker.state, forker.alive, changes) == ("dead", False, [])
    for call in loop.calls:
        call()
    assert changes == [forker]
    assert "temporarily unavailable" in forker.reason
    forker.kill()


def test_the_roster_is_written_when_it_changed_and_not_else(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    written = roster.Roster(directory)
    worker = {"generation": 1, "attempt": 1, "pid": os.getpid(), "deadline": 5.0}
    written.write(None, [worker])
    first = (tmp_path / roster.NAME).stat().st_ino
    written.write(None, [dict(worker)])
    assert (tmp_path / roster.NAME).stat().st_ino == first
    written.write((1, 1), [worker])
    assert (tmp_path / roster.NAME).stat().st_ino != first
    assert roster.Roster(directory).read()[0] == (1, 1)
    os.close(directory)


@pytest.mark.parametrize("dropped", [(), ("last_of_the_old",)])
def test_what_came_is_known_without_a_look_at_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dropped: tuple[str, ...]
) -> None:
    site = tmp_path / "site-packages"
    for name in ("new_in_test", "old_in_test"):
        (site / name).mkdir(parents=True)
        (site / name / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    __import__("old_in_test")
    sys.modules["last_of_the_old"] = types.ModuleType("last_of_the_old")
    with Imports(str(tmp_path / "tree")) as imports:
        __import__("new_in_test")
        for name in dropped:
            del sys.modules[name]
    assert imports.third_party() == (["new_in_test"] if not dropped else [])


def test_full_memory_moves_to_huge_pages_and_empty_memory_stays_empty() -> None:
    size = 64 * 1024 * 1024
    with (
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE) as full,
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ),  # else the two would be one mapping
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE) as empty,
    ):
        full.write(bytes(range(256)) * (size // 256))
        empty.write(b"x")
        before = _resident()
        moved = hugepages.gather()
        assert _resident() - before < size // 2
        if moved == 0:
            pytest.skip("this kernel collapses no pages")
        assert hugepages.gather() < moved
        assert full[:256] == full[-256:] == bytes(range(256))


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_a_module_that_makes_up_its_attributes_lies_nowhere() -> None:
    class Imaginary(types.ModuleType):
        def __getattr__(self, name: str) -> object:
            return types.ModuleType(name)

    assert not _is_third_party(Imaginary("imaginary"))
