"""The gateway beside nginx, haproxy, Caddy and a plain aiohttp proxy: `python -m tests.bench gateway`.

All stand before the same upstreams, in one run, each with as many workers as the gateway has processes, and are asked in
turn, so that what the machine does meanwhile meets all of them. Ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
from dataclasses import dataclass

from tests.bench.rivals import CONFIGURATIONS, PROGRAMS, World, missing

ROWS = ("direct", "nginx", "nginx, policies", "haproxy", "caddy", "aiohttp", "us", "us, policies")
ROUNDS = 3
EVENTS = 1000


@dataclass(frozen=True, slots=True)
class Scene:
    """One column. script: what wrk sends. rows: None for all of them."""

    title: str
    model: str
    connections: int
    seconds: int = 2
    script: str = "wrk.lua"
    rows: tuple[str, ...] | None = None


SCENES = (
    Scene("tiny, 1 connection", "tiny", 1),
    Scene("tiny, 64", "tiny", 64),
    Scene("tiny, 1,000", "tiny", 1000),
    Scene("1 MB, 64", "large", 64, seconds=1),
    Scene("1,000 events, 64", "events", 64, seconds=3),
    Scene("tiny, 64, each head new", "tiny", 64, script="varied.lua", rows=("nginx", "us")),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of wrk. median and p99 in seconds. failed: answers that were none of 200, and broken connections."""

    rate: float
    median: float
    p99: float
    failed: int


def load(port: int, path: str, scene: Scene) -> Measured:
    """Ask one proxy. Raises SystemExit where wrk cannot."""
    script = str(CONFIGURATIONS / scene.script)
    words = ["wrk", "-t1", f"-c{scene.connections}", f"-d{scene.seconds}s", "--latency", "-s", script]
    url = f"http://127.0.0.1:{port}{path}"
    done = subprocess.run([*words, url], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"wrk: {done.stderr or done.stdout}")
    return parse(done.stdout)


def parse(text: str) -> Measured:
    """What wrk printed."""
    rate = float(_found(r"Requests/sec:\s+([\d.]+)", text))
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    failed = sum(map(int, errors.groups())) if errors else 0
    failed += int(refused[1]) if refused else 0
    return Measured(rate, _seconds(_found(r"50%\s+(\S+)", text)), _seconds(_found(r"99%\s+(\S+)", text)), failed)


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise SystemExit(f"wrk printed no {pattern}: {text}")
    return match[1]


def _seconds(text: str) -> float:
    match = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text)
    # wrk writes "-nan" where not one answer came in time.
    return float(match[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}[match[2]] if match else float("nan")


Table = dict[tuple[str, str], list[Measured]]


def measure(rows: tuple[str, ...], scenes: tuple[Scene, ...], rounds: int) -> Table:
    """Every row in every scene, in turn, `rounds` times."""
    found: Table = {}
    with World() as world:
        started = {row: None if row == "direct" else world.start(row) for row in rows}
        for _ in range(rounds):
            for scene in scenes:
                for row in rows:
                    if scene.rows is None or row in scene.rows:
                        port = started[row]
                        path = "/predict" if port is None else f"/models/{scene.model}/predict"
                        told = load(world.direct[scene.model] if port is None else port, path, scene)
                        print(f"{scene.title}: {row}: {told.rate:,.0f}/s", file=sys.stderr, flush=True)
                        found.setdefault((scene.title, row), []).append(told)
    return found


def table(found: Table, rows: tuple[str, ...], scenes: tuple[Scene, ...]) -> str:
    """The figures as Markdown: answers per second, and the ratio to nginx of the median round."""
    lines = ["| scene | row | answers/s | median | p99 | of nginx | failed |", "|---|---|---|---|---|---|---|"]
    for scene in scenes:
        for row in rows:
            told = found.get((scene.title, row))
            if told:
                lines.append(_line(scene, row, told, found.get((scene.title, "nginx"))))
    return "\n".join(lines)


def _line(scene: Scene, row: str, told: list[Measured], beside: list[Measured] | None) -> str:
    rate = statistics.median(each.rate for each in told)
    ratio = statistics.median(a.rate / b.rate for a, b in zip(told, beside, strict=True)) if beside else 0.0
    middle, late = (statistics.median(getattr(each, name) for each in told) for name in ("median", "p99"))
    shown = f"{rate:,.0f}" if scene.model != "events" else f"{rate:,.1f} ({rate * EVENTS:,.0f} events/s)"
    failed = sum(each.failed for each in told)
    return (
        f"| {scene.title} | {row} | {shown} | {_short(middle)} | {_short(late)} "
        f"| {f'{ratio:.2f}' if beside else ''} | {failed} |"
    )


def _short(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.1f} ms"


def targets(found: Table) -> str:
    """What was to be reached, and what was."""
    lines = []

    def ratio(row: str, to: str, wanted: float) -> None:
        pairs = list(zip(found.get(("tiny, 64", row), []), found.get(("tiny, 64", to), []), strict=False))
        if pairs:
            reached = statistics.median(a.rate / b.rate for a, b in pairs)
            lines.append(f"- {row} at 64 connections: {reached:.2f} x {to} (wanted: {wanted})")

    ratio("us", "nginx", 0.75)
    ratio("us, policies", "nginx", 0.6)
    ratio("us, policies", "nginx, policies", 0.6)
    ratio("us", "caddy", 3.0)
    one = ("tiny, 1 connection", "us"), ("tiny, 1 connection", "nginx")
    if all(key in found for key in one):
        later = statistics.median(a.median - b.median for a, b in zip(found[one[0]], found[one[1]], strict=True))
        lines.append(f"- median at 1 connection: {later * 1e6:+.0f} µs beside nginx (wanted: at most +60)")
    return "\n".join(lines)


def explained() -> str:
    """What the figures mean."""
    return (
        "`wrk` with one thread asks each proxy in turn, one worker each, over kept connections; upstreams on unix sockets "
        "(nginx for the tiny and the 1 MB answer, a uvloop program for the stream of 1,000 events). `us, policies`: rate "
        "limit and its headers on top of what is always on (strict HTTP, Host and Origin, metrics, request ids); `nginx, "
        "policies`: limit_req, a key map and a buffered access log. Median of the rounds; the ratio is taken within a round."
    )


def available(rows: tuple[str, ...]) -> tuple[str, ...]:
    """The rows whose programs are installed; says which are not."""
    absent = missing()
    if absent:
        print(f"not installed: {', '.join(absent)}; without them their rows are left out")
    if "wrk" in absent or "nginx" in absent:
        raise SystemExit("wrk and nginx (load and upstream) are needed: they are packages of Debian")
    return tuple(row for row in rows if PROGRAMS.get(row) not in absent)


def run(rows: tuple[str, ...] = ROWS, scenes: tuple[Scene, ...] = SCENES, rounds: int = ROUNDS) -> str:
    """Measure; the tables."""
    rows = available(rows)
    found = measure(rows, scenes, rounds)
    return f"{table(found, rows, scenes)}\n\n{targets(found)}"


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench gateway", description=__doc__)
    parser.add_argument("--rows", help=f"separated by semicolons; of {'; '.join(ROWS)}")
    parser.add_argument("--scenes", help="part of a title, separated by semicolons")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    chosen = parser.parse_args(words)
    rows = tuple(row.strip() for row in chosen.rows.split(";")) if chosen.rows else ROWS
    parts = [part.strip() for part in chosen.scenes.split(";")] if chosen.scenes else [""]
    scenes = tuple(scene for scene in SCENES if any(part in scene.title for part in parts))
    print(run(rows, scenes, chosen.rounds))
