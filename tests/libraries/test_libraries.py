"""Each library, preloaded by a real zygote and forked under use: no hang, the threads of a plain start, or a spawn that
says why; as docs/reload.md has it. SANDBOX_TEST_LIBRARIES=all adds the large ones, and forks each 50 times.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import folders, guest
from orchestrator.plan.types import ModelDesired, Requirements
from orchestrator.runtimes.environments import Environments
from tests.guest.process.driver import Replica, eventually
from tests.libraries.uses import LARGE, POOLS, QUICK, Library

EVERYTHING = os.environ.get("SANDBOX_TEST_LIBRARIES") == "all"
FORKS = 50 if EVERYTHING else 10
DOCUMENT = Path(__file__).parents[2] / "docs" / "reload.md"
# What its model is without a zygote, an agent and a worker.
PLAIN = """
import asyncio, inspect, json, main
getattr(main, "load", lambda: None)()
used = main.predict(True)
used = asyncio.run(used) if inspect.isawaitable(used) else used
print(json.dumps(used))
"""
FILES = {"pools": POOLS}

Json = dict[str, Any]


def documented(name: str) -> list[str]:
    """The row of a library in docs/reload.md: how its models get their workers, and why."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in DOCUMENT.read_text().splitlines()]
    return next((row[1:] for row in rows if row[0] == name), [])


def environment(library: Library) -> str:
    """The python of an environment of ours that has the library: made once, and kept as any model's is."""
    text = "".join(f"{name}\n" for name in sorted((library.name, *library.needs)))
    lock_hash = hashlib.sha256(f"{text} {sys.version}".encode()).hexdigest()
    wish = ModelDesired("library", "/", "process", lock_hash, "1:x", requirements=Requirements(text))
    found = asyncio.run(Environments(folders.cache_home()).prepare(wish, lambda _: None))
    return os.path.join(found.location, "bin", "python")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Replica]]:
    made: list[Replica] = []

    def make(python: str) -> Replica:
        made.append(Replica(tmp_path / "r", python, guest.install(str(tmp_path / "cache"))))
        return made[-1]

    yield make
    for replica in made:
        replica.end()


def plain(python: str, library: Library, folder: Path) -> Json:
    """The state of a plain interpreter after the same use."""
    (folder / "main.py").write_text(library.main)
    (folder / "pools.py").write_text(POOLS)
    done = subprocess.run([python, "-c", PLAIN], cwd=folder, capture_output=True, text=True, check=True, timeout=120)
    found: Json = json.loads(done.stdout)
    return found


def zygote_with(replica: Replica, library: Library) -> Json:
    replica.control.send({"type": "preload", "imports": [library.module], "environment": {}})

    def settled() -> Json | None:
        state = replica.zygote()
        return state if state["state"] == "unsafe" or state["imports"] else None

    found: Json = eventually(settled, f"a zygote with {library.module}")
    return found


def forked_under_use(replica: Replica, library: Library, generation: int, expected: Json) -> str:
    """Load, use, and compare one worker; how it came to be."""
    ready = replica.ready(generation, library.main, files=FILES)
    used = replica.predict(ready["socket"], use=True)
    assert used["pools"] == expected["pools"]
    # Some threads of a use end a moment after it.
    eventually(
        lambda: replica.predict(ready["socket"], use=False)["threads"] == expected["threads"],
        f"{expected['threads']} threads, as a plain start has; it had {used['threads']}",
    )
    replica.control.ask({"type": "kill", "generation": generation, "attempt": 1}, "exited", generation=generation)
    return "fork" if "fork" in ready["phases"] else "spawn"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("library", [*QUICK, *(LARGE if EVERYTHING else ())], ids=lambda each: each.name)
def test_a_preloaded_library_is_forked_without_harm_or_spawned_with_a_reason(
    library: Library, start: Callable[[str], Replica], tmp_path: Path
) -> None:
    python = environment(library)
    alone = plain(python, library, tmp_path)
    # A worker runs sync code in a thread of its own.
    expected = {**alone, "threads": alone["threads"] + ("async def predict" not in library.main)}
    replica = start(python)
    zygote = zygote_with(replica, library)

    ways = {forked_under_use(replica, library, generation, expected) for generation in range(1, FORKS + 1)}

    assert ways == {"fork" if zygote["state"] == "ready" else "spawn"}
    assert documented(library.name) == [*ways, zygote["reason"] or "-"]


def test_every_library_is_in_the_table() -> None:
    assert all(documented(each.name) for each in (*QUICK, *LARGE))
