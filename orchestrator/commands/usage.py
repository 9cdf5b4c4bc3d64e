"""stats, top: what models use, and which processes they are. Control measures; here it is only shown."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from contextlib import closing
from typing import TYPE_CHECKING, Any

from orchestrator.client import target
from orchestrator.commands.inspect import FORMATS, print_json, select
from orchestrator.commands.session import Session, add_command

if TYPE_CHECKING:
    from orchestrator.commands.session import Subparsers

Json = dict[str, Any]
HOME = "\x1b[H\x1b[J"


def register(commands: Subparsers) -> None:
    stats_parser = add_command(
        commands,
        "stats",
        stats,
        "show what each replica uses, anew every second",
        """
        sandbox stats
        sandbox stats --no-stream --format json hello
        """,
    )
    stats_parser.add_argument("models", nargs="*", metavar="MODEL", help="only these")
    stats_parser.add_argument("--no-stream", action="store_true", help="once, and no more")
    _format(stats_parser)
    top_parser = add_command(
        commands,
        "top",
        top,
        "list the processes of each replica",
        """
        sandbox top
        sandbox top hello --format json
        """,
    )
    top_parser.add_argument("models", nargs="*", metavar="MODEL", help="only these")
    _format(top_parser)


def _format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=FORMATS, default="table", help="json: an object per line (table)")


def stats(args: argparse.Namespace, session: Session) -> int:
    control = session.connect()
    select(control.get("/api/models")["models"], args.models)
    with closing(control.stream("GET", target("/api/usage", {"models": ",".join(args.models)}))) as samples:
        for sample in samples:
            if session.screen.interactive and not args.no_stream and args.format == "table":
                session.screen.line(HOME)
            _show(session, args.format, sample["usage"])
            if args.no_stream:
                break
    return 0


def _show(session: Session, form: str, rows: list[Json]) -> None:
    if form != "table":
        print_json(session, form, rows)
        return
    head = ("NAME", "REPLICA", "CPU %", "MEMORY / LIMIT", "PIDS / LIMIT")
    session.screen.table(
        head,
        [
            (
                row["model"],
                str(row["replica"]),
                f"{row['cpu_percent']:.2f}",
                f"{size(row['memory'])} / {'-' if row['memory_limit'] is None else size(row['memory_limit'])}",
                f"{row['pids']} / {'-' if row['pids_limit'] is None else row['pids_limit']}",
            )
            for row in rows
        ],
    )


def size(count: int) -> str:
    """Bytes for people: 12.5 MiB."""
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.4g} {unit}"
        value /= 1024
    return f"{value:.4g} GiB"


def top(args: argparse.Namespace, session: Session) -> int:
    control = session.connect()
    select(control.get("/api/models")["models"], args.models)
    rows = control.get(target("/api/top", {"models": ",".join(args.models)}))["processes"]
    if args.format != "table":
        print_json(session, args.format, rows)
        return 0
    head = ("NAME", "REPLICA", "PID", "PPID", "USER", "CPU TIME", "MEMORY", "COMMAND")
    session.screen.table(head, _cells(rows))
    return 0


def _cells(rows: Iterable[Json]) -> list[tuple[str, ...]]:
    return [
        (
            *(str(row[key]) for key in ("model", "replica", "pid", "parent", "user")),
            f"{row['cpu_seconds']:.2f} s",
            size(row["memory"]),
            row["command"],
        )
        for row in rows
    ]
