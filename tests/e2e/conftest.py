"""The whole product, started as a user starts it, in each runtime. Every sandbox made here is taken down and searched
for what it left."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator import folders
from tests.e2e import figures
from tests.e2e.sandbox import Sandbox

RUNTIMES = ["process", pytest.param("docker", marks=pytest.mark.docker)]


@pytest.fixture(scope="module", params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def cache() -> Iterator[Path]:
    """The user's cache, one for all tests of a run: environments are made once."""
    folder = Path(tempfile.mkdtemp(prefix="sbc"))
    yield folder
    folders.remove_tree(str(folder))


@pytest.fixture
def make(runtime: str, cache: Path, request: pytest.FixtureRequest) -> Iterator[Callable[[], Sandbox]]:
    """Makes empty projects: `make()`. After the test each is taken down and must have left nothing."""
    made: list[Sandbox] = []

    def one() -> Sandbox:
        made.append(Sandbox(runtime, cache))
        return made[-1]

    yield one
    close(made, request)


@pytest.fixture
def sandbox(make: Callable[[], Sandbox]) -> Sandbox:
    """An empty project."""
    return make()


@pytest.fixture(scope="module")
def shared(runtime: str, cache: Path, request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """One project for a whole module, for tests that each bring a model of their own."""
    made = Sandbox(runtime, cache)
    yield made
    close([made], request)


def close(made: list[Sandbox], request: pytest.FixtureRequest) -> None:
    left = []
    for each in made:
        if request.session.testsfailed:
            print(each.story())
        left += each.close()
        shutil.rmtree(each.root, ignore_errors=True)
    assert left == []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if figures.LINES:
        terminalreporter.section("figures")
        for line in figures.LINES:
            terminalreporter.line(line)
