"""How long `up`, `up` with nothing to do, and `down` take: `python -m tests.bench startup`.

Environments and images exist already (the first `up` makes them and is not counted); everything else is as after a
boot. The wall clock of the whole command, as a person waits for it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

from tests.bench.project import Project

ROUNDS = 5
MODELS = ["hello", "digits", "chat"]


def explained() -> str:
    """What the figures mean."""
    return (
        f"`sandbox up -d` of {len(MODELS)} models ({', '.join(MODELS)}) whose environments exist, the same again with "
        f"nothing to do, and `down`: wall clock of the command, median of {ROUNDS}."
    )


def measure(runtime: str) -> dict[str, list[float]]:
    """Seconds of each command."""
    found: dict[str, list[float]] = {"up": [], "up again": [], "down": []}
    with Project(runtime, MODELS) as project:
        project.sandbox("up", "-d")
        project.sandbox("down")
        for _ in range(ROUNDS):
            for name, words in (("up", ("up", "-d")), ("up again", ("up", "-d")), ("down", ("down",))):
                began = time.perf_counter()
                project.sandbox(*words)
                found[name].append(time.perf_counter() - began)
    return found


def run(runtimes: tuple[str, ...] = ("process", "docker")) -> str:
    """Measure; the table."""
    rows = ["| runtime | up | up, nothing to do | down |", "|---|---|---|---|"]
    for runtime in runtimes:
        medians = [statistics.median(values) for values in measure(runtime).values()]
        rows.append(f"| {runtime} | " + " | ".join(f"{seconds:.2f} s" for seconds in medians) + " |")
    return "\n".join(rows) + "\n"


def main(words: Sequence[str]) -> None:
    """Measure and print."""
    argparse.ArgumentParser("python -m tests.bench startup", description=__doc__).parse_args(words)
    print(run())
