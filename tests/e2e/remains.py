"""What a sandbox left on the machine: processes, containers, networks, mounts, cgroups, sockets, locks. It looks, and
on demand removes; it knows the product by what the kernel and the engine show of it only."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

CGROUPS = "/sys/fs/cgroup"


def find(root: Path, sandbox_id: str, *, docker: bool) -> list[str]:
    """A line for each thing that is left of the sandbox with this id under `root`."""
    found = [f"process {pid}: {command}" for pid, command in processes(root, sandbox_id)]
    found += [f"mount {path}" for path in mounts(root)]
    found += [f"cgroup {path}" for path in cgroups(sandbox_id)]
    found += [f"file {path}" for path in runtime_files(root, sandbox_id)]
    if docker:
        found += [f"container {name}" for name in _docker(sandbox_id, "ps", "-a", "--format", "{{.Names}}")]
        found += [f"network {name}" for name in _docker(sandbox_id, "network", "ls", "--format", "{{.Name}}")]
    return found


def processes(root: Path, sandbox_id: str) -> Iterator[tuple[int, str]]:
    """Living processes that were started for the sandbox, stand in its folders or have them mounted."""
    marks = (os.fsencode(root), sandbox_id.encode())
    ours = os.readlink("/proc/self/ns/mnt")
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        folder = f"/proc/{entry}"
        with contextlib.suppress(OSError):
            text = _read(f"{folder}/cmdline")
            if not text:
                continue  # a zombie, or a thread of the kernel
            command = text.replace(b"\0", b" ").decode(errors="replace")[:200]
            text += b"\n" + _read(f"{folder}/environ") + b"\n" + os.fsencode(os.readlink(f"{folder}/cwd"))
            if os.readlink(f"{folder}/ns/mnt") != ours:
                text += b"\n" + _read(f"{folder}/mountinfo")
            if any(mark in text for mark in marks):
                yield int(entry), command


def mounts(root: Path) -> list[str]:
    return [
        line.split()[4]
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if f"{root}/" in line.split()[4]
    ]


def cgroups(sandbox_id: str) -> list[str]:
    """Groups of the sandbox's own; the folders are few, but not all may be readable."""
    return [folder for folder, _, _ in os.walk(CGROUPS) if sandbox_id in os.path.basename(folder)]


def runtime_files(root: Path, sandbox_id: str) -> list[str]:
    """Sockets anywhere in `root`, and whatever is in the state folder that is not the empty registry."""
    found = []
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISSOCK(os.lstat(path).st_mode) or name.endswith(".lock") or sandbox_id in path:
                    found.append(path)
    return found


def remove(root: Path, sandbox_id: str, *, docker: bool) -> None:
    """By force: a failed test must not burden the next one."""
    for _ in range(3):  # a keeper starts others again until it is gone
        for pid, _ in processes(root, sandbox_id):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    for path in reversed(mounts(root)):
        subprocess.run(["umount", "-l", path], check=False, capture_output=True)
    if docker:
        for name in _docker(sandbox_id, "ps", "-a", "--format", "{{.Names}}"):
            subprocess.run(["docker", "rm", "-f", name], check=False, capture_output=True)
        for name in _docker(sandbox_id, "network", "ls", "--format", "{{.Name}}"):
            subprocess.run(["docker", "network", "rm", name], check=False, capture_output=True)
    for group in cgroups(sandbox_id):
        for path, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(path)


def containers(sandbox_id: str, model: str) -> list[str]:
    """Ids of a model's running containers."""
    return sorted(_docker(sandbox_id, "ps", "-q", "--no-trunc", "--filter", f"label=model-sandbox.model={model}"))


def container_pid(sandbox_id: str, model: str) -> int:
    """The host's pid of the first process in the only container of a model."""
    (name,) = containers(sandbox_id, model)
    return int(_output("docker", "inspect", "--format", "{{.State.Pid}}", name)[0])


def remove_images(sandbox_id: str) -> None:
    """Names that this sandbox gave to images; the builds behind them are shared and stay."""
    names = _output("docker", "images", "--format", "{{.Repository}}:{{.Tag}}", f"model-sandbox/{sandbox_id}")
    if names:
        subprocess.run(["docker", "rmi", "--no-prune", *names], check=False, capture_output=True)


def _docker(sandbox_id: str, *command: str) -> list[str]:
    return _output("docker", *command, "--filter", f"label=model-sandbox.sandbox={sandbox_id}")


def _output(*command: str) -> list[str]:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
