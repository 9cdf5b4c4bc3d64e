"""What the processes of a sandbox hold: descriptors, threads, memory; read from /proc, by what each process is."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.load import model
from tests.e2e.sandbox import Sandbox


@dataclass(frozen=True, slots=True)
class Holding:
    """One process. memory: its proportional share (PSS), in MB."""

    descriptors: int
    threads: int
    memory: float


def take(sandbox: Sandbox) -> dict[str, Holding]:
    """By name: keeper, control, gateway-N, agent, worker. A worker is another one after each reload."""
    known = sandbox.keeper
    pids = {"keeper": known["pid"], "control": known["control"]["pid"]}
    pids |= {f"gateway-{number}": each["pid"] for number, each in enumerate(known["gateways"])}
    row = sandbox.row(model.NAME)
    pids |= {"agent": sandbox.host_pid(row, "agent"), "worker": sandbox.host_pid(row, "workers")}
    return {name: _holding(int(pid)) for name, pid in pids.items()}


def in_progress(sandbox: Sandbox) -> float:
    """`sandbox_requests_in_progress`, over all models."""
    text = sandbox.request("GET", "/metrics").body.decode()
    return sum(map(float, re.findall(r"^sandbox_requests_in_progress\{.*\} (\S+)$", text, re.MULTILINE)))


def _holding(pid: int) -> Holding:
    process = Path(f"/proc/{pid}")
    threads = re.search(r"^Threads:\s+(\d+)$", (process / "status").read_text(), re.MULTILINE)
    share = re.search(r"^Pss:\s+(\d+) kB$", (process / "smaps_rollup").read_text(), re.MULTILINE)
    assert threads is not None
    assert share is not None
    return Holding(len(os.listdir(process / "fd")), int(threads[1]), int(share[1]) / 1024)
