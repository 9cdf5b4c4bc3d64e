"""config, and the reading of sandbox.yaml for the commands that need it. It decides nothing of it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.commands.session import Session, add_command
from orchestrator.errors import SandboxError, near

if TYPE_CHECKING:
    from orchestrator.commands.session import Subparsers
    from orchestrator.plan.types import Desired, RuntimeKind
    from orchestrator.spec.load import Project


def register(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "config",
        config,
        "check sandbox.yaml and print it with every default and variable filled in",
        """
        sandbox config
        sandbox config -q          only check: exit 2 and say why if it is wrong
        sandbox config --models    the names, one per line
        sandbox config --variables         what the environment can set
        """,
    )
    parser.add_argument("--format", choices=("yaml", "json"), default="yaml", help="what to print it as (yaml)")
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--models", action="store_true", help="print only the names of the models")
    only.add_argument("--images", action="store_true", help="print only the names of the images that models run from")
    only.add_argument(
        "--hash", metavar="MODEL", help="print only the hash of what replicas of this model are born with, of all for *"
    )
    only.add_argument("--variables", action="store_true", help="print only the variables that the files use")
    only.add_argument(
        "--no-interpolate", action="store_true", help="print the merged files as they are written, variables unread"
    )


@dataclass(frozen=True, slots=True)
class Wanted:
    """What starting a sandbox needs to know of its file. models: those that are wanted, in file order."""

    name: str
    host: str
    port: int
    workers: int
    models: tuple[str, ...]


def read(session: Session, models: Sequence[str] = ()) -> Wanted:
    """Read and resolve sandbox.yaml, so that all that can be wrong with it is said now. Raises SpecError."""
    # Only what is wrong matters here; what `auto` means on this machine and which Python is there, control asks.
    desired = _resolved(session, load(session), "process", models)
    gateway = desired.gateway
    return Wanted(desired.name, gateway.host, gateway.port, gateway.workers, tuple(desired.models))


def load(session: Session) -> Project:
    """sandbox.yaml, valid in itself; what is worth a warning was told. Raises SpecError."""
    from orchestrator.spec import load as loading

    project = loading.load(session.spec_file(), session.environ, session.overrides())
    for warning in project.warnings:
        session.screen.note(f"warning: {warning}")
    return project


def _resolved(session: Session, project: Project, runtime: RuntimeKind, models: Sequence[str] = ()) -> Desired:
    from orchestrator.spec.resolve import resolve

    profiles = session.profiles_of()
    return resolve(project, profiles=profiles, models=models, runtime=runtime, interpreter=lambda _kind, python: python)


def config(args: argparse.Namespace, session: Session) -> int:
    if args.variables or args.no_interpolate:
        return _written(args, session)
    if args.images:
        return _images(args, session)
    project = load(session)
    desired = _resolved(session, project, _automatic(project, needed=not (args.quiet or args.models)))
    if args.quiet:
        return 0
    if args.models:
        for name in desired.models:
            session.screen.line(name)
        return 0
    if args.hash is not None:
        return _hashes(args.hash, desired, session)
    from orchestrator.spec import show

    if args.format == "json":
        session.screen.json(show.config_mapping(project, desired), indent=2)
    else:
        session.screen.line(show.render_config(project, desired).rstrip("\n"))
    return 0


def _written(args: argparse.Namespace, session: Session) -> int:
    """`--variables` and `--no-interpolate`."""
    import yaml

    from orchestrator.spec import load as loading

    tree, uses = loading.written(session.spec_file(), session.environ, session.overrides())
    if args.quiet:
        return 0
    if args.no_interpolate and args.format == "json":
        session.screen.json(tree, indent=2)
    elif args.no_interpolate:
        session.screen.line(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=120).rstrip("\n"))
    elif args.format == "json":
        rows = [{"name": u.name, "required": u.required, "default": u.default, "alternate": u.instead} for u in uses]
        session.screen.json(rows, indent=2)
    else:
        head = ("NAME", "REQUIRED", "DEFAULT VALUE", "ALTERNATE VALUE")
        session.screen.table(head, [(u.name, str(u.required).lower(), u.default, u.instead) for u in uses])
    return 0


def _images(args: argparse.Namespace, session: Session) -> int:
    import asyncio

    from orchestrator.environments import opened
    from orchestrator.image.build import tag

    async def look() -> list[str]:
        async with opened(session.place(), load(session), session.profiles_of(), ()) as needs:
            return [tag(each.lock_hash) for each in needs.desired.models.values() if each.runtime == "docker"]

    found = asyncio.run(look())
    for name in [] if args.quiet else dict.fromkeys(found):
        session.screen.line(name)
    return 0


def _hashes(wanted: str, desired: Desired, session: Session) -> int:
    names = list(desired.models) if wanted == "*" else wanted.split(",")
    for name in names:
        if name not in desired.models:
            hint = near(name, desired.models) or f"there are: {', '.join(desired.models) or 'none'}"
            raise SandboxError("unknown-model", f"no model named {name}", hint=hint)
    for name in names:
        session.screen.line(f"{name} {desired.models[name].replica_hash.partition(':')[2]}")
    return 0


def _automatic(project: Project, *, needed: bool) -> RuntimeKind:
    """What `runtime: auto` means on this machine; the engine is only asked where the answer shows."""
    choices = {model.runtime or project.spec.runtime for model in project.spec.models.values()}
    if not needed or "auto" not in choices:
        return "process"
    from orchestrator.image.engine import probe

    return "docker" if probe() is None else "process"
