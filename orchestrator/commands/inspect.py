"""ps, ls, plan, events, port: what is, what would change, what happened. Nothing here changes anything."""

from __future__ import annotations

import argparse
import os
import urllib.parse
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from orchestrator import folders, render
from orchestrator.client import error_from, target
from orchestrator.commands import attached, moment
from orchestrator.commands.session import Session, add_command
from orchestrator.errors import EXIT_CHANGES, SandboxError, near
from orchestrator.plan.lifecycle import STATES

if TYPE_CHECKING:
    from orchestrator.commands.session import Subparsers

Json = dict[str, Any]
FORMATS = ("table", "json", "json-array")


def register(commands: Subparsers) -> None:
    ps_parser = add_command(
        commands,
        "ps",
        ps,
        "list the models: state, generation, replicas, and what is wrong",
        """
        sandbox ps
        sandbox ps --status failed --status degraded -q
        sandbox ps --format json | jq -r 'select(.state != "running") | .name'
        """,
    )
    ps_parser.add_argument("models", nargs="*", metavar="MODEL", help="only these")
    ps_parser.add_argument("--status", action="append", default=[], choices=STATES, help="only those in this state")
    ps_parser.add_argument(
        "--filter", type=_filter, action="append", default=[], metavar="status=STATE", help="as --status"
    )
    _format(ps_parser)
    port_parser = add_command(
        commands,
        "port",
        port,
        "print the address at which the gateway, and so every model, is reached",
        """
        sandbox port
        curl "http://$(sandbox port)/ready"
        """,
    )
    port_parser.add_argument("model", nargs="?", metavar="MODEL", help="fail where it is no model that runs here")
    ls_parser = add_command(
        commands,
        "ls",
        ls,
        "list this user's sandboxes that run, in all projects",
        """
        sandbox ls
        sandbox ls -q              only their ids
        """,
    )
    _format(ls_parser)
    plan_parser = add_command(
        commands,
        "plan",
        plan,
        "show what up would do, and why",
        """
        sandbox plan
        sandbox plan --exit-code   exit 3 if something would change
        """,
    )
    plan_parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="json: an object per line (text)"
    )
    plan_parser.add_argument("--exit-code", action="store_true", help="exit 3 where something would change")
    events_parser = add_command(
        commands,
        "events",
        events,
        "show what happened: builds, loads, reloads, failures",
        """
        sandbox events
        sandbox events -f --json hello
        sandbox events --since 10m
        """,
    )
    events_parser.add_argument("models", nargs="*", metavar="MODEL", help="only these")
    events_parser.add_argument("-f", "--follow", action="store_true", help="go on as they happen")
    events_parser.add_argument(
        "--since", type=moment.since, metavar="TIME", help="a moment (ISO 8601) or an age (10m, 2h)"
    )
    events_parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="json: an object per line (text)"
    )
    events_parser.add_argument("--json", dest="format", action="store_const", const="json", help="as --format json")


def _filter(text: str) -> str:
    """The one filter there is, as Compose writes it: `status=running`."""
    key, _, value = text.partition("=")
    if key != "status" or value not in STATES:
        raise argparse.ArgumentTypeError(f"{text!r} is not status= with one of {', '.join(STATES)}")
    return value


def _format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=FORMATS, default="table", help="json: an object per line (table)")
    parser.add_argument("-q", "--quiet", action="store_true", help="print only the names")


def ps(args: argparse.Namespace, session: Session) -> int:
    found = session.connect().get("/api/models")
    rows = select(found["models"], args.models)
    if wanted := {*args.status, *args.filter}:
        rows = [row for row in rows if row["state"] in wanted]
    if args.quiet:
        for row in rows:
            session.screen.line(row["name"])
    elif args.format == "table":
        session.screen.models(rows)
        _warn(session, found["sandbox"])
    else:
        print_json(session, args.format, [render.row_json(row) for row in rows])
    return 0


def port(args: argparse.Namespace, session: Session) -> int:
    found = session.connect().get("/api/models")
    select(found["models"], [args.model] if args.model else [])
    session.screen.line(urllib.parse.urlsplit(found["sandbox"]["url"]).netloc)
    return 0


