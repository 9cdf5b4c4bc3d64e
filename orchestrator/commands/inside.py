"""exec: a command inside a replica that runs. This process becomes it: terminal, signals and exit code are its own."""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.commands.inspect import select
from orchestrator.commands.session import Session, add_command
from orchestrator.errors import RuntimeFailure, SandboxError

if TYPE_CHECKING:
    from orchestrator.commands.session import Subparsers

Json = dict[str, Any]
# What a replica of the process runtime may have of its own, and what nsenter calls it.
SPACES = {"mnt": "--mount", "net": "--net", "ipc": "--ipc"}
_NO_NEW_PRIVS = 38  # linux/prctl.h
CGROUPS = "/sys/fs/cgroup"


def register(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "exec",
        run,
        "run a command inside a replica of a model",
        """
        sandbox exec hello python -c 'import sys; print(sys.version)'
        sandbox exec --index 2 -e DEBUG=1 hello sh
        """,
    )
    parser.add_argument("-T", "--no-tty", action="store_true", help="allocate no terminal, even where there is one")
    parser.add_argument(
        "-e", "--env", type=_variable, action="append", default=[], metavar="NAME=VALUE", help="set a variable"
    )
    parser.add_argument("-w", "--workdir", metavar="DIR", help="run it there (/tmp)")
    parser.add_argument("--index", type=_index, default=1, metavar="N", help="in which replica, from 1 on (1)")
    parser.add_argument("model", metavar="MODEL", help="the model")
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND", help="the command and its arguments")


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _index(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def run(args: argparse.Namespace, session: Session) -> int:
    if not args.words:
        raise SandboxError("usage", "no command was given", hint="see: sandbox exec --help")
    [row] = select(session.connect().get("/api/models")["models"], [args.model])
    if row["runtime"] == "docker":
        program, command, variables = _in_container(args, row, session)
    else:
        program, command, variables = _in_namespaces(args, row)
    os.execve(program, command, variables)  # noqa: S606 - it is what was asked for


def _replica(args: argparse.Namespace, found: Sequence[Any]) -> Any:
    if args.index > len(found):
        message = f"{args.model} has {len(found)} replicas that run, and no number {args.index}"
        raise SandboxError("not-live", message, hint="see: sandbox ps")
    return found[args.index - 1]


def _in_container(args: argparse.Namespace, row: Json, session: Session) -> tuple[str, list[str], Mapping[str, str]]:
    container = _replica(args, row.get("containers") or ())
    program = shutil.which("docker", path=session.environ.get("PATH"))
    if program is None:
        raise SandboxError("no-engine", "exec needs the docker command, and there is none here", hint="install it")
    from orchestrator.image.engine import find_socket

    terminal = not args.no_tty and os.isatty(0) and os.isatty(1)
    flags = ["--interactive", *(["--tty"] if terminal else []), *(["--workdir", args.workdir] if args.workdir else [])]
    flags += [word for name, value in args.env for word in ("--env", f"{name}={value}")]
    command = ["docker", "--host", f"unix://{find_socket()}", "exec", *flags, container, *args.words]
    return program, command, session.environ


def _in_namespaces(args: argparse.Namespace, row: Json) -> tuple[str, list[str], Mapping[str, str]]:
    """Behind an agent's walls: its root, network, cgroup, user and variables. Raises where there are none to enter."""
    agent = _replica(args, row["pids"]["agent"])
    program = shutil.which("nsenter")
    own = [name for name in SPACES if os.readlink(f"/proc/{agent}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}")]
    if os.geteuid() != 0 or "mnt" not in own or program is None:
        why = (
            "nsenter is not installed"
            if program is None
            else "only root can enter its namespaces"
            if os.geteuid()
            else "it has no root of its own on this machine"
        )
        raise RuntimeFailure("isolation", f"exec cannot go where {args.model} runs: {why}", hint="runtime: docker can")
    with open(f"/proc/{agent}/environ", "rb") as file:
        pairs = (item.decode(errors="surrogateescape").partition("=") for item in file.read().split(b"\0") if item)
        variables = {name: value for name, _, value in pairs} | dict(args.env)
    with open(f"/proc/{agent}/status", encoding="ascii", errors="replace") as file:
        fields = dict(line.split(":", 1) for line in file if ":" in line)
    _join(agent)
    ctypes.CDLL(None).prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    users = ["--setuid", fields["Uid"].split()[0], "--setgid", fields["Gid"].split()[0]]
    # By its shell, so that the program is looked for on its PATH; /tmp is its own, as in a container.
    shell = ["/bin/sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", args.workdir or "/tmp", *args.words]  # noqa: S108
    return program, ["nsenter", f"--target={agent}", *(SPACES[name] for name in own), *users, *shell], variables


def _join(agent: int) -> None:
    """Enter the agent's cgroups: its limits hold, and nothing outlives it. Raises RuntimeFailure("isolation")."""
    with open(f"/proc/{agent}/cgroup", encoding="utf-8") as file:
        lines = [line.rstrip("\n").split(":", 2) for line in file]
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        ours = file.read().splitlines()
    for number, controllers, path in lines:
        if f"{number}:{controllers}:{path}" in ours:
            continue
        folders = [controllers.removeprefix("name=")] if controllers else ["", "unified"]
        files = [os.path.join(CGROUPS, folder, path.lstrip("/"), "cgroup.procs") for folder in folders]
        found = next((file for file in files if os.path.exists(file)), None)
        try:
            with open(found or files[0], "w", encoding="ascii") as procs:
                procs.write(str(os.getpid()))
        except OSError as error:
            message = f"exec cannot enter the model's cgroup: {error.strerror}"
            raise RuntimeFailure("isolation", message, hint="runtime: docker can") from error
