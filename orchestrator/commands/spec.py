"""config, and the reading of sandbox.yaml for the commands that need it. It decides nothing of it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.commands.session import Session, add_command

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
        """,
    )
    parser.add_argument("--format", choices=("yaml", "json"), default="yaml", help="what to print it as (yaml)")
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing")
    parser.add_argument("--models", action="store_true", help="print only the names of the models")


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
    project = load(session)
    desired = _resolved(session, project, _automatic(project, needed=not (args.quiet or args.models)))
    if args.quiet:
        return 0
    if args.models:
        for name in desired.models:
            session.screen.line(name)
        return 0
    from orchestrator.spec import show

    if args.format == "json":
        session.screen.json(show.config_mapping(project, desired), indent=2)
    else:
        session.screen.line(show.render_config(project, desired).rstrip("\n"))
    return 0


def _automatic(project: Project, *, needed: bool) -> RuntimeKind:
    """What `runtime: auto` means on this machine; the engine is only asked where the answer shows."""
    choices = {model.runtime or project.spec.runtime for model in project.spec.models.values()}
    if not needed or "auto" not in choices:
        return "process"
    from orchestrator.image.engine import probe

    return "docker" if probe() is None else "process"