def _warn(session: Session, sandbox: Json) -> None:
    """What concerns no single model."""
    if not sandbox.get("gateway"):
        session.screen.note("warning: no gateway is connected right now; it is being restarted")
    if orphans := sandbox.get("orphans"):
        session.screen.note(f"warning: no longer in sandbox.yaml: {', '.join(orphans)}; sandbox up --remove-orphans")
    if found := sandbox.get("spec_error"):
        session.screen.note(f"warning: sandbox.yaml is wrong, and what it was goes on: {error_from(found)}")


def select(rows: list[Json], names: list[str]) -> list[Json]:
    """The rows of these models (none named: all). Raises SandboxError("unknown-model")."""
    known = [row["name"] for row in rows]
    for name in names:
        if name not in known:
            hint = near(name, known) or f"there are: {', '.join(known) or 'none'}"
            raise SandboxError("unknown-model", f"no model {name} runs here", hint=hint)
    return [row for row in rows if not names or row["name"] in names]


def print_json(session: Session, form: str, rows: list[Json]) -> None:
    """Rows as `--format json` or `json-array` wants them."""
    if form == "json-array":
        session.screen.json(rows)
    else:
        for row in rows:
            session.screen.json(row)


def ls(args: argparse.Namespace, session: Session) -> int:
    rows = registered()
    if args.quiet:
        for row in rows:
            session.screen.line(row["id"])
    elif args.format == "table":
        cells = [(row["name"], row["id"], row["url"], row["directory"], row["status"]) for row in rows]
        session.screen.table(("NAME", "ID", "URL", "DIRECTORY", "STATUS"), cells)
    else:
        print_json(session, args.format, rows)
    return 0


def registered() -> list[Json]:
    """Every sandbox of this user since the machine started, ended ones excepted. status: running or unsupervised."""
    folder = folders.registry_folder()
    found = []
    for file in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        entry = folders.read_json(os.path.join(folder, file))
        if entry is None or entry.get("boot_id") != folders.boot_id():
            continue
        status = "running" if folders.living(entry.get("keeper")) else "unsupervised"
        keys = ("id", "name", "directory")
        found.append(
            {**{key: entry.get(key) for key in keys}, "url": url(entry["host"], entry["port"]), "status": status}
        )
    return sorted(found, key=lambda row: str(row["name"]))


def url(host: str, port: int) -> str:
    """Where a browser on this machine finds a listener."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - read, not bound
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


def plan(args: argparse.Namespace, session: Session) -> int:
    actions = show_plan(session, args.format)
    changes = any(action["verb"] != "none" for action in actions)  # "none": an edit of which nothing will come
    return EXIT_CHANGES if changes and args.exit_code else 0


def show_plan(session: Session, form: str, models: Sequence[str] = ()) -> list[Json]:
    """What `up` of these models (none named: all) would do; as it is shown."""
    actions = [each for each in _planned(session, models) if not models or each.get("model") in {None, *models}]
    if form == "json":
        for action in actions:
            session.screen.json(action)
    elif not actions:
        session.screen.line("nothing to do: what runs is what sandbox.yaml says")
    else:
        width = max(len(str(action.get("model") or "sandbox")) for action in actions)
        for action in actions:
            session.screen.action(action, width)
    return actions


def _planned(session: Session, models: Sequence[str]) -> list[Json]:
    from orchestrator.commands.spec import read

    wanted = read(session, models)
    try:
        actions: list[Json] = session.connect().get("/api/plan")["actions"]
    except SandboxError as error:
        if error.reference != "not-running":
            raise
        cause = "no sandbox runs here"
        return [{"model": name, "verb": "start", "detail": "", "cause": cause} for name in wanted.models]
    return actions


def events(args: argparse.Namespace, session: Session) -> int:
    place = session.place()
    query = {"models": ",".join(args.models), "since": args.since}
    control = session.connect()
    if args.follow:
        source = attached.follow(place, "/api/events", query)
    else:
        source = control.stream("GET", target("/api/events", query))
    width = 0
    with closing(source) as lines:
        for event in lines:
            if args.format == "json":
                session.screen.json(event)
            else:
                width = max(width, len(event.get("model") or "sandbox"))
                session.screen.event(event, width, when=True)
    return 0
