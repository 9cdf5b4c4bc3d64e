"""up, down, reload: the commands that change what runs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from orchestrator import folders, supervision
from orchestrator.client import ControlClient, keeper_lives, not_running
from orchestrator.commands import attached, moment
from orchestrator.commands.session import Session, add_command
from orchestrator.errors import EXIT_FAILURE, EXIT_INTERRUPTED, SandboxError, near

if TYPE_CHECKING:
    from orchestrator.commands.session import Subparsers

Json = dict[str, Any]
# How long the keeper may take to clean up once control is done.
CLEANUP_DEADLINE = 15.0


def register(commands: Subparsers) -> None:
    up_parser = add_command(
        commands,
        "up",
        up,
        "start the models, or bring what runs in line with sandbox.yaml",
        """
        sandbox up                 start all, then show logs and reloads; Ctrl-C stops
        sandbox up -d              start all in the background; exit 1 if one failed
        sandbox up -d hello        only hello, and what it depends on
        sandbox up --dry-run       only say what it would do
        sandbox up -d --scale hello=3
        """,
    )
    up_parser.add_argument("models", nargs="*", metavar="MODEL", help="only these, and what they depend on")
    up_parser.add_argument("-d", "--detach", action="store_true", help="leave it in the background")
    up_parser.add_argument("--wait", action="store_true", help="as --detach, which waits until each is ready or failed")
    up_parser.add_argument(
        "--wait-timeout", type=seconds, metavar="SECONDS", help="with --detach or --wait: what is not ready then failed"
    )
    up_parser.add_argument("--remove-orphans", action="store_true", help="stop models that sandbox.yaml no longer has")
    builds = up_parser.add_mutually_exclusive_group()
    builds.add_argument("--build", action="store_true", help="make all environments first; start nothing if one fails")
    builds.add_argument("--no-build", action="store_true", help="start nothing if an environment is not there")
    up_parser.add_argument(
        "--force-recreate", action="store_true", help="give models that run new replicas, as restart does"
    )
    up_parser.add_argument(
        "--scale",
        type=_scale,
        action="append",
        default=[],
        metavar="MODEL=N",
        help="that many replicas, whatever sandbox.yaml says, until the next up; may be repeated",
    )
    up_parser.add_argument("--no-watch", action="store_true", help="act on no edit until the next up, or a reload")
    up_parser.add_argument(
        "--exit-code-from", metavar="MODEL", help="once this model ends, stop everything and exit as it did"
    )
    up_parser.add_argument("--dry-run", action="store_true", help="do nothing and show the plan")
    down_parser = add_command(
        commands,
        "down",
        down,
        "stop everything and remove what up made, but not data, builds or history",
        """
        sandbox down
        sandbox down -v            the history in .sandbox goes too
        sandbox down -t 0          without waiting for requests in flight
        sandbox down --rmi local   the images that were built for it go too
        """,
    )
    down_parser.add_argument(
        "-v", "--volumes", action="store_true", help="remove .sandbox too: generations, logs, history"
    )
    down_parser.add_argument("--rmi", choices=("local",), help="remove the images built for this sandbox, too")
    down_parser.add_argument(
        "-t",
        "--timeout",
        type=seconds,
        metavar="SECONDS",
        help="most time for requests in flight (as in sandbox.yaml)",
    )
    reload_parser = add_command(
        commands,
        "reload",
        reload,
        "load models again as a new generation, changed or not",
        """
        sandbox reload             all of them
        sandbox reload hello
        """,
    )
    reload_parser.add_argument("models", nargs="*", metavar="MODEL", help="only these")


def seconds(text: str) -> float:
    """A duration on the command line. Raises ValueError."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError(text)
    return value


def _scale(text: str) -> tuple[str, int]:
    """`hello=3`."""
    name, _, count = text.partition("=")
    if not name or not count.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not MODEL=N")
    return name, int(count)


def _check(args: argparse.Namespace, models: Sequence[str], *, detached: bool) -> None:
    """What the flags of `up` mean together. Raises SandboxError("usage" | "unknown-model")."""
    if args.exit_code_from is not None and detached:
        raise SandboxError("usage", "--exit-code-from waits for its model, so it cannot be detached")
    if args.wait_timeout is not None and not detached:
        raise SandboxError("usage", "--wait-timeout goes with --detach or --wait", hint="see: sandbox up --help")
    for name in [*(name for name, _ in args.scale), *([args.exit_code_from] if args.exit_code_from else ())]:
        if name not in models:
            hint = near(name, models) or f"there are: {', '.join(models) or 'none'}"
            raise SandboxError("unknown-model", f"no model {name} is to run", hint=hint)


