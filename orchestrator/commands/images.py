"""build, pull, images: environments, before anything runs. How one is made is the runtimes' business."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.commands.inspect import FORMATS, print_json
from orchestrator.commands.session import Session, add_command
from orchestrator.errors import EXIT_FAILURE, BuildError, SandboxError

if TYPE_CHECKING:
    from orchestrator.commands.session import Subparsers
    from orchestrator.ports import Progress

Json = dict[str, Any]


def register(commands: Subparsers) -> None:
    build_parser = add_command(
        commands,
        "build",
        lambda args, session: build(session, args.models),
        "make the environments that models need, and start nothing",
        """
        sandbox build
        sandbox build hello
        """,
    )
    pull_parser = add_command(
        commands,
        "pull",
        pull,
        "get the base images that are not there yet",
        """
        sandbox pull
        """,
    )
    images_parser = add_command(
        commands,
        "images",
        images,
        "list the environment of each model: an image, or a folder",
        """
        sandbox images
        sandbox images -q hello
        """,
    )
    for parser in (build_parser, pull_parser, images_parser):
        parser.add_argument("models", nargs="*", metavar="MODEL", help="only these, and what they depend on")
    images_parser.add_argument("--format", choices=FORMATS, default="table", help="json: an object per line (table)")
    images_parser.add_argument("-q", "--quiet", action="store_true", help="print only where they are")


def build(session: Session, models: Sequence[str]) -> int:
    """Make what is missing; 1 where one could not be made, and its installer's words."""
    from orchestrator.commands.spec import load
    from orchestrator.environments import opened

    def told(model: str, progress: Progress) -> None:
        session.screen.event({"event": "progress", "model": model, "message": progress.message})

    async def make() -> int:
        async with opened(session.place(), load(session), session.profiles_of(), models) as needs:
            failed = 0
            for model, made in await needs.make(told):
                if isinstance(made, SandboxError):
                    session.screen.error(made, log=made.log if isinstance(made, BuildError) else ())
                    failed += 1
                else:
                    message = f"environment {model.lock_hash[:12]}, Python {made.python}"
                    session.screen.event({"event": "ready", "model": model.name, "message": message})
            return EXIT_FAILURE if failed else 0

    return asyncio.run(make())


def pull(args: argparse.Namespace, session: Session) -> int:
    from orchestrator.commands.spec import load
    from orchestrator.environments import opened

    async def get() -> list[str]:
        async with opened(session.place(), load(session), session.profiles_of(), args.models) as needs:
            return await needs.pull()

    names = asyncio.run(get())
    for name in names:
        session.screen.event({"event": "ready", "model": name, "message": "base image there"})
    if not names:
        session.screen.note("nothing to pull: no model runs in a container")
    return 0


def images(args: argparse.Namespace, session: Session) -> int:
    rows = found(session, args.models)
    if args.quiet:
        for row in rows:
            if row["location"]:
                session.screen.line(row["location"])
    elif args.format == "table":
        head = ("NAME", "RUNTIME", "ENVIRONMENT", "PYTHON", "LOCATION")
        cells = [
            (row["name"], row["runtime"], row["lock"][:12], row["python"] or "-", row["location"] or "not built")
            for row in rows
        ]
        session.screen.table(head, cells)
    else:
        print_json(session, args.format, rows)
    return 0


def found(session: Session, models: Sequence[str]) -> list[Json]:
    """A row for each model. location: an image's id or a folder, null where it was not made yet."""
    from orchestrator.commands.spec import load
    from orchestrator.environments import opened

    async def look() -> list[Json]:
        async with opened(session.place(), load(session), session.profiles_of(), models) as needs:
            return [
                {
                    "name": model.name,
                    "runtime": model.runtime,
                    "lock": model.lock_hash,
                    "python": there.python if there is not None else None,
                    "location": there.location if there is not None else None,
                }
                for model, there in await needs.find()
            ]

    return asyncio.run(look())
