"""What every command is given: where the project is, how to reach its sandbox, and the screen. It renders nothing."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator import folders, supervision
from orchestrator.client import ControlClient
from orchestrator.errors import SandboxError
from orchestrator.render import Screen

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - its only name


@dataclass(frozen=True, slots=True)
class Session:
    """The global options, resolved late: `version` and `init` need no project."""

    screen: Screen
    environ: Mapping[str, str]
    files: tuple[str, ...] = ()
    project_directory: str | None = None
    profiles: tuple[str, ...] = ()

    def spec_file(self) -> str:
        """The sandbox.yaml that is meant, the first of several. Raises SandboxError("no-spec")."""
        for file in self.files:
            if not os.path.isfile(file):
                raise SandboxError("no-spec", f"there is no file {file}", hint="check -f/--file")
        if self.files:
            return os.path.abspath(self.files[0])
        start = self.project_directory or os.getcwd()
        found = folders.find_spec(start)
        if found is None:
            message = f"there is no sandbox.yaml in {os.path.abspath(start)} or above it"
            raise SandboxError("no-spec", message, hint="write one with: sandbox init")
        return found

    def overrides(self) -> list[str] | None:
        """The files to lay over it; None: its own sandbox.override.yaml, as nothing else was asked for."""
        return [os.path.abspath(file) for file in self.files[1:]] if self.files else None

    def place(self) -> folders.Folders:
        """The folders of the project, which is where its file is."""
        return folders.Folders(os.path.dirname(self.spec_file()))

    def connect(self) -> ControlClient:
        """A client of the running sandbox. Raises SandboxError("not-running")."""
        return supervision.connect(self.place())

    def profiles_of(self) -> tuple[str, ...]:
        """`--profile`, else SANDBOX_PROFILES (comma separated), as Compose does with its own."""
        if self.profiles:
            return self.profiles
        return tuple(name.strip() for name in self.environ.get("SANDBOX_PROFILES", "").split(",") if name.strip())


Run = Callable[[argparse.Namespace, Session], int]


def add_command(
    commands: Subparsers, name: str, run: Run, summary: str, examples: str, **more: Any
) -> argparse.ArgumentParser:
    """Declare one command; its help ends with examples, one per line."""
    lines = "".join(f"  {line.strip()}\n" for line in examples.strip().splitlines())
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"examples:\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        **more,
    )
    parser.set_defaults(run=run)
    return parser
