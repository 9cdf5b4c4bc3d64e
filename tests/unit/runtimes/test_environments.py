"""Environments are made once per lock hash, by whoever comes first, and a builder's death blocks nobody."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import textwrap
import uuid
from pathlib import Path

import pytest

from orchestrator.errors import BuildError, SandboxError
from orchestrator.image.index import PackageIndex
from orchestrator.plan.types import ModelDesired, Requirements
from orchestrator.runtimes import environments
from orchestrator.runtimes.environments import Environments
from orchestrator.runtimes.interpreters import Interpreters

REPOSITORY = Path(__file__).parents[3]

BUILDER = """
import asyncio, sys
from orchestrator.plan.types import ModelDesired, Requirements
from orchestrator.runtimes.environments import Environments

cache, lock_hash, requirements = sys.argv[1:]
model = ModelDesired("hello", "/", "process", lock_hash, "1:0", requirements=Requirements(requirements))
print("ready", flush=True)
sys.stdin.readline()
print(asyncio.run(Environments(cache).prepare(model, lambda step: print(step.message, file=sys.stderr, flush=True))).location)
"""


def model(requirements="", *, python="", lock_hash=None):
    lock_hash = lock_hash or uuid.uuid4().hex * 2
    return ModelDesired(
        "hello", "/", "process", lock_hash, "1:0", python=python, requirements=Requirements(requirements)
    )


def package(folder, name="tiny-thing", setup=""):
    """A source distribution folder that needs no index."""
    folder.mkdir()
    (folder / "pyproject.toml").write_text(
        textwrap.dedent(f"""
            [build-system]
            requires = []
            build-backend = "backend"
            backend-path = ["."]
            [project]
            name = "{name}"
            version = "1.0"
            """)
    )
    wheel = name.replace("-", "_")
    (folder / "backend.py").write_text(
        textwrap.dedent(f"""
            import os, time, zipfile
            def build_wheel(directory, config=None, metadata=None):
                open({str(folder / "builds")!r}, "a").write("built\\n")
                {setup or "pass"}
                file = "{wheel}-1.0-py3-none-any.whl"
                with zipfile.ZipFile(os.path.join(directory, file), "w") as wheel:
                    wheel.writestr("{wheel}.py", "answer = 42\\n")
                    info = "{wheel}-1.0.dist-info/"
                    wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: {name}\\nVersion: 1.0\\n")
                    wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
                    wheel.writestr(info + "RECORD", "")
                return file
            """)
    )
    return f"{name} @ file://{folder}"


def builder(cache, lock_hash, requirements):
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(cache), lock_hash, requirements],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )


def tree(folder):
    return [Path(folder), *Path(folder).rglob("*")]


async def imports(environment, name):
    process = await asyncio.create_subprocess_exec(
        os.path.join(environment.location, "bin", "python"),
        "-I",
        "-c",
        f"import {name}; print({name}.answer)",
        stdout=asyncio.subprocess.PIPE,
    )
    return (await process.communicate())[0].decode().strip()


async def test_an_environment_is_installed_compiled_and_readable_by_every_user(tmp_path):
    cache = tmp_path / "cache"
    made = await Environments(str(cache)).prepare(model(package(tmp_path / "p")), lambda _: None)
    assert await imports(made, "tiny_thing") == "42"
    files = tree(made.location)
    assert [path for path in files if path.name.startswith("tiny_thing") and path.suffix == ".pyc"]
    for path in files:
        mode = path.stat().st_mode
        assert mode & stat.S_IROTH, path
        assert not mode & stat.S_IWOTH, path


async def test_the_same_lock_hash_is_never_built_twice(tmp_path):
    wanted = model(package(tmp_path / "p"))
    steps = []
    first = await Environments(str(tmp_path / "cache")).prepare(wanted, steps.append)
    assert steps
    steps.clear()
    assert await Environments(str(tmp_path / "cache")).prepare(wanted, steps.append) == first
    assert steps == []


async def test_two_builders_in_two_processes_build_once(tmp_path):
    wanted, lock_hash = package(tmp_path / "p", setup="time.sleep(0.3)"), uuid.uuid4().hex * 2
    builders = [builder(tmp_path / "cache", lock_hash, wanted) for _ in range(2)]
    for each in builders:
        assert each.stdout.readline() == "ready\n"
    for each in builders:
        each.stdin.write("go\n")
        each.stdin.flush()
    outputs = [await asyncio.to_thread(each.communicate, None, 60) for each in builders]
    assert [each.returncode for each in builders] == [0, 0], outputs
    assert len({output for output, _ in outputs}) == 1
    steps = "".join(said for _, said in outputs)
    assert steps.count("creating an environment") == 1
    assert (tmp_path / "p" / "builds").read_text() == "built\n"
    assert [name for name in os.listdir(tmp_path / "cache" / "environments") if not name.startswith(".")] == [lock_hash]


async def test_a_builder_that_was_killed_blocks_nobody_and_its_leftovers_go(tmp_path):
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    hanging = package(tmp_path / "p", setup=f"open({str(gate)!r}).read() if os.path.exists({str(gate)!r}) else None")
    lock_hash = uuid.uuid4().hex * 2
    killed = builder(tmp_path / "cache", lock_hash, hanging)
    assert killed.stdout.readline() == "ready\n"
    killed.stdin.write("go\n")
    killed.stdin.flush()
    writer = await asyncio.to_thread(os.open, gate, os.O_WRONLY)  # returns when its build has come that far
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    os.unlink(gate)
    os.close(writer)
    [left] = [name for name in os.listdir(tmp_path / "cache" / "environments") if not name.endswith(".lock")]
    assert left.startswith(f".{lock_hash}.")
    made = await Environments(str(tmp_path / "cache")).prepare(model(hanging, lock_hash=lock_hash), lambda _: None)
    assert await imports(made, "tiny_thing") == "42"
    assert set(os.listdir(tmp_path / "cache" / "environments")) <= {lock_hash, f".{lock_hash}.lock"}


async def test_a_cancelled_build_leaves_nothing(tmp_path):
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    hanging = package(tmp_path / "p", setup=f"open({str(gate)!r}).read()")
    building = asyncio.ensure_future(Environments(str(tmp_path / "cache")).prepare(model(hanging), lambda _: None))
    writer = await asyncio.to_thread(os.open, gate, os.O_WRONLY)
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    os.close(writer)
    assert [name for name in os.listdir(tmp_path / "cache" / "environments") if not name.endswith(".lock")] == []


async def test_what_cannot_be_installed_is_told_in_the_installers_words(tmp_path):
    broken = package(tmp_path / "p", setup="raise RuntimeError('the wheel fell off')")
    with pytest.raises(BuildError, match=r"models\.hello: its requirements cannot be installed") as caught:
        await Environments(str(tmp_path / "cache")).prepare(model(broken), lambda _: None)
    assert any("the wheel fell off" in line for line in caught.value.log)
    assert [name for name in os.listdir(tmp_path / "cache" / "environments") if not name.endswith(".lock")] == []


async def test_an_environment_whose_interpreter_is_gone_is_made_again(tmp_path):
    wanted = model()
    made = await Environments(str(tmp_path / "cache")).prepare(wanted, lambda _: None)
    python = Path(made.location) / "bin" / "python"
    python.unlink()
    python.symlink_to(tmp_path / "gone")
    assert await Environments(str(tmp_path / "cache")).prepare(wanted, lambda _: None) == made
    assert python.exists()


async def test_no_python_names_those_that_are_here():
    with pytest.raises(SandboxError, match=r"Python 3\.99 is not on this machine \(found: .*3\.") as caught:
        await Interpreters().find("3.99")
    assert caught.value.reference == "no-python"


async def test_the_default_interpreter_is_the_one_that_runs_us():
    found = await Interpreters().find("")
    assert found.version == ".".join(map(str, sys.version_info[:3]))
    assert found.identity.startswith(f"cpython-{found.version}-linux-")
    assert (await Interpreters().find(found.version)).identity == found.identity


async def test_a_version_is_never_taken_for_another_that_begins_alike():
    with pytest.raises(SandboxError):
        await Interpreters().find("3.1")


def test_pips_settings_reach_uv():
    settings = PackageIndex(
        index="https://index.example/simple",
        extra=("https://more.example/simple",),
        find_links=("/wheels",),
        trusted=("index.example",),
        certificate="/ca.pem",
        options=(("timeout", "180"), ("only-binary", "numpy")),
    )
    options, variables = environments._index(settings)
    assert options == [
        "--index-url", "https://index.example/simple", "--extra-index-url", "https://more.example/simple",
        "--index-strategy", "unsafe-best-match", "--find-links", "/wheels", "--allow-insecure-host", "index.example",
        "--only-binary", "numpy",
    ]  # fmt: skip
    assert variables == {"SSL_CERT_FILE": "/ca.pem", "UV_HTTP_TIMEOUT": "180"}
