"""What a large model directory costs a save: `python -m tests.bench watching`.

The same model thrice in one sandbox: alone in its directory, beside 5,000 files, and beside a 2 GiB file in `data/`.
They are saved by turns, so that all have the same moments of the machine.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from tests.bench.figures import percentile
from tests.bench.project import Project

ROUNDS = 40
FILES = 5_000
FOLDERS = 50
DATA = 2 << 30
MOST = 0.010
DEADLINE = 10.0
NAMES = {"alone": "1 file", "many": f"{FILES:,} files", "data": "1 file, 2 GiB in data/"}


def explained() -> str:
    """What the figures mean."""
    return (
        f"From a save to the first new answer of one model: alone in its directory, beside {FILES:,} files in {FOLDERS} "
        f"folders, and beside a sparse file of 2 GiB in `data/`. {ROUNDS} saves of each, by turns. Target: 5,000 files "
        f"add at most {MOST * 1000:.0f} ms to the median."
    )


def measure(runtime: str) -> Mapping[str, list[float]]:
    """Seconds of each save, by model."""
    seconds: dict[str, list[float]] = {name: [] for name in NAMES}
    with Project(runtime, files={name: {"main.py": _source(0)} for name in NAMES}) as project:
        _fill(project.path)
        project.sandbox("up", "-d")
        address = urlsplit(project.url())
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=DEADLINE)
        for version in range(1, ROUNDS + 1):
            for name, found in seconds.items():
                found.append(_save(connection, project.path / name / "main.py", name, version))
        connection.close()
    return seconds


def _fill(project: Path) -> None:
    for number in range(FILES):
        folder = project / "many" / f"pkg{number % FOLDERS}"
        folder.mkdir(exist_ok=True)
        (folder / f"part{number}.py").write_text(f"NUMBER = {number}\n")
    (project / "data" / "data").mkdir()
    with (project / "data" / "data" / "weights").open("wb") as file:
        file.truncate(DATA)


def _source(version: int) -> str:
    return f"def predict() -> int:\n    return {version}\n"


def _save(connection: http.client.HTTPConnection, path: Path, name: str, version: int) -> float:
    path.write_text(_source(version))
    began = time.perf_counter()
    while time.perf_counter() - began < DEADLINE:
        connection.request("POST", f"/models/{name}/predict", b"{}")
        if json.loads(connection.getresponse().read())["data"]["prediction"] == version:
            return time.perf_counter() - began
    raise SystemExit(f"{name}: version {version} never answered")


def run(runtimes: tuple[str, ...] = ("process", "docker")) -> str:
    """Measure; the table."""
    rows = ["| runtime | directory | median | p95 | added to the median |", "|---|---|---|---|---|"]
    for runtime in runtimes:
        measured = measure(runtime)
        base = statistics.median(measured["alone"])
        for name, seconds in measured.items():
            median = statistics.median(seconds)
            added = "" if name == "alone" else f"{(median - base) * 1000:+.1f} ms"
            missed = " (target missed)" if name == "many" and median - base > MOST else ""
            times = f"{median * 1000:.1f} ms | {percentile(seconds, 0.95) * 1000:.1f} ms"
            rows.append(f"| {runtime} | {NAMES[name]} | {times} | {added}{missed} |")
    return "\n".join(rows) + "\n"


def main(words: Sequence[str]) -> None:
    """Measure and print."""
    argparse.ArgumentParser("python -m tests.bench watching", description=__doc__).parse_args(words)
    print(run())
