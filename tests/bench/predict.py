"""The same models end to end in us and in other servers, paired in one run: `python -m tests.bench predict`.

All run at once and are asked one at a time, forwards and backwards by turns, so that what the machine does meanwhile meets
all of them. Ratios are taken within a round. Only good answers count.
"""

from __future__ import annotations

import argparse
import math
import re
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from tests.bench import contenders, gateway
from tests.bench.contenders import BATCHED, NAMES, OURS, UNBATCHED, Target
from tests.bench.figures import orders
from tests.bench.rivals import CONFIGURATIONS
from tests.bench.server import Unavailable

SECONDS = 1  # of each run: many short ones by turns tell more on a machine that does other things too
ROUNDS = 5
FEWER = 2  # where five milliseconds of each answer are the model's: less varies there
SETTLE = 5.0  # what is made in the background after the start: our zygotes
PLENTY = {"coroutine": 10_000, "function": 6_000}  # answers per second that are wanted
TIMES = 3.0  # the best peer, where the model costs nothing
BESIDE = 0.95  # of the best peer, where it does
BUSY = 0.9  # of a core: a load generator that needs more may be what was measured


@dataclass(frozen=True, slots=True)
class Scene:
    """One model at so many connections. rounds: how many at most."""

    model: str
    connections: int
    rounds: int = ROUNDS

    @property
    def title(self) -> str:
        return f"{self.model}, {self.connections}"


