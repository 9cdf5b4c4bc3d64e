"""init, new, doctor, version, completion: the commands that need no running sandbox."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from orchestrator import __version__
from orchestrator.commands.session import Session, add_command
from orchestrator.errors import EXIT_FAILURE

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.commands.session import Subparsers


def register(commands: Subparsers, parser: Callable[[], argparse.ArgumentParser]) -> None:
    doctor_parser = add_command(
        commands,
        "doctor",
        doctor,
        "check this machine and this project; exit 1 on any problem",
        """
        sandbox doctor
        sandbox doctor --format json
        """,
    )
    doctor_parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="json: an object per line (text)"
    )
    init_parser = add_command(
        commands,
        "init",
        init,
        "write a commented sandbox.yaml",
        """
        sandbox init
        sandbox init my-project
        """,
    )
    init_parser.add_argument("directory", nargs="?", default=".", metavar="DIR", help="where (here)")
    new_parser = add_command(
        commands,
        "new",
        new,
        "write a model directory that works, and add it to sandbox.yaml",
        """
        sandbox new greeter
        """,
    )
    new_parser.add_argument("name", metavar="NAME", help="lower-case letters, digits, - and _")
    add_command(
        commands,
        "schema",
        schema,
        "print the JSON schema of sandbox.yaml, for editors",
        """
        sandbox schema > sandbox.schema.json
        """,
    )
    add_command(commands, "version", version, "print the version", "sandbox version")
    completion_parser = add_command(
        commands,
        "completion",
        lambda args, session: completion(args, session, parser()),
        "print the completion script of a shell",
        """
        eval "$(sandbox completion bash)"
        sandbox completion zsh > "${fpath[1]}/_sandbox"
        """,
    )
    completion_parser.add_argument("shell", choices=("bash", "zsh"), help="which shell")


def doctor(args: argparse.Namespace, session: Session) -> int:
    from orchestrator import doctor as checks

    found = checks.examine(session.files, session.project_directory, session.environ)
    for check in found:
        if args.format == "json":
            session.screen.json(check.as_json())
        else:
            mark = {"ok": "✔", "problem": "✖", "note": "•"}[check.verdict]
            session.screen.line(f"{session.screen.mark(mark)} {check.name}: {check.message}")
            if check.hint:
                session.screen.line(f"    {check.hint}")
    return EXIT_FAILURE if any(check.verdict == "problem" for check in found) else 0


def init(args: argparse.Namespace, session: Session) -> int:
    from orchestrator import scaffold

    path = scaffold.init(args.directory)
    session.screen.line(f"wrote {os.path.relpath(path)}")
    session.screen.line("next: sandbox new NAME, then sandbox up")
    return 0


def new(args: argparse.Namespace, session: Session) -> int:
    from orchestrator import scaffold

    spec_file = session.spec_file()
    relative, added = scaffold.new(args.name, spec_file)
    folder = os.path.relpath(os.path.join(os.path.dirname(spec_file), relative))
    session.screen.line(f"wrote {folder}/ with {', '.join(scaffold.MODEL_FILES)}")
    if added:
        session.screen.line(f"added to {os.path.relpath(spec_file)}")
    else:
        session.screen.line(f"add it under models: in {os.path.relpath(spec_file)}:\n  {args.name}: {relative}")
    session.screen.line("next: sandbox up")
    return 0


def schema(_args: argparse.Namespace, session: Session) -> int:
    from orchestrator.spec import editor

    session.screen.line(editor.text().rstrip("\n"))
    return 0


def version(_args: argparse.Namespace, session: Session) -> int:
    session.screen.line(f"model-sandbox {__version__}, Python {sys.version.split()[0]}")
    return 0


def completion(args: argparse.Namespace, session: Session, parser: argparse.ArgumentParser) -> int:
    from orchestrator.completion import script

    session.screen.line(script(parser, args.shell).rstrip("\n"))
    return 0
