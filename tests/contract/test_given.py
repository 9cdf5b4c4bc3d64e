"""What a model is given besides its code: secrets and folders in memory, the same in every runtime that runs programs."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import SandboxError
from orchestrator.plan.types import Secret, Tmpfs
from orchestrator.ports import ReplicaRecord
from orchestrator.runtimes import walls
from tests.contract.conftest import STUB_AGENT

LOOK = """
def tried(action):
    try:
        return action()
    except OSError as error:
        return type(error).__name__

def space(folder):
    found = os.statvfs(folder)
    return found.f_frsize * found.f_blocks

seen = {
    "secret": tried(lambda: open("/run/secrets/token").read()),
    "mode": tried(lambda: oct(os.stat("/run/secrets/token").st_mode & 0o7777)),
    "owned": tried(lambda: os.stat("/run/secrets/token").st_uid == os.getuid()),
    "overwritten": tried(lambda: open("/run/secrets/token", "w").write("x")),
    "listed": tried(lambda: sorted(os.listdir("/run/secrets"))),
    "scratch": tried(lambda: open("/scratch/x", "w").write("abc")),
    "space": tried(lambda: space("/scratch")),
}
"""
PROGRAM = STUB_AGENT.replace("signal.signal(", f"{LOOK}\nsignal.signal(", 1).replace('"uid":', '"seen": seen, "uid":')
CONTENT = "s3cr3t-of-this-test"


async def test_a_model_reads_its_secrets_and_nobody_is_told_them(running_stage, tmp_path):
    stage = running_stage
    secrets = (
        Secret("hub", "/run/secrets/token", CONTENT.encode(), 0o400),
        Secret("other", "/run/secrets/other", b"\x00\xff"),
    )
    model = replace(stage.model(), secrets=secrets, tmpfs=(Tmpfs("/scratch", 1 << 20, 0o1777),))
    runtime = stage.runtime()
    place = stage.incarnation(guest=stage.guest(tmp_path / "looking", PROGRAM))
    environment = await runtime.prepare(model, lambda _: None)
    if stage.candidate.kind == "process" and not walls.machine().own_root:
        with pytest.raises(SandboxError, match="secrets: cannot be mounted here"):
            await runtime.start(model, place, environment)
        return
    replica = await runtime.start(model, place, environment)
    answer = json.loads(await asyncio.to_thread(_asked, replica.sockets))
    assert answer["seen"] == {
        "secret": CONTENT,
        "mode": "0o400",
        "owned": True,
        "overwritten": "OSError",
        "listed": ["other", "token"],
        "scratch": 3,
        "space": 1 << 20,
    }
    assert CONTENT not in repr(model)
    told = json.dumps([answer["environment"], answer["config"]]) + repr(replica)
    assert CONTENT not in told + await asyncio.to_thread(_recorded, replica)
    await runtime.stop(replica, 1)


def _recorded(replica: ReplicaRecord) -> str:
    """What the engine, or the replica's folder, says of it to whoever asks."""
    assert os.stat(replica.folder).st_mode & 0o077 == 0
    if replica.container is None:
        return Path(replica.folder, "replica.json").read_text()
    command = ["docker", "inspect", replica.container]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _asked(sockets: str) -> str:
    folder = os.open(sockets, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(f"/proc/self/fd/{folder}/agent.sock")
            with connection.makefile() as lines:
                return lines.readline()
    finally:
        os.close(folder)
