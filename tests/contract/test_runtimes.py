"""What every runtime promises (ports.Runtime), each promise once, run against every candidate of conftest.py."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import socket
from typing import Any

import pytest

from orchestrator.errors import BuildError, RuntimeFailure, SandboxError
from orchestrator.ports import ReplicaRecord

DEADLINE = 30


def ask(replica: ReplicaRecord) -> dict[str, Any]:
    """What the stub agent says of itself."""
    folder = os.open(replica.sockets, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(DEADLINE)
            connection.connect(f"/proc/self/fd/{folder}/agent.sock")
            with connection.makefile() as lines:
                return json.loads(lines.readline())
    finally:
        os.close(folder)


async def test_a_runtime_that_works_says_so(stage):
    await stage.runtime().check()


async def test_an_interpreter_has_one_identity_for_every_runtime_object(stage):
    identity = await stage.runtime().interpreter("")
    assert identity
    assert identity == await stage.runtime().interpreter("")


async def test_a_python_that_is_not_here_is_an_error_that_names_it(stage):
    with pytest.raises(SandboxError, match=r"9\.9") as caught:
        await stage.runtime().interpreter("9.9")
    assert caught.value.reference == "no-python"


async def test_a_started_replica_answers_on_its_socket(running_stage):
    stage = running_stage
    replica = await stage.started(stage.runtime())
    assert replica.alive
    assert replica.model == "hello"
    assert replica.runtime == stage.candidate.kind
    answer = await asyncio.to_thread(ask, replica)
    assert answer["config"]["incarnation"] == replica.incarnation
    assert answer["config"]["sockets"] == replica.paths["sockets"]
    assert answer["config"]["source"] == str(stage.place.project / "hello")


async def test_a_replica_sees_only_the_variables_that_are_meant_for_it(running_stage, monkeypatch):
    stage = running_stage
    monkeypatch.setenv("HOST_SECRET", "host-secret")
    replica = await stage.started(stage.runtime())
    answer = await asyncio.to_thread(ask, replica)
    assert set(answer["environment"]) - {"LC_CTYPE", "HOSTNAME"} == {"PATH", "HOME", "LANG", "TMPDIR"}


async def test_a_replica_is_found_again_by_an_object_that_never_saw_it_start(stage):
    replica = await stage.started(stage.runtime())
    [found] = await stage.runtime().list()
    assert found == replica


async def test_a_sandbox_sees_no_replica_of_another(stage):
    replica = await stage.started(stage.runtime())
    other = type(stage)(
        type(stage.place)(
            "f" * 12, stage.place.project, stage.place.state.parent / "other", stage.place.cache, stage.place.guest
        ),
        stage.candidate,
    )
    other.place.state.mkdir()
    runtime = other.runtime()
    assert await runtime.list() == []
    await runtime.close()
    assert [found.incarnation for found in await stage.runtime().list()] == [replica.incarnation]


async def test_starting_one_incarnation_twice_makes_one_replica(stage):
    runtime = stage.runtime()
    model, place = stage.model(), stage.incarnation()
    environment = await runtime.prepare(model, lambda _: None)
    first = await runtime.start(model, place, environment)
    second = await runtime.start(model, place, environment)
    assert second == first
    assert len(await runtime.list()) == 1


async def test_stopping_leaves_nothing_and_can_be_repeated(stage):
    runtime = stage.runtime()
    replica = await stage.started(runtime)
    await runtime.stop(replica, 5)
    assert await runtime.list() == []
    assert not os.path.exists(replica.folder)  # noqa: ASYNC240
    await runtime.stop(replica, 5)
    assert await runtime.usage(replica) is None


async def test_a_death_is_told_with_its_cause(stage):
    runtime = stage.runtime()
    replica = await stage.started(runtime)
    exits = runtime.exits()
    waiting = asyncio.ensure_future(anext(exits))
    stage.candidate.kill(replica)
    async with asyncio.timeout(DEADLINE):
        death = await waiting
    assert (death.incarnation, death.cause, death.oom) == (replica.incarnation, "signal 9", False)
    [dead] = await runtime.list()
    assert not dead.alive
    await exits.aclose()


async def test_an_agent_that_ends_at_once_is_an_error_with_its_output(running_stage, tmp_path):
    stage = running_stage
    runtime = stage.runtime()
    model = stage.model()
    broken = stage.guest(tmp_path / "broken", "raise SystemExit('the guest is broken')")
    environment = await runtime.prepare(model, lambda _: None)
    with pytest.raises(RuntimeFailure, match="the guest is broken") as caught:
        await runtime.start(model, stage.incarnation(guest=broken), environment)
    assert caught.value.reference == "start"
    assert await runtime.list() == []


async def test_usage_is_what_a_living_replica_uses(stage):
    runtime = stage.runtime()
    replica = await stage.started(runtime)
    used = await runtime.usage(replica)
    assert used is not None
    assert used.memory > 1_000_000
    assert used.pids >= 1
    assert used.cpu_seconds > 0


async def test_its_processes_are_listed_as_long_as_it_lives(stage):
    runtime = stage.runtime()
    replica = await stage.started(runtime)
    found = await runtime.processes(replica)
    assert found
    assert all(each.pid > 0 and each.parent >= 0 and each.user and each.command for each in found)
    assert sum(each.memory for each in found) > 1_000_000
    await runtime.stop(replica, 5)
    assert await runtime.processes(replica) == []


async def test_one_lock_hash_is_one_environment(stage):
    model = stage.model()
    first = await stage.runtime().prepare(model, lambda _: None)
    assert await stage.runtime().prepare(model, lambda _: None) == first
    assert await stage.runtime().find(model) == first
    assert await stage.runtime().find(dataclasses.replace(model, lock_hash="0" * 64)) is None
    assert first.lock_hash == model.lock_hash


async def test_requirements_that_cannot_be_installed_are_an_error_in_the_installers_words(stage):
    with pytest.raises(BuildError, match="no-such-distribution-of-anyone") as caught:
        await stage.runtime().prepare(stage.model(requirements="no-such-distribution-of-anyone==1"), lambda _: None)
    assert any("no-such-distribution-of-anyone" in line for line in caught.value.log)


async def test_a_closed_runtime_leaves_its_replicas_running(running_stage):
    stage = running_stage
    first = stage.runtime()
    replica = await stage.started(first)
    await first.close()
    stage.runtimes.remove(first)
    assert (await asyncio.to_thread(ask, replica))["config"]["incarnation"] == replica.incarnation
