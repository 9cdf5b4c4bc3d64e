"""What models print is copied, whatever they wrote into their log by themselves."""

from __future__ import annotations

import asyncio
import json
import os
import resource
from pathlib import Path

import pytest

from orchestrator.control import exchange
from orchestrator.control import logs as logs_module
from orchestrator.control.logs import Lines, Logs

TIME = "2026-01-01T00:00:00Z"


async def test_no_line_of_one_model_stops_the_copying_of_any(tmp_path: Path) -> None:
    logs = Logs(str(tmp_path))
    lines = ["[" * 100_000, json.dumps({"t": TIME, "m": "\ud800"}), json.dumps({"t": TIME, "m": "good"})]
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + "\n")
    copying = asyncio.create_task(logs.run())
    with logs.listen() as heard:
        logs.follow("hello", "ab12cd34", str(tmp_path), os.getuid())
        async with asyncio.timeout(10):
            assert [(await heard.get())["m"] for _ in range(2)] == ["?", "good"]
    copying.cancel()
    await asyncio.wait({copying})
    assert [line["m"] for line in logs.past(("hello",), None, None)] == ["?", "good"]


async def copied(logs: Logs) -> list[str]:
    """One look at what is followed."""
    for incarnation, tail in logs._tails.items():
        await logs._copy(incarnation, tail)
    return [line["m"] for line in logs.past(("hello",), None, None)]


def printed(folder: Path, *texts: str, name: str = "log.jsonl") -> None:
    with (folder / name).open("a") as file:
        file.writelines(json.dumps({"t": TIME, "m": each}) + "\n" for each in texts)


async def test_a_line_without_an_end_is_passed_over_once_it_is_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs_module, "MOST_AT_ONCE", 1000)
    logs = Logs(str(tmp_path))
    logs.follow("hello", "ab12cd34", str(tmp_path), os.getuid())
    (tmp_path / "log.jsonl").write_text("x" * 2500)
    for _ in range(3):
        assert await copied(logs) == []
    printed(tmp_path, "the end of it")
    printed(tmp_path, "good")
    assert await copied(logs) == ["good"]


async def test_where_a_log_was_rotated_away_unread_a_line_says_so(tmp_path: Path) -> None:
    logs = Logs(str(tmp_path))
    logs.follow("hello", "ab12cd34", str(tmp_path), os.getuid())
    printed(tmp_path, "one")
    assert await copied(logs) == ["one"]
    printed(tmp_path, "never copied")
    (tmp_path / "log.jsonl").rename(tmp_path / "gone")
    printed(tmp_path, "two", name="log.jsonl.1")
    printed(tmp_path, "three")
    noted = "(lines dropped: they were printed faster than they could be copied)"
    assert await copied(logs) == ["one", noted, "two", "three"]
    printed(tmp_path, "four")
    assert await copied(logs) == ["one", noted, "two", "three", "four"]


async def test_what_a_full_disk_cannot_keep_is_heard_and_counted_and_cuts_no_line(tmp_path: Path) -> None:
    logs = Logs(str(tmp_path))
    logs.follow("hello", "ab12cd34", str(tmp_path), os.getuid())
    printed(tmp_path, "before")
    await copied(logs)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    printed(tmp_path, "lost", "lost, too")
    with logs.listen() as heard:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # as a disk does, it takes the beginning of a line
        try:
            assert await copied(logs) == ["before"]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert [heard.get_nowait()["m"] for _ in range(2)] == ["lost", "lost, too"]
    printed(tmp_path, "after")
    assert await copied(logs) == ["before", "(2 lines dropped: the disk was full)", "after"]


def test_a_listener_that_lags_is_told_how_many_lines_it_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs_module, "LONGEST_BACKLOG", 2)
    heard = Lines()
    for number in range(5):
        heard.add({"t": TIME, "m": str(number), "model": "hello"})
    line = heard.get_nowait()
    assert heard.remark(line) == {
        **line,
        "g": 0,
        "s": "err",
        "m": "(3 lines dropped: they were not read in time)",
    }
    assert heard.remark(heard.get_nowait()) is None


async def test_nothing_waits_on_for_a_caller_that_left() -> None:
    queue: asyncio.Queue[int] = asyncio.Queue()
    never = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(exchange.next_until(queue, never))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    queue.put_nowait(1)
    assert await exchange.next_until(queue, never) == 1
    never.set_result(None)
    assert await exchange.next_until(queue, never) is None
