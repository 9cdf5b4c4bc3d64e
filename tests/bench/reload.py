"""From a save to the first answer of the new code, in both runtimes: `python -m tests.bench.reload`.

Clock: from just before the editor's write() to the last byte of the first answer that the new code gave, one client
calling back to back over one connection. Every answer in between must be a good one of the old or the new code; those
that are not are counted as failed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.bench import peers
from tests.bench.project import ROOT, Project

SAVES = 20
FAILURES_TOLD = 5
SETTLE = 2.0  # the zygote that shares the learned imports is made in the background
PAUSE = 0.25  # between saves: an editor's pace, and time for the old worker to retire

SOURCES = {
    "hello": (
        "def predict(x: float) -> float:\n    return x + {version}\n",
        {"x": 0.0},
        int,
    ),
    "digits": (
        None,  # the example's own main.py, with the version added to its answer
        None,
        lambda prediction: int(prediction) // 1000,
    ),
}


@dataclass
class Measured:
    """Seconds of each reload, by phase where the reload event tells; calls and failures of the client meanwhile."""

    model: str
    runtime: str
    seconds: list[float] = field(default_factory=list)
    phases: dict[str, list[float]] = field(default_factory=dict)
    calls: int = 0
    failed: int = 0

    def row(self) -> str:
        """One line of the table."""
        ordered = sorted(self.seconds)
        p95 = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
        return (
            f"| {self.model} | {self.runtime} | {statistics.median(ordered) * 1000:.0f} ms | {p95 * 1000:.0f} ms "
            f"| {ordered[-1] * 1000:.0f} ms | {self.failed} of {self.calls} |"
        )

    def phase_row(self) -> str:
        """The median of each phase."""
        medians = {name: statistics.median(values) * 1000 for name, values in self.phases.items()}
        return f"| {self.model} | {self.runtime} | " + ", ".join(f"{k} {v:.1f}" for k, v in medians.items()) + " |"


class Caller(threading.Thread):
    """One client that calls back to back and remembers when each version first answered."""

    def __init__(self, url: str, model: str, inputs: Mapping[str, Any], version: Callable[[Any], int]) -> None:
        super().__init__(daemon=True)
        self.host = url.removeprefix("http://")
        self.path = f"/models/{model}/predict"
        self.body = json.dumps(inputs).encode()
        self.version = version
        self.first: dict[int, float] = {}
        self.news = threading.Condition()
        self.calls = self.failed = 0
        self.ending = False

    def run(self) -> None:
        connection = http.client.HTTPConnection(self.host, timeout=60)
        while not self.ending:
            self.calls += 1
            try:
                connection.request("POST", self.path, self.body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                text = answer.read()
                at = time.perf_counter()
                found = self.version(json.loads(text)["data"]["prediction"])  # an error has no prediction: KeyError
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                self.failed += 1
                if self.failed <= FAILURES_TOLD:
                    print(f"failed call: {error!r}", file=sys.stderr)
                connection.close()
                continue
            if found not in self.first:
                with self.news:
                    self.first[found] = at
                    self.news.notify_all()
        connection.close()

    def wait(self, version: int) -> float:
        """When this version first answered."""
        with self.news:
            if not self.news.wait_for(lambda: version in self.first, timeout=30):
                raise TimeoutError(f"version {version} never answered")
        return self.first[version]


def source(model: str, version: int) -> tuple[str, Mapping[str, Any], Callable[[Any], int]]:
    """main.py of a version, the input to call it with, and how to read the version from its answer."""
    template, inputs, read = SOURCES[model]
    if template is not None:
        return template.format(version=version), inputs, read
    import yaml

    example = ROOT / "model_dirs" / model
    text = (example / "main.py").read_text()
    inputs = yaml.safe_load((example / "config.yaml").read_text())["example"]
    text += f"\n\n_predict = Digits.predict\nDigits.predict = lambda self, pixels: {version} * 1000 + _predict(self, pixels).value\n"
    return text, inputs, read


def measure(runtime: str, model: str, saves: int) -> Measured:
    """Start a sandbox of one model, save `saves` times, take it down."""
    text, inputs, read = source(model, 1)
    with Project(runtime, [model]) as project:
        main = project.path / model / "main.py"
        main.write_text(text)
        project.sandbox("up", "-d")
        caller = Caller(project.url(), model, inputs, read)
        caller.start()
        try:
            caller.wait(1)
            time.sleep(SETTLE)
            measured = Measured(model, runtime)
            for version in range(2, saves + 2):
                text = source(model, version)[0]
                began = time.perf_counter()
                main.write_text(text)
                measured.seconds.append(caller.wait(version) - began)
                time.sleep(PAUSE)
        finally:
            caller.ending = True
            caller.join()
        measured.calls, measured.failed = caller.calls, caller.failed
        for line in project.sandbox("events", "--format", "json").splitlines():
            event = json.loads(line)
            if event["event"] == "reload" and event["data"].get("ok"):
                for name, seconds in event["data"]["phases"].items():
                    measured.phases.setdefault(name, []).append(seconds)
    return measured


def measure_peer(saves: int) -> Measured:
    """The same saves with `uvicorn --reload`: no model server, no isolation, a bare ASGI app."""
    measured = Measured("hello", "uvicorn --reload")
    with peers.uvicorn_reload() as (url, source_file):
        caller = Caller(url, "hello", {"x": 0.0}, int)
        caller.start()
        try:
            caller.wait(1)
            time.sleep(SETTLE)
            for version in range(2, saves + 2):
                began = time.perf_counter()
                source_file.write_text(peers.APP.format(version=version))
                measured.seconds.append(caller.wait(version) - began)
                time.sleep(PAUSE)
        finally:
            caller.ending = True
            caller.join()
    measured.calls, measured.failed = caller.calls, caller.failed
    return measured


def ratio(ours: list[Measured], peer: Measured) -> str:
    """How much faster the slowest of our `hello` rows is than the peer."""
    slowest = max(statistics.median(row.seconds) for row in ours if row.model == peer.model)
    return f"\nOurs against the peer, `{peer.model}`: {statistics.median(peer.seconds) / slowest:.0f} times faster.\n"


def table(rows: list[Measured]) -> str:
    """The figures as Markdown."""
    head = "| model | runtime | median | p95 | max | failed calls |\n|---|---|---|---|---|---|\n"
    phases = "\n\nMedian of each phase, ms, as the reload events tell:\n\n| model | runtime | phases |\n|---|---|---|\n"
    told = [row.phase_row() for row in rows if row.phases]
    return head + "\n".join(map(Measured.row, rows)) + phases + "\n".join(told) + "\n"


def explained() -> str:
    """What the figures mean."""
    return (
        f"{SAVES} saves of main.py; from just before the editor's write() to the last byte of the first answer that the "
        "new code gave, one client calling back to back over one connection. `hello` needs nothing, `digits` imports "
        "scikit-learn. The peer serves a bare ASGI app, without a gateway or isolation. Failed calls: any answer other than a good one of the old or the new code."
    )


def run(saves: int = SAVES, runtimes: tuple[str, ...] = ("process", "docker")) -> str:
    """Measure everything; the table."""
    ours = [measure(runtime, model, saves) for runtime in runtimes for model in SOURCES]
    peer = measure_peer(saves)
    return table([*ours, peer]) + ratio(ours, peer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--saves", type=int, default=SAVES)
    parser.add_argument("--runtime", action="append", choices=("process", "docker"))
    chosen = parser.parse_args()
    print(run(chosen.saves, tuple(chosen.runtime or ("process", "docker"))))


if __name__ == "__main__":
    main()
