"""What models print arrives whole, and never holds them up."""

from __future__ import annotations

import contextlib
import json
import os
import resource
from pathlib import Path

from sandbox.output import LINE, Capture, Echo, LogFile, Splitter
from tests.guest.process.driver import Replica, eventually

LOUD = """
import sys
def predict(lines: int):
    for i in range(lines):
        print(f"line {i} " + "x" * 990)
    print("done", file=sys.stderr)
    return lines
"""


def test_both_streams_are_logged_with_their_generation(replica: Replica) -> None:
    replica.ready(3, "import sys\nprint('hello')\nprint('uh', file=sys.stderr)\ndef predict(x):\n    return x\n")
    lines = eventually(lambda: len(replica.log()) >= 2 and replica.log(), "two lines")
    assert {(line["g"], line["s"], line["m"]) for line in lines} == {(3, "out", "hello"), (3, "err", "uh")}
    assert all(line["t"].endswith("Z") for line in lines)
    replica.control.wait("logged")


def test_huge_output_blocks_nobody_and_is_bounded(replica: Replica) -> None:
    ready = replica.ready(1, LOUD)
    assert replica.predict(ready["socket"], lines=40_000) == 40_000
    eventually(lambda: any(line["m"] == "done" for line in replica.log()), "the last line")
    files = sorted(replica.sockets.glob("log.jsonl*"))
    assert [file.name for file in files] == ["log.jsonl", "log.jsonl.1", "log.jsonl.2"]
    assert all(file.stat().st_size < 11 * 1024 * 1024 for file in files)


def test_a_long_line_comes_in_pieces_and_nothing_is_lost() -> None:
    splitter = Splitter()
    lines = splitter.feed(b"a" * (LINE + 10)) + splitter.feed(b"b\nc")
    assert lines == ["a" * LINE, "a" * 10 + "b"]
    assert splitter.finish() == ["c"]
    assert splitter.finish() == []


def test_bytes_that_are_not_utf8_are_replaced() -> None:
    assert Splitter().feed(b"\xff\xc3\xa9\n") == ["\ufffd\u00e9"]


def test_two_writers_rotate_once(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    logs = [LogFile(directory, rotate=1000), LogFile(directory, rotate=1000)]
    for number in range(40):
        logs[number % 2].write(1, "out", [f"{number:03d} " + "x" * 60])
    for log in logs:
        log.close()
    os.close(directory)
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sorted(sizes) == ["log.jsonl", "log.jsonl.1", "log.jsonl.2"]
    assert all(1000 <= sizes[name] < 1300 for name in ("log.jsonl.1", "log.jsonl.2"))


def test_half_a_line_that_a_full_disk_left_takes_no_other_with_it(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    log = LogFile(directory)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (150, hard))  # as a disk does, it takes the beginning of a line
        log.write(1, "out", ["before"])
        log.write(1, "out", ["cut " + "x" * 100])
        log.write(1, "out", ["lost"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    log.write(1, "out", ["after"])
    log.close()
    os.close(directory)
    found = []
    for line in (tmp_path / "log.jsonl").read_bytes().splitlines():
        with contextlib.suppress(ValueError):
            found.append(json.loads(line)["m"])
    assert found == ["before", "after"]


def test_a_log_that_is_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("")
    (tmp_path / "log.jsonl").symlink_to("elsewhere")
    directory = os.open(tmp_path, os.O_RDONLY)
    LogFile(directory).write(1, "out", ["secret"])
    os.close(directory)
    assert (tmp_path / "elsewhere").read_text() == ""


def test_an_echo_that_nobody_reads_drops_lines_and_never_blocks() -> None:
    read, write = os.pipe()
    echo = Echo(write)
    for _ in range(100):
        echo.write(["x" * 10_000])
    assert os.read(read, 10) == b"x" * 10
    os.close(read)
    os.close(write)


def test_the_end_of_a_stream_keeps_its_unfinished_line(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    read, write = os.pipe()
    written: list[str] = []
    capture = Capture(read, 1, "out", LogFile(directory), written.extend)
    os.write(write, b"whole\nhalf")
    os.close(write)
    capture.finish()
    os.close(directory)
    assert written == ["whole", "half"]
