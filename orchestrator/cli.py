"""The `sandbox` command: parse, call one function, turn its end into an exit code. It knows no command's work."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from orchestrator import __version__
from orchestrator.commands import calls, history, images, inside, inspect, lifecycle, logs, setup, spec, usage, verbs
from orchestrator.commands.session import Session
from orchestrator.errors import EXIT_FAILURE, EXIT_INTERRUPTED, SandboxError
from orchestrator.render import Screen

REPORT = "this is a fault of model-sandbox: run it again with --debug and report what it says"


class _Parser(argparse.ArgumentParser):
    """argparse, but a mistake is an error like any other."""

    def error(self, message: str) -> NoReturn:
        raise SandboxError("usage", message, hint=f"see: {self.prog} --help")


def build_parser() -> argparse.ArgumentParser:
    """Every command and option; docs/commands.md is compared with it."""
    parser = _Parser(
        prog="sandbox",
        description="docker compose for Python model directories, with honest hot reload.",
        epilog="examples:\n  sandbox init && sandbox new hello && sandbox up\n  sandbox predict hello text=hi\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "-f",
        "--file",
        action="append",
        default=[],
        metavar="FILE",
        help="the sandbox.yaml to use (found here or above); given again, a file to lay over it",
    )
    parser.add_argument("--project-directory", metavar="DIR", help="look for sandbox.yaml from there")
    parser.add_argument(
        "--profile", action="append", default=[], metavar="NAME", help="activate a profile too; may be repeated"
    )
    parser.add_argument(
        "--ansi", choices=("never", "always", "auto"), default="auto", help="colours and redrawing (auto)"
    )
    parser.add_argument("--debug", action="store_true", help="show a traceback with an error")
    parser.add_argument("--version", action="version", version=f"model-sandbox {__version__}")
    commands: argparse._SubParsersAction[argparse.ArgumentParser] = parser.add_subparsers(
        dest="command", metavar="COMMAND", parser_class=_Parser
    )
    for family in (lifecycle, verbs, images, inspect, usage, inside, history, logs, calls, spec):
        family.register(commands)
    setup.register(commands, build_parser)
    return parser


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run one command; its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    settings = os.environ if environ is None else environ
    screen = Screen("auto", settings)
    debug = "--debug" in words
    try:
        parser = build_parser()
        args = parser.parse_args(words)
        debug = args.debug
        screen = Screen(args.ansi, settings)
        if args.command is None:
            parser.print_help()
            return 0
        session = Session(
            screen=screen,
            environ=settings,
            files=tuple(args.file),
            project_directory=args.project_directory,
            profiles=tuple(args.profile),
        )
        code: int = args.run(args, session)
    except SandboxError as error:
        if debug:
            raise
        screen.error(error, log=getattr(error, "log", ()))
        return error.exit_code
    except KeyboardInterrupt:
        if debug:
            raise
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return _reader_left()
    except Exception as error:
        # The last line of defence: whatever it is, a person gets one line and a way to see more.
        if debug:
            raise
        screen.error(SandboxError("control", f"{type(error).__name__}: {error}", hint=REPORT))
        return EXIT_FAILURE
    return code


def _reader_left() -> int:
    """`sandbox logs | head`: the reader has seen enough. Python must not complain of it again while it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 128 + signal.SIGPIPE


if __name__ == "__main__":
    sys.exit(main())
