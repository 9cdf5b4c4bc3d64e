"""What every test may rely on: a test marked `docker` runs with a usable engine, or says why it does not run."""

from __future__ import annotations

import functools
import os

import pytest

from orchestrator.image.engine import probe


@functools.cache
def _no_engine() -> str | None:
    return probe()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("docker") is None or (reason := _no_engine()) is None:
        return
    if os.environ.get("SANDBOX_REQUIRE_DOCKER") == "1":
        pytest.fail(f"SANDBOX_REQUIRE_DOCKER=1 and {reason}", pytrace=False)
    pytest.skip(reason)