def up(args: argparse.Namespace, session: Session) -> int:
    # The spec is read here first, so that a wrong one starts nothing; control reads it again and watches it.
    from orchestrator.commands.spec import read
    from orchestrator.scaffold import write_schema

    spec = read(session, args.models)
    detached = args.detach or args.wait
    _check(args, spec.models, detached=detached)
    if args.dry_run:
        from orchestrator.commands.inspect import show_plan

        show_plan(session, "text", args.models)
        return 0
    if (args.build or args.no_build) and not _furnished(args, session):
        return EXIT_FAILURE
    place = session.place()
    write_schema(session.spec_file())
    orders = {
        "project": place.directory,
        "file": session.spec_file(),
        "overrides": session.overrides(),
        "name": spec.name,
        "host": spec.host,
        "port": spec.port,
        "workers": spec.workers,
        "profiles": list(session.profiles_of()),
        "models": args.models,
    }
    names = args.models or spec.models
    request = {
        "models": args.models,
        "profiles": orders["profiles"],
        "remove_orphans": args.remove_orphans,
        "force_recreate": args.force_recreate,
        "scale": dict(args.scale),
        "watched": not args.no_watch,
        "wait_timeout": args.wait_timeout,
    }
    with attached.interruptible(not detached):
        try:
            began = moment.now()
            control, settled = _bring_up(session, place, orders, request, names)
            _say_where(session, control, settled["models"])
            if detached:
                return verdict(session, settled, spec.models)
            width = max(map(len, names), default=0)
            code = attached.watch(session.screen, place, began, settled["seen"], width, until=args.exit_code_from)
            if args.exit_code_from is not None and keeper_lives(place):
                _down(session, place, supervision.connect(place), None, volumes=False)
        except KeyboardInterrupt:
            if detached:
                message = "interrupted, while the sandbox goes on starting in the background"
                hint = "stop it: sandbox down; wait for it again: sandbox up -d"
                raise SandboxError("interrupted", message, hint=hint) from None
            return _interrupted(session, place)
    session.screen.line("the sandbox has ended")
    return code


def _furnished(args: argparse.Namespace, session: Session) -> bool:
    """Whether the environments are there, made now with `--build`; what is wrong was told."""
    from orchestrator.commands import images

    if args.build:
        return images.build(session, args.models) == 0
    missing = [row["name"] for row in images.found(session, args.models) if row["location"] is None]
    if missing:
        message = f"no environment was built yet for {', '.join(missing)}"
        session.screen.error(SandboxError("build", message, hint="sandbox build"))
    return not missing


def _bring_up(
    session: Session, place: folders.Folders, orders: Json, request: Json, names: Sequence[str]
) -> tuple[ControlClient, Json]:
    """Start what is missing. A sandbox that was started for this and is refused leaves nothing behind."""
    control, started = supervision.ensure(place, orders)
    try:
        if session.screen.interactive:  # a model answers as soon as it is ready, however long the others take
            session.screen.line(f"gateway: {control.get('/api/models')['sandbox']['url']}")
        return control, settle(session, control, "/api/up", request, names)
    except SandboxError:
        if started:
            for _ in _down_events(control, 0.0, volumes=False):
                pass
            supervision.ended(place, CLEANUP_DEADLINE)
        raise


def settle(session: Session, control: ControlClient, path: str, body: Json, names: Sequence[str]) -> Json:
    """Show events until all models have settled; control's last line, with the events that were shown as "seen"."""
    from orchestrator.live import progress

    seen: list[Json] = []
    with progress(session.screen, names) as shown, closing(control.stream("POST", path, body)) as lines:
        for line in lines:
            if line.get("type") == "event":
                seen.append(line)
                shown.show(line)
            elif line.get("type") == "settled":
                shown.settled([row for row in line["models"] if row["name"] in names])
                return {**line, "seen": seen}
    raise SandboxError("control", "the control process ended before everything had settled", hint="see: sandbox ps")


