"""start, stop, restart, kill: single models of a sandbox that runs. What they do to them is control's business."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from orchestrator.commands.lifecycle import seconds, settle, verdict
from orchestrator.commands.session import Session, add_command

if TYPE_CHECKING:
    from orchestrator.commands.session import Subparsers


def register(commands: Subparsers) -> None:
    start_parser = add_command(
        commands,
        "start",
        start,
        "start models that were stopped, and those they depend on",
        """
        sandbox start              all that sandbox.yaml has
        sandbox start hello
        """,
    )
    start_parser.add_argument("models", nargs="*", metavar="MODEL", help="only these, and what they depend on")
    stop_parser = add_command(
        commands,
        "stop",
        stop,
        "stop models until they are started again; the gateway and the others run on",
        """
        sandbox stop hello
        sandbox stop -t 5 hello    after 5 s without the requests that still run
        """,
    )
    _models(stop_parser)
    _timeout(stop_parser)
    restart_parser = add_command(
        commands,
        "restart",
        restart,
        "give models new replicas; the old ones answer until the new ones do",
        """
        sandbox restart            all of them
        sandbox restart hello
        """,
    )
    _models(restart_parser)
    _timeout(restart_parser)
    kill_parser = add_command(
        commands,
        "kill",
        kill,
        "end models at once, requests in flight with them; they stay stopped until they are started",
        """
        sandbox kill hello
        """,
    )
    _models(kill_parser)


def _models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", nargs="*", metavar="MODEL", help="only these")


def _timeout(parser: argparse.ArgumentParser) -> None:
    explained = "most time for requests in flight (as in sandbox.yaml)"
    parser.add_argument("-t", "--timeout", type=seconds, metavar="SECONDS", help=explained)


def start(args: argparse.Namespace, session: Session) -> int:
    return _asked(args, session, "start")


def stop(args: argparse.Namespace, session: Session) -> int:
    return _asked(args, session, "stop", timeout=args.timeout)


def restart(args: argparse.Namespace, session: Session) -> int:
    return _asked(args, session, "restart", timeout=args.timeout)


def kill(args: argparse.Namespace, session: Session) -> int:
    return _asked(args, session, "kill")


def _asked(args: argparse.Namespace, session: Session, verb: str, **more: float | None) -> int:
    control = session.connect()
    names = args.models or [row["name"] for row in control.get("/api/models")["models"]]
    settled = settle(session, control, f"/api/{verb}", {"models": args.models, **more}, names)
    return verdict(session, settled, [row["name"] for row in settled["models"]])
