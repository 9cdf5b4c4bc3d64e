"""Where a sandbox's files live, how they are written, and whether a recorded process still is the one it was.

It knows no process of ours and starts none. Standard library, and little of that: the keeper lives on it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `typing` itself is cheap here, what uses it at run time is not
    from typing import Any

APPLICATION = "model-sandbox"
SPEC_NAME = "sandbox.yaml"
# In the state folder: why control refuses to start, for the `up` that waits for it.
REFUSAL = "refused.json"
# In the state folder: what control decided for this sandbox's life, so that a control that comes back decides the same.
DECISIONS = "decisions.json"
# In the state folder: what the gateways are told, and the key of the user's own commands.
POLICY = "policy.json"
# What `connect` and `bind` take in sun_path, less the closing NUL.
LONGEST_ADDRESS = 107


def state_home() -> str:
    """`$XDG_STATE_HOME/model-sandbox`: sockets, records of processes, the registry."""
    return os.path.join(_base("XDG_STATE_HOME", ".local/state"), APPLICATION)


def cache_home() -> str:
    """`$XDG_CACHE_HOME/model-sandbox`: environments and guests, shared by all sandboxes of the user."""
    return os.path.join(_base("XDG_CACHE_HOME", ".cache"), APPLICATION)


def registry_folder() -> str:
    """One JSON file per sandbox that has a keeper: what `sandbox ls` reads."""
    return os.path.join(state_home(), "registry")


def sandbox_id(directory: str) -> str:
    """12 hex of the project folder's real path, so that two projects of one name never meet."""
    import hashlib  # noqa: PLC0415 - with OpenSSL, two megabytes that the keeper does without

    return hashlib.sha256(os.fsencode(os.path.realpath(directory))).hexdigest()[:12]


def _base(variable: str, default: str) -> str:
    # The XDG specification: a relative path is invalid and must be ignored.
    value = os.environ.get(variable, "")
    return value if os.path.isabs(value) else os.path.join(os.path.expanduser("~"), default)


class Folders:
    """Every path of one sandbox, absolute. A plain class: dataclasses would cost the keeper a megabyte."""

    __slots__ = ("directory", "sandbox_id", "state")

    def __init__(self, directory: str) -> None:
        self.directory = os.path.realpath(directory)
        self.sandbox_id = sandbox_id(self.directory)
        self.state = os.path.join(state_home(), self.sandbox_id)

    @property
    def project(self) -> str:
        """`.sandbox/` beside sandbox.yaml: store, logs, generations."""
        return os.path.join(self.directory, ".sandbox")

    @property
    def logs(self) -> str:
        return os.path.join(self.project, "logs")

    @property
    def control_socket(self) -> str:
        return os.path.join(self.state, "control.sock")

    @property
    def keeper_lock(self) -> str:
        return os.path.join(self.state, "keeper.lock")

    @property
    def keeper_record(self) -> str:
        return os.path.join(self.state, "keeper.json")


def find_spec(start: str) -> str | None:
    """The nearest sandbox.yaml in `start` or above it, or None."""
    folder = os.path.realpath(start)
    while True:
        path = os.path.join(folder, SPEC_NAME)
        if os.path.isfile(path):
            return path
        above = os.path.dirname(folder)
        if above == folder:
            return None
        folder = above


def private(path: str) -> str:
    """Make `path` (and what is missing above it) a folder that only this user may enter; return it."""
    os.makedirs(path, mode=0o700, exist_ok=True)
    os.chmod(path, 0o700)
    return path


def project_folder(path: str) -> str:
    """Make `.sandbox/` with the .gitignore that keeps it out of everyone's commits; return it."""
    os.makedirs(os.path.join(path, "logs"), exist_ok=True)
    ignore = os.path.join(path, ".gitignore")
    if not os.path.exists(ignore):
        with open(ignore, "w", encoding="utf-8") as file:
            file.write("*\n")
    return path


def remove_tree(path: str) -> None:
    """Remove a folder of ours; snapshots in it are read-only, so each folder is opened for writing first."""
    import shutil  # noqa: PLC0415 - likewise

    for folder, _, _ in os.walk(path):
        with suppress(OSError):
            os.chmod(folder, 0o700)
    shutil.rmtree(path, ignore_errors=True)


def write_json(path: str, value: Any, mode: int = 0o600) -> None:
    """Replace `path` in one step: a reader, or a machine that lost power, finds the old text or the new one."""
    aside = f"{path}.{os.getpid()}.new"
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump(value, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(aside)
        raise
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_json(path: str) -> dict[str, Any] | None:
    """The JSON object in `path`; None where there is none or something else: state files are caches."""
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def boot_id() -> str:
    """Changes with each start of the machine; a process recorded under another one is gone."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def start_time(pid: int) -> int | None:
    """Clock ticks between boot and the start of `pid`; None where no such process runs (a zombie does not run)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name, in parentheses, may hold anything: fields count from the last one.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def living(record: Any) -> bool:
    """Whether `{"pid", "start_time"}` is a process that runs now, and not another that was given its number."""
    if not isinstance(record, dict) or not isinstance(record.get("pid"), int):
        return False
    found = start_time(record["pid"])
    return found is not None and found == record.get("start_time")


@contextmanager
def socket_address(path: str) -> Iterator[str]:
    """`path` as an address that fits a unix socket: a long one goes by a descriptor of its folder."""
    if len(os.fsencode(path)) <= LONGEST_ADDRESS:
        yield path
        return
    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{os.path.basename(path)}"
    finally:
        os.close(folder)