def verdict(session: Session, settled: Json, names: Sequence[str]) -> int:
    """names: those that were asked for, with what they depend on; the others' fate is not this command's."""
    failed = [name for name in settled.get("failed") or [] if name in names]
    if not failed:
        return 0
    rows = {row["name"]: row for row in settled["models"]}
    lines = "\n".join(f"{name}: {rows[name].get('reason') or rows[name]['state']}" for name in failed)
    references = {(rows[name].get("error") or {}).get("reference") for name in failed}
    # One reference for all that failed; where they failed for different reasons, the general one.
    reference = references.pop() if len(references) == 1 else None
    head = f"{failed[0]} is not ready:" if len(failed) == 1 else f"{len(failed)} models are not ready:"
    message = f"{head} {lines.partition(': ')[2]}" if len(failed) == 1 else f"{head}\n{lines}"
    hint = f"see: sandbox logs {' '.join(failed)}"
    session.screen.error(SandboxError(reference or "model-failed", message, hint=hint))
    return EXIT_FAILURE  # whatever the reference: the others run


def _say_where(session: Session, control: ControlClient, rows: Sequence[Json]) -> None:
    from orchestrator.commands.calls import example_call, own_key

    url = control.get("/api/models")["sandbox"]["url"]
    session.screen.line(f"\n{session.screen.style(url, 'bold')}")
    command = example_call(url, rows, own_key(session.place()))
    if command:
        session.screen.line(f"  {command}")
    session.screen.line()


def down(args: argparse.Namespace, session: Session) -> int:
    place = session.place()
    try:
        control = supervision.connect(place)
    except SandboxError as error:
        if error.reference != "not-running":
            raise
        return _nothing_runs(args, session, place)
    return _down(session, place, control, args.timeout, volumes=args.volumes, images=args.rmi is not None)


def _nothing_runs(args: argparse.Namespace, session: Session, place: folders.Folders) -> int:
    """As with Compose, `down` where nothing runs has nothing to complain of."""
    if args.volumes and os.path.isdir(place.project):
        folders.remove_tree(place.project)
        session.screen.line(f"removed {os.path.relpath(place.project)}")
    if args.rmi is not None:
        _remove_images(place)
    session.screen.note(not_running(place).message)
    return 0


def _remove_images(place: folders.Folders) -> None:
    """What control would have removed. Raises RuntimeFailure where an engine is there and refuses."""
    import asyncio

    from orchestrator.runtimes.docker import DockerRuntime

    async def remove() -> None:
        runtime = DockerRuntime(place.sandbox_id, place.directory, place.state, folders.cache_home())
        try:
            await runtime.remove_images()
        finally:
            await runtime.close()

    try:
        asyncio.run(remove())
    except SandboxError as error:
        if error.reference != "no-engine":  # then there are no images either
            raise


def _down(
    session: Session,
    place: folders.Folders,
    control: ControlClient,
    timeout: float | None,
    *,
    volumes: bool,
    images: bool = False,
) -> int:
    width = max((len(row["name"]) for row in control.get("/api/models")["models"]), default=0)
    for event in _down_events(control, timeout, volumes=volumes, images=images):
        session.screen.event(event, width)
    if not supervision.ended(place, CLEANUP_DEADLINE):
        raise SandboxError("control", "the sandbox did not end", hint="see: sandbox doctor")
    if volumes:
        folders.remove_tree(place.project)
    session.screen.line(f"{session.screen.mark('✔')} sandbox stopped")
    return 0


def _down_events(
    control: ControlClient, timeout: float | None, *, volumes: bool, images: bool = False
) -> Generator[Json, None, None]:
    body = {"timeout": timeout, "volumes": volumes, "images": images}
    with closing(control.stream("POST", "/api/down", body)) as lines:
        for line in lines:
            if line.get("type") == "done":
                return
            if line.get("type") == "event":
                yield line
    raise SandboxError("control", "the control process ended before everything was stopped", hint="again: sandbox down")


def _interrupted(session: Session, place: folders.Folders) -> int:
    """The first Ctrl-C: a `down`. The second: the same without waiting for anyone."""
    session.screen.note("stopping; Ctrl-C again stops at once")
    for timeout in (None, 0.0):
        try:
            _down(session, place, supervision.connect(place), timeout, volumes=False)
        except KeyboardInterrupt:
            continue
        except SandboxError as error:
            if error.reference != "not-running":
                raise
        break
    return EXIT_INTERRUPTED


def reload(args: argparse.Namespace, session: Session) -> int:
    control = session.connect()
    names = args.models or [row["name"] for row in control.get("/api/models")["models"]]
    settled = settle(session, control, "/api/reload", {"models": args.models}, names)
    return EXIT_FAILURE if settled.get("failed") else 0
