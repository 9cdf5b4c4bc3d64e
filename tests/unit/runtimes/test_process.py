"""How process replicas are found again, revived and ended, whoever died in between."""

from __future__ import annotations

import asyncio
import glob
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator import folders
from orchestrator.errors import RuntimeFailure
from orchestrator.plan.types import Limits
from orchestrator.runtimes import recorded, tending, walls
from orchestrator.runtimes.census import Census

from .conftest import ask

SLEEP = "import time\nresult = fork_worker(lambda: time.sleep(600))"


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 the kernel offers no event for it
            await asyncio.sleep(0.01)


def text(path):
    return Path(path).read_text()


def lives(pid):
    return folders.start_time(pid) is not None


def traces(sandbox, incarnation):
    """All that a replica could leave on the host."""
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if incarnation in line]
    groups = glob.glob(f"/sys/fs/cgroup/**/model-sandbox/{sandbox.sandbox_id}", recursive=True)
    return mounts, groups, list((sandbox.state / "r").glob(incarnation))


async def next_exit(runtime):
    stream = runtime.exits()
    try:
        async with asyncio.timeout(30):
            return await anext(stream)
    finally:
        await stream.aclose()


async def test_stop_leaves_no_process_cgroup_mount_or_folder(sandbox):
    runtime = sandbox.runtime()
    replica = await sandbox.started(runtime)
    worker = await ask(replica, SLEEP)
    await runtime.stop(replica, 5)
    assert not lives(replica.pid)
    assert not lives(worker)
    assert traces(sandbox, replica.incarnation) == ([], [], [])


