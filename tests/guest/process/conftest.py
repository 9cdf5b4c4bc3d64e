"""Real agents, ended whatever a test did."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import guest
from tests.guest.process.driver import Replica


@pytest.fixture(scope="session")
def guest_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return guest.install(str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def make_replica(tmp_path: Path, guest_folder: str) -> Iterator[Callable[..., Replica]]:
    made: list[Replica] = []

    def make(python: str, environment: dict[str, str] | None = None, **config: Any) -> Replica:
        made.append(Replica(tmp_path / f"r{len(made)}", python, guest_folder, environment, **config))
        return made[-1]

    yield make
    for replica in made:
        replica.end()


@pytest.fixture
def replica(make_replica: Callable[..., Replica], python: str) -> Replica:
    return make_replica(python)


@pytest.fixture
def environment(python: str, tmp_path: Path) -> Callable[..., str]:
    """Make an environment with these modules as its third-party packages; its interpreter."""

    def make(**modules: str) -> str:
        folder = tmp_path / "environment"
        subprocess.run([python, "-m", "venv", "--without-pip", str(folder)], check=True)
        [packages] = folder.glob("lib/python3*/site-packages")
        for name, text in modules.items():
            (packages / f"{name}.py").write_text(text)
        return str(folder / "bin" / "python")

    return make
