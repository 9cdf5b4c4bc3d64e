"""Starting a keeper, and seeing to it that a sandbox that runs has one. It knows processes, no spec and no models."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

from orchestrator import client, folders
from orchestrator.errors import SandboxError

# From a keeper's start to the first answer of control: it imports and opens its store meanwhile.
START_DEADLINE = 20.0
# How long a `down` that is under way elsewhere may keep us waiting.
LOCK_DEADLINE = 30.0
RETRY_INTERVAL = 0.05


def ensure(place: folders.Folders, orders: dict[str, Any]) -> tuple[client.ControlClient, bool]:
    """A client of the living sandbox, and whether it was started for that, by `orders`. Safe against another `up`."""
    deadline = time.monotonic() + LOCK_DEADLINE
    wanted = int(orders.get("port") or 0)
    port = wanted or _former_port(place)
    while not client.keeper_lives(place):
        answer = start_keeper(place, {**orders, "port": port})
        if "error" not in answer:
            return _answering(place, started=int(answer["pid"])), True
        error = client.error_from(answer["error"])
        if error.reference == "port-in-use" and port != wanted:
            port = wanted
            continue
        if error.reference != "locked" or time.monotonic() >= deadline:
            raise error
        time.sleep(RETRY_INTERVAL)  # another `up` is a moment ahead, or a `down` is ending
    return _answering(place, started=None), False


def connect(place: folders.Folders) -> client.ControlClient:
    """A client of the sandbox that runs here. One whose keeper died gets a new one; nothing of it is restarted.

    Raises SandboxError("not-running").
    """
    record = folders.read_json(place.keeper_record)
    if record is None or record.get("boot_id") != folders.boot_id() or "orders" not in record:
        raise client.not_running(place)
    if folders.living(record):
        return client.ControlClient(place)
    found, _ = ensure(place, {**record["orders"], "port": record["port"]})
    return found


def _former_port(place: folders.Folders) -> int:
    """The port of a sandbox that runs on without a keeper: port 0 gave some port, and whoever calls knows that one."""
    record = folders.read_json(place.keeper_record) or {}
    return int(record.get("port") or 0) if record.get("boot_id") == folders.boot_id() else 0


def start_keeper(place: folders.Folders, orders: dict[str, Any]) -> dict[str, Any]:
    """Start one in a session of its own; its one line of answer."""
    try:
        keeper = _spawn(place)
    except OSError as error:
        reference = "disk-full" if error.errno in {errno.ENOSPC, errno.EDQUOT} else "start"
        message = f"the sandbox cannot write to {error.filename}: {error.strerror}"
        raise SandboxError(
            reference, message, hint="sandbox doctor says where it writes, and how much is free"
        ) from error
    written = _exchange(keeper, json.dumps(orders).encode())
    try:
        answer = json.loads(written)
    except ValueError:
        answer = {}
    if not isinstance(answer, dict) or not answer:
        path = os.path.join(place.logs, "keeper.log")
        message = f"the keeper did not start: {client.last_line(path)}"
        raise SandboxError("start", message, hint=f"its log: {os.path.relpath(path)}")
    return answer


def _spawn(place: folders.Folders) -> subprocess.Popen[bytes]:
    folders.private(folders.state_home())
    folders.project_folder(place.project)
    with suppress(FileNotFoundError):  # of a sandbox that was killed
        os.unlink(os.path.join(place.state, folders.REFUSAL))
    with open(os.path.join(place.logs, "keeper.log"), "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "orchestrator.keeper", place.state],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )


def _exchange(keeper: subprocess.Popen[bytes], orders: bytes) -> bytes:
    assert keeper.stdin is not None  # noqa: S101 - both are pipes, for the type checker
    assert keeper.stdout is not None  # noqa: S101
    with keeper.stdout as stdout:
        with keeper.stdin as stdin, suppress(BrokenPipeError):
            stdin.write(orders)
        written = stdout.readline()
    # It is to outlive us, so nothing here waits for it; Popen warns of children that still run.
    keeper.returncode = 0
    return written


def _answering(place: folders.Folders, started: int | None) -> client.ControlClient:
    """Wait until control answers. started: the keeper to end again where it never does, to leave nothing behind."""
    found = client.ControlClient(place)
    deadline = time.monotonic() + START_DEADLINE
    while True:
        try:
            if started is not None:
                _not_refused(place, deadline)
            found.get("/api/models")
        except SandboxError as error:
            if error.reference == "control" and time.monotonic() < deadline:
                time.sleep(RETRY_INTERVAL)
                continue
            if started is not None:
                for _ in range(2):  # the second signal: at once
                    with suppress(ProcessLookupError):
                        os.kill(started, signal.SIGTERM)
            raise
        return found


def _not_refused(place: folders.Folders, deadline: float) -> None:
    """Wait for control's socket. Raises what control gave as its reason where it refuses to start."""
    while not os.path.exists(place.control_socket) and time.monotonic() < deadline:
        if refused := folders.read_json(os.path.join(place.state, folders.REFUSAL)):
            raise client.error_from(refused["error"])
        time.sleep(RETRY_INTERVAL)


def ended(place: folders.Folders, deadline: float) -> bool:
    """Wait up to `deadline` seconds until the keeper has cleaned up and gone."""
    until = time.monotonic() + deadline
    while client.keeper_lives(place) or os.path.exists(place.keeper_record):
        if time.monotonic() >= until:
            return False
        time.sleep(RETRY_INTERVAL)
    return True