async def test_stop_ends_an_agent_that_does_not_listen(sandbox):
    runtime = sandbox.runtime()
    replica = await sandbox.started(runtime)
    await ask(replica, "signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    await runtime.stop(replica, 0.1)
    assert not lives(replica.pid)
    assert traces(sandbox, replica.incarnation) == ([], [], [])


async def test_stop_ends_workers_that_outlived_their_agent(sandbox):
    runtime = sandbox.runtime()
    replica = await sandbox.started(runtime)
    worker = await ask(replica, SLEEP)
    os.kill(replica.pid, signal.SIGKILL)
    await next_exit(runtime)
    assert lives(worker)
    await runtime.stop(replica, 5)
    assert not lives(worker)
    assert traces(sandbox, replica.incarnation) == ([], [], [])


async def test_processes_are_found_without_a_cgroup_too(sandbox):
    runtime = sandbox.runtime()
    replica = await sandbox.started(runtime)
    other = await sandbox.started(runtime)
    worker = await ask(replica, SLEEP)
    orphan = await ask(
        replica, "import subprocess\nresult = fork_worker(lambda: os.execve('/bin/sleep', ['sleep', '600'], {}))"
    )
    os.kill(replica.pid, signal.SIGKILL)
    await next_exit(runtime)
    census = Census(replica.incarnation, None)
    found = census.living()
    assert worker in found
    assert other.pid not in found
    if walls.machine().own_root:  # without a mount namespace a process that cleans its environment hides
        assert orphan in found
        census.kill()
        await until(lambda: not census.living())
    assert lives(other.pid)


async def test_a_new_agent_finds_the_old_ones_workers_in_the_same_replica(sandbox):
    runtime = sandbox.runtime()
    model, place = sandbox.model(), sandbox.place()
    replica = await sandbox.started(runtime, model, place)
    worker = await ask(replica, SLEEP)
    os.kill(replica.pid, signal.SIGKILL)
    assert (await next_exit(runtime)).cause == "signal 9"
    revived = await sandbox.started(runtime, model, place)
    assert (revived.incarnation, revived.alive) == (replica.incarnation, True)
    assert revived.pid != replica.pid
    assert lives(worker)
    assert worker in recorded.read(place.folder).census.living()
    assert await ask(revived, f"result = outcome(lambda: os.kill({worker}, 0))") is None
    await runtime.stop(revived, 5)
    assert not lives(worker)


async def test_another_control_adopts_and_is_told_of_the_death(sandbox):
    first = sandbox.runtime()
    replica = await sandbox.started(first)
    second = sandbox.runtime()
    [found] = await second.list()
    assert found == replica
    os.kill(replica.pid, signal.SIGKILL)
    assert (await next_exit(second)).incarnation == replica.incarnation
    assert [each.alive for each in await second.list()] == [False]


async def test_a_recorded_pid_counts_only_with_its_start_time(sandbox):
    runtime = sandbox.runtime()
    replica = await sandbox.started(runtime)
    known = recorded.read(replica.folder)
    replace(known, start_time=known.start_time + 1).write()
    assert [each.alive for each in await runtime.list()] == [False]
    replace(known, boot_id="another boot").write()
    assert [each.alive for each in await runtime.list()] == [False]
    known.write()
    assert [each.alive for each in await runtime.list()] == [True]


@pytest.mark.skipif(not walls.machine().own_root, reason="nothing is mounted here that could fail")
async def test_an_agent_that_cannot_be_walled_in_does_not_start(sandbox):
    runtime = sandbox.runtime()
    place = replace(sandbox.place(), generations=str(sandbox.project / "missing"))
    with pytest.raises(RuntimeFailure) as caught:
        await sandbox.started(runtime, place=place)
    assert caught.value.reference == "start"
    assert traces(sandbox, place.incarnation) == ([], [], [])


async def test_usage_counts_workers(sandbox):
    runtime = sandbox.runtime()
    replica = await sandbox.started(runtime)
    before = await runtime.usage(replica)
    await ask(
        replica,
        "import time\nkept = bytearray(32 << 20)\nkept[::4096] = b'x' * (8 << 10)\nscopes = [kept]\n"
        + SLEEP
        + "\nglobals()['os'].kept = kept",
    )
    after = await runtime.usage(replica)
    assert after.pids == before.pids + 1
    assert after.memory > before.memory + (30 << 20)
    assert after.cpu_seconds >= before.cpu_seconds > 0


async def test_memory_without_a_cgroup_is_watched(sandbox):
    runtime = sandbox.runtime()
    replica = await sandbox.started(runtime)
    worker = await ask(
        replica,
        "import time\ndef grow():\n kept = bytearray(64 << 20)\n kept[::4096] = b'x' * (16 << 10)\n time.sleep(600)\nresult = fork_worker(grow)",
    )
    known = recorded.read(replica.folder)
    census = known.census
    await until(lambda: (census.usage() or before).memory > 64 << 20) if (before := census.usage()) else None
    tending.enforce_memory(known, 1 << 30)
    assert lives(worker)
    tending.enforce_memory(known, 32 << 20)
    await until(lambda: not lives(worker))
    assert lives(replica.pid)


async def test_what_an_agent_writes_stays_short(sandbox):
    runtime = sandbox.runtime()
    replica = await sandbox.started(runtime)
    log = os.path.join(replica.folder, "agent.log")
    await ask(replica, "sys.stdout.write('x' * (2 << 20)); sys.stdout.flush()")
    tending.shorten(log)
    await ask(replica, "print('more', flush=True)")
    assert text(log) == "more\n"


async def test_no_descriptor_of_the_host_reaches_a_replica(sandbox):
    ours = os.open("/etc/hostname", os.O_RDONLY)
    os.set_inheritable(ours, True)
    replica = await sandbox.started(sandbox.runtime())
    os.close(ours)
    open_files = await ask(
        replica,
        "result = [os.readlink('/proc/self/fd/' + name) for name in os.listdir('/proc/self/fd') if outcome(lambda: os.readlink('/proc/self/fd/' + name)) != 'FileNotFoundError']",
    )
    assert "/etc/hostname" not in open_files


def test_limits_that_no_cgroup_enforces_are_said(sandbox):
    machine = walls.Machine(root=False, refused={"mount": "no", "network": "no"}, said=(), hierarchies=())
    model = sandbox.model(limits=Limits(memory=1, cpus=1.0))
    walls_down = {sentence.partition(":")[0] for sentence in walls.not_enforced(machine, model)}
    assert walls_down == {"files", "network", "memory", "cpus", "pids"}