SCENES = (
    Scene("coroutine", 64),
    Scene("function", 64),
    *(Scene(model, count, FEWER) for model in ("cpu", "wait") for count in (1, 8, 64, 256)),
    Scene(BATCHED, 1),
    Scene(UNBATCHED, 1),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of wrk. rate: good answers per second. failed: all others, and broken connections. median: s.

    busy: the cores that wrk itself used.
    """

    rate: float
    failed: int
    median: float
    busy: float


Table = dict[tuple[Scene, str], list[Measured]]


def measure(names: Sequence[str], scenes: Sequence[Scene], rounds: int) -> tuple[Table, dict[str, str]]:
    """Every server in every scene, and which could not be had and why."""
    found: Table = {}
    missing: dict[str, str] = {}
    with ExitStack() as stack:
        running = _started(stack, names, {scene.model for scene in scenes}, missing)
        time.sleep(SETTLE)
        for number, order in enumerate(orders(list(running), rounds)):
            for scene in scenes:
                for name in order if number < scene.rounds else ():
                    target = running[name].get(scene.model)
                    if target is not None:
                        told = load(target, scene)
                        contenders.ready(target)  # some go on with calls whose clients have left
                        _note(f"{scene.title}: {name}: {told.rate:,.0f}/s")
                        found.setdefault((scene, name), []).append(told)
    return found, missing


def _started(
    stack: ExitStack, names: Sequence[str], models: set[str], missing: dict[str, str]
) -> dict[str, Mapping[str, Target]]:
    """All that can be had, answering; they start side by side."""
    begun: dict[str, Mapping[str, Target]] = {}
    for name in names:
        _note(f"starting {name}")
        try:
            begun[name] = contenders.start(name, stack)
        except Unavailable as reason:
            missing[name] = str(reason)
    for name, targets in list(begun.items()):
        try:
            for model in sorted(models & targets.keys()):
                contenders.ready(targets[model])
        except Unavailable as reason:
            missing[name] = str(reason)
            del begun[name]
    return begun


def load(target: Target, scene: Scene) -> Measured:
    """Ask one server. Raises SystemExit where wrk cannot."""
    words = ["wrk", "-t1", f"-c{scene.connections}", f"-d{SECONDS}s", "--latency"]
    script = ["-s", str(CONFIGURATIONS / "predict.lua"), target.url, "--", target.body]
    before, began = _spent(), time.perf_counter()
    done = subprocess.run([*words, *script], capture_output=True, text=True, check=False)
    busy = (_spent() - before) / (time.perf_counter() - began)
    if done.returncode:
        raise SystemExit(f"wrk: {done.stderr or done.stdout}")
    return parse(done.stdout, busy)


def parse(text: str, busy: float) -> Measured:
    """What wrk printed: its rate counts refusals as answers, ours does not."""
    told = gateway.parse(text)
    total = re.search(r"(\d+) requests in", text)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    bad = int(refused[1]) / max(1, int(total[1])) if refused and total else 0.0
    return Measured(told.rate * (1 - bad), told.failed, told.median, busy)


def _spent() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(found: Table, scenes: Sequence[Scene]) -> str:
    """The figures as Markdown."""
    lines = [
        "| model, connections | server | answers/s | median | of the best peer | failed |",
        "|---|---|---|---|---|---|",
    ]
    for scene in scenes:
        best = _best(found, scene)
        for name in NAMES:
            told = found.get((scene, name))
            if told:
                ratio = f"{times(told, found[scene, best]):.2f}" if best is not None else ""
                rate, median = (statistics.median(getattr(each, of) for each in told) for of in ("rate", "median"))
                failed = sum(each.failed for each in told)
                lines.append(f"| {scene.title} | {_shown(name)} | {rate:,.0f} | {_ms(median)} | {ratio} | {failed} |")
    return "\n".join(lines)


def targets(found: Table, scenes: Sequence[Scene]) -> list[str]:
    """What was to be reached, and what was."""
    lines = []
    for name in OURS:
        for scene in scenes:
            told, best = found.get((scene, name)), _best(found, scene)
            if not told:
                continue
            if scene.model in PLENTY:
                rate, wanted = statistics.median(each.rate for each in told), PLENTY[scene.model]
                lines.append(f"{_shown(name)}, {scene.title}: {rate:,.0f}/s (wanted {wanted:,}: {_told(rate, wanted)})")
            if best is not None:
                wanted, of = TIMES if scene.model in PLENTY else BESIDE, times(told, found[scene, best])
                beside = f"{of:.2f} x {_shown(best)}, the best peer (wanted {wanted}: {_told(of, wanted)})"
                lines.append(f"{_shown(name)}, {scene.title}: {beside}")
            other = found.get((Scene(UNBATCHED, 1), name)) if scene.model == BATCHED else None
            if other:
                of = times(told, other)
                beside = f"{of:.2f} x the same without batching (wanted 1, and runs differ by some percent)"
                lines.append(f"{_shown(name)}, {scene.title}: {beside}")
    busiest = max((each.busy for told in found.values() for each in told), default=0.0)
    tight = " - too much: the load generator may be what was measured" if busiest > BUSY else ""
    return [*lines, f"wrk itself used at most {busiest:.0%} of a core{tight}"]


def times(told: Sequence[Measured], beside: Sequence[Measured]) -> float:
    """The median of the rounds' ratios; a server that answered nothing is beaten by anybody."""
    return statistics.median(a.rate / b.rate if b.rate else float("inf") for a, b in zip(told, beside, strict=True))


def _best(found: Table, scene: Scene) -> str | None:
    peers = [name for name in NAMES if name not in OURS and (scene, name) in found]
    return max(peers, key=lambda name: statistics.median(each.rate for each in found[scene, name]), default=None)


def _told(value: float, wanted: float) -> str:
    return "reached" if value >= wanted else "missed"


def _shown(name: str) -> str:
    return f"**ours, {name}**" if name in OURS else name


def _ms(seconds: float) -> str:
    return "" if math.isnan(seconds) else f"{seconds * 1000:.2f} ms"


def _note(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def explained() -> str:
    """What the figures mean."""
    return (
        "The same function end to end over HTTP, `wrk` with one thread and kept connections; one process that has the model, "
        "everywhere. Ours is asked through the gateway, a process of its own, with a rate limit on top of what is always on; "
        "the peers directly. `coroutine` and `function` return `x + 1`; `cpu` uses 5 ms of processor time before that, `wait` "
        "waits 5 ms (`concurrency: 256` in sandbox.yaml; all else has its defaults). MLServer without its second process; "
        "access logs off. Cog's server runs one prediction at a time unless it is a coroutine, and "
        "refuses the rest: only good answers count. Median of the rounds; ratios are taken within a round."
    )


def run(names: Sequence[str] = NAMES, scenes: Sequence[Scene] = SCENES, rounds: int = ROUNDS) -> str:
    """Measure; the tables."""
    if shutil.which("wrk") is None:
        raise SystemExit("wrk, which makes the load, is not installed: it is a package of Debian")
    began = time.monotonic()
    found, missing = measure(names, scenes, rounds)
    lines = [*targets(found, scenes), *(f"{_shown(name)}: not measured: {why}" for name, why in missing.items())]
    took = f"Took {time.monotonic() - began:.0f} s.\n"
    return "\n\n".join([table(found, scenes), "".join(f"- {line}\n" for line in lines).rstrip(), took])


def main(words: Sequence[str]) -> None:
    """Measure what was asked for, and print it."""
    parser = argparse.ArgumentParser("python -m tests.bench predict", description=__doc__)
    parser.add_argument("--rows", default=",".join(NAMES), help=", ".join(NAMES))
    parser.add_argument("--scenes", help=f"separated by semicolons; of {'; '.join(scene.title for scene in SCENES)}")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    chosen = parser.parse_args(words)
    names = [name for name in NAMES if name in chosen.rows.split(",")]
    asked = [part.strip() for part in chosen.scenes.split(";")] if chosen.scenes else None
    print(run(names, [scene for scene in SCENES if asked is None or scene.title in asked], chosen.rounds))
