"""Following a sandbox: log lines and events as one stream, across restarts of control, until a `down`."""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from types import FrameType
from typing import Any

from orchestrator import folders, supervision
from orchestrator.client import ControlClient, target
from orchestrator.errors import SandboxError
from orchestrator.render import Screen

Json = dict[str, Any]
Identity = tuple[Any, ...]
RETRY_INTERVAL = 0.1


@contextlib.contextmanager
def interruptible(attached: bool) -> Iterator[None]:
    """While attached, SIGTERM and a closed terminal stop the sandbox as Ctrl-C does."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGHUP) if attached else ()
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def identity(line: Json) -> Identity:
    """What makes a line the one it is, whether it came as it happened or out of the store."""
    return tuple(line.get(key) for key in ("time", "t", "model", "event", "message", "g", "s", "m"))


def follow(place: folders.Folders, path: str, query: Mapping[str, str | None]) -> Generator[Json, None, None]:
    """What `path` streams, each line once. Control may die and come back; a `down` ends it."""
    recent: list[Identity] = []
    since, tail = query.get("since"), query.get("tail")
    while True:
        try:
            control = supervision.connect(place)
            options = {**query, "follow": "1", "since": since, "tail": tail}
            with contextlib.closing(control.stream("GET", target(path, options))) as lines:
                # `since` includes its own moment: what was had of it comes again, and is left out as often.
                again = list(recent)
                for line in lines:
                    found = identity(line)
                    if found in again:
                        again.remove(found)
                        continue
                    moment = str(line.get("time") or line.get("t") or since)
                    recent = [*recent, found] if moment == since else [found]
                    since, tail = moment, None
                    yield line
        except SandboxError as error:
            if error.reference != "control":
                if error.reference == "not-running":
                    return
                raise
        time.sleep(RETRY_INTERVAL)


def ended(place: folders.Folders, control: ControlClient, model: str) -> int:
    """Wait until a model does not run any more; its exit code, 0 where the whole sandbox was taken down."""
    while True:
        try:
            with contextlib.closing(control.stream("GET", target("/api/ended", {"model": model}))) as lines:
                for line in lines:
                    if line.get("type") == "ended":
                        return int(line["code"])
            time.sleep(RETRY_INTERVAL)
            control = supervision.connect(place)
        except SandboxError as error:
            if error.reference == "not-running":
                return 0
            if error.reference != "control":
                raise


def watch(
    screen: Screen, place: folders.Folders, since: str, seen: Iterable[Json], width: int, *, until: str | None = None
) -> int:
    """Show logs and events until the sandbox ends, or `until`, a model, does; that one's exit code, else 0.

    seen: events that were shown already; width: of a model's name.
    """
    shown = [identity(event) for event in seen]
    lines: queue.SimpleQueue[Json | None] = queue.SimpleQueue()

    def read(path: str) -> None:
        # A thread of its own per stream; they end with the process, which is when nobody reads any more.
        try:
            for line in follow(place, path, {"since": since}):
                lines.put(line)
        except SandboxError as error:
            lines.put({"type": "broken", "error": error})
        lines.put(None)

    def wait(model: str) -> None:
        try:
            lines.put({"type": "ended", "code": ended(place, supervision.connect(place), model)})
        except SandboxError as error:
            lines.put({"type": "broken", "error": error})

    if until is not None:
        threading.Thread(target=wait, args=(until,), daemon=True, name=f"end of {until}").start()
    paths = ("/api/events", "/api/logs")
    for path in paths:
        threading.Thread(target=read, args=(path,), daemon=True, name=f"follow {path}").start()
    over = 0
    while over < len(paths):
        line = lines.get()
        if line is None:
            over += 1
        elif line.get("type") == "ended":
            return int(line["code"])
        elif line.get("type") == "broken":
            raise line["error"]
        elif line.get("type") == "event":
            if identity(line) in shown:
                shown.remove(identity(line))
            else:
                width = max(width, len(line.get("model") or ""))
                screen.event(line, width)
        else:
            width = max(width, len(line.get("model") or ""))
            screen.log(line, width)
    return 0
