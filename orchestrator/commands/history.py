"""generations, rollback, wait: which contents a model had, going back to one, and waiting until one is live."""

from __future__ import annotations

import argparse
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

from orchestrator.client import target
from orchestrator.commands.attached import ended
from orchestrator.commands.inspect import FORMATS, print_json
from orchestrator.commands.lifecycle import settle
from orchestrator.commands.session import Session, add_command
from orchestrator.errors import EXIT_FAILURE, SandboxError

if TYPE_CHECKING:
    from orchestrator.commands.session import Subparsers

Json = dict[str, Any]
# More changed files than this are counted, not named.
NAMED = 3
# How many controls `wait` asks in a row: one that dies is started again.
CONTROLS = 4


def register(commands: Subparsers) -> None:
    generations_parser = add_command(
        commands,
        "generations",
        generations,
        "list the generations of a model that are kept, or pin one",
        """
        sandbox generations hello
        sandbox generations hello --pin 3      keep g3, however many come
        sandbox generations hello --unpin 3
        """,
    )
    generations_parser.add_argument("model", metavar="MODEL", help="the model")
    pins = generations_parser.add_mutually_exclusive_group()
    pins.add_argument("--pin", type=_generation, metavar="N", help="keep this one whatever reload.keep says")
    pins.add_argument("--unpin", type=_generation, metavar="N", help="keep this one no longer than the others")
    generations_parser.add_argument(
        "--format", choices=FORMATS, default="table", help="json: an object per line (table)"
    )
    rollback_parser = add_command(
        commands,
        "rollback",
        rollback,
        "serve an earlier content of a model again, under a new number, until the next save",
        """
        sandbox rollback hello     the content that was active before
        sandbox rollback hello 3   that of g3
        """,
    )
    rollback_parser.add_argument("model", metavar="MODEL", help="the model")
    rollback_parser.add_argument(
        "number", type=_generation, nargs="?", metavar="N", help="the generation to go back to (the one before)"
    )
    wait_parser = add_command(
        commands,
        "wait",
        wait,
        "wait until models stop, or until a generation of a model answers",
        """
        sandbox wait hello         until it stops; exit as it did
        sandbox wait hello --generation latest       until what is on disk answers, or cannot
        sandbox wait hello --generation 18 --timeout 30
        """,
    )
    wait_parser.add_argument("models", nargs="+", metavar="MODEL", help="the models; one with --generation")
    wait_parser.add_argument(
        "--generation", type=_awaited, metavar="N|latest", help="until this one, or a newer, answers"
    )
    wait_parser.add_argument(
        "--timeout", type=_positive, metavar="SECONDS", help="with --generation: give up after this long (never)"
    )


def _generation(text: str) -> int:
    """`3`, or `g3` as everything shows it."""
    number = int(text.removeprefix("g"))
    if number < 1:
        raise ValueError(text)
    return number


def _awaited(text: str) -> str:
    return text if text == "latest" else str(_generation(text))


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError(text)
    return value


def generations(args: argparse.Namespace, session: Session) -> int:
    control = session.connect()
    if args.pin is not None or args.unpin is not None:
        number, pinned = (args.pin, True) if args.pin is not None else (args.unpin, False)
        rows = [control.post("/api/generations/pin", {"model": args.model, "number": number, "pinned": pinned})]
    else:
        rows = control.get(target("/api/generations", {"model": args.model}))["generations"]
    if args.format == "table":
        head = ("GENERATION", "CONTENT", "CREATED", "STATE", "PINNED", "CHANGED")
        session.screen.table(head, [_cells(row) for row in rows])
    else:
        print_json(session, args.format, rows)
    return 0


def _cells(row: Json) -> tuple[str, ...]:
    pinned = "yes" if row.get("pinned") else "-"
    return f"g{row['number']}", row["content"], row["created"], row["state"], pinned, _changed(row)


def _changed(row: Json) -> str:
    names = row.get("changed") or []
    named = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
    origin = row.get("origin")
    return f"rollback to g{origin}: {named}".removesuffix(": ") if origin else named or "-"


def rollback(args: argparse.Namespace, session: Session) -> int:
    body = {"model": args.model, "number": args.number}
    settled = settle(session, session.connect(), "/api/rollback", body, [args.model])
    return EXIT_FAILURE if settled.get("failed") else 0


def wait(args: argparse.Namespace, session: Session) -> int:
    if args.generation is not None:
        if len(args.models) != 1:
            raise SandboxError("usage", "--generation is one model's", hint="see: sandbox wait --help")
        return _wait_until_live(args.models[0], args, session)
    if args.timeout is not None:
        raise SandboxError("usage", "--timeout goes with --generation", hint="see: sandbox wait --help")
    control = session.connect()
    code = 0
    for name in args.models:
        code = ended(session.place(), control, name)
        session.screen.line(f"{name} exited with {code}")
    return code


def _wait_until_live(model: str, args: argparse.Namespace, session: Session) -> int:
    end = None if args.timeout is None else time.monotonic() + args.timeout
    timeout = args.timeout
    for tries_left in reversed(range(CONTROLS)):
        given = None if timeout is None else str(timeout)
        query = {"model": model, "generation": args.generation, "timeout": given}
        try:
            if live := _live(session, target("/api/wait", query)):
                mark = session.screen.mark("✔")
                session.screen.line(f"{live['model']} {mark} g{live['generation']} answers ({live['content']})")
                return 0
        except SandboxError as error:
            if error.reference != "control" or not tries_left:
                session.screen.error(error)
                return EXIT_FAILURE  # whatever the reference: the command itself was right
        # Control died, the models live on: the next one is asked for what is left of the time.
        timeout = None if end is None else max(0.1, round(end - time.monotonic(), 3))
    raise SandboxError("control", "the control process ended before anything could be told", hint="see: sandbox ps")


def _live(session: Session, path: str) -> Json | None:
    """What control says answers; None where it ended before it said anything."""
    lines = session.connect().stream("GET", path)
    with closing(lines):
        return next((line for line in lines if line.get("type") == "live"), None)
