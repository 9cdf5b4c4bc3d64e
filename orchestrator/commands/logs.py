"""logs: what models wrote. From control while it runs, from the files in .sandbox when it does not."""

from __future__ import annotations

import argparse
import glob
import json
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from orchestrator import folders
from orchestrator.client import target
from orchestrator.commands import attached, moment
from orchestrator.commands.session import Session, add_command
from orchestrator.errors import SandboxError

if TYPE_CHECKING:
    from orchestrator.commands.session import Subparsers

Json = dict[str, Any]


def register(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "logs",
        logs,
        "show what the models wrote",
        """
        sandbox logs -f
        sandbox logs --tail 20 -t hello
        sandbox logs --since 10m
        """,
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help="only these")
    parser.add_argument("-f", "--follow", action="store_true", help="go on as they write")
    parser.add_argument("-n", "--tail", type=_count, metavar="N", help="only the last N lines of each model (all)")
    parser.add_argument("--since", type=moment.since, metavar="TIME", help="a moment (ISO 8601) or an age (10m, 2h)")
    parser.add_argument("-t", "--timestamps", action="store_true", help="show when each line was written")
    parser.add_argument("--no-log-prefix", action="store_true", help="leave out the names of the models")


def _count(text: str) -> int | None:
    if text == "all":
        return None
    value = int(text)
    if value < 0:
        raise ValueError(text)
    return value


def logs(args: argparse.Namespace, session: Session) -> int:
    place = session.place()
    width = max(map(len, args.models), default=0)
    with closing(_lines(args, session, place)) as lines:
        for line in lines:
            width = max(width, len(str(line.get("model", ""))))
            session.screen.log(line, width, prefix=not args.no_log_prefix, timestamps=args.timestamps)
    return 0


def _lines(args: argparse.Namespace, session: Session, place: folders.Folders) -> Generator[Json, None, None]:
    tail = None if args.tail is None else str(args.tail)
    query = {"models": ",".join(args.models), "tail": tail, "since": args.since}
    try:
        control = session.connect()
    except SandboxError as error:
        if error.reference != "not-running" or args.follow:
            raise
        yield from kept(place, args.models, args.tail, args.since)
        return
    if args.follow:
        yield from attached.follow(place, "/api/logs", query)
    else:
        yield from control.stream("GET", target("/api/logs", query))


def kept(place: folders.Folders, models: Sequence[str], tail: int | None, since: str | None) -> Iterator[Json]:
    """The lines that .sandbox/logs still holds, in the order in which they were written."""
    found: list[Json] = []
    for path in sorted(glob.glob(os.path.join(glob.escape(place.logs), "*.jsonl"))):
        name = os.path.basename(path).removesuffix(".jsonl")
        if models and name not in models:
            continue
        lines = [line for line in _read(path, name) if since is None or str(line.get("t")) >= since]
        found += lines if tail is None else lines[len(lines) - min(tail, len(lines)) :]
    yield from sorted(found, key=lambda line: str(line.get("t")))


def _read(path: str, name: str) -> Iterator[Json]:
    with open(path, encoding="utf-8", errors="replace") as file:
        for text in file:
            with suppress(ValueError):  # the last line may be half written
                line = json.loads(text)
                if isinstance(line, dict):
                    yield {**line, "model": name}
