"""The figures of the reload benchmark as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from tests.bench.figures import Row, percentile, ratio
from tests.bench.subjects import Subject

OURS = ("process", "docker")
IN_CONTAINER = ("compose-sync-restart", "compose-sync-reload", "compose-rebuild")
WATCHING = (*IN_CONTAINER, "uvicorn-reload", "bentoml-reload")
FASTER_THAN_CONTAINERS = 20.0
FASTER_THAN_WATCHERS = 10.0

NAMES = {
    "process": "**ours, process**",
    "docker": "**ours, docker**",
    "uvicorn-reload": "`uvicorn --reload`",
    "bentoml-reload": "`bentoml serve --reload`",
    "gunicorn-hup": "gunicorn, SIGHUP after the save",
    "compose-sync-restart": "`docker compose watch`, sync+restart",
    "compose-sync-reload": "`docker compose watch`, sync, `uvicorn --reload` inside",
    "compose-rebuild": "`docker compose watch`, rebuild",
}

EXPLAINED = """\
From just before the editor's write() of main.py to the last byte of the first answer that the new code gave; one client
calls back to back over one connection. All servers of a model run at once and are saved by turns, {saves} times ours and
{peer_saves} times each peer's. The peers serve the same lines of Python without a gateway and, on the host, without
isolation; their packages are installed and compiled beforehand, for a rebuild too. gunicorn watches nothing and is told
by a signal, as a reference.

- failed: calls that got no good answer of the old or the new code, a client that is refused trying again after 10 ms.
- silence: the longest time between one good answer and the next.
- p99: of the good answers while nothing was saved, and of those of which a part lies in the {after:.0f} ms after a save.
  A server that is away for longer has its silence told, not its p99."""

HEAD = (
    "| | saves | median | p95 | max | failed calls | silence | p99 quiet | p99 at a save |\n"
    "|---|---|---|---|---|---|---|---|---|\n"
)


def section(subject: Subject, rows: Sequence[Row], missing: Mapping[str, str], seconds: float) -> str:
    """All that was found of one model."""
    parts = [f"### `{subject.name}`: {subject.about}\n"]
    if rows:
        parts.append(HEAD + "".join(map(_row, rows)))
    if told := [row for row in rows if row.phases]:
        parts.append(
            "Median of each phase, as the reload events tell, ms; `ready` counts from the order to load, so it holds those before it:\n"
        )
        parts.append("| | phases |\n|---|---|\n" + "".join(map(_phases, told)))
    parts.append("".join(f"- {line}\n" for line in [*_ratios(rows), *_targets(subject, rows), *_missing(missing)]))
    parts.append(f"Took {seconds:.0f} s.\n")
    return "\n".join(parts)


def _row(row: Row) -> str:
    lost = f" ({row.lost} never answered)" if row.lost else ""
    if not row.seconds:
        return f"| {NAMES[row.name]} | {row.saves}{lost} | | | | {row.failed} of {row.calls} | | | |\n"
    cells = [
        NAMES[row.name],
        f"{row.saves}{lost}",
        _ms(statistics.median(row.seconds)),
        _ms(percentile(row.seconds, 0.95)),
        _ms(max(row.seconds)),
        f"{row.failed} of {row.calls}",
        _ms(row.silence),
        f"{percentile(row.quiet, 0.99) * 1000:.1f} ms",
        f"{percentile(row.beside, 0.99) * 1000:.1f} ms",
    ]
    return "| " + " | ".join(cells) + " |\n"


def _phases(row: Row) -> str:
    medians = (f"{name} {statistics.median(values) * 1000:.1f}" for name, values in row.phases.items())
    return f"| {NAMES[row.name]} | {', '.join(medians)} |\n"


def _ratios(rows: Sequence[Row]) -> list[str]:
    ours = [row for row in rows if row.name in OURS]
    asked = (
        (IN_CONTAINER, FASTER_THAN_CONTAINERS, "the best peer that reloads in a container"),
        (WATCHING, FASTER_THAN_WATCHERS, "the best peer that watches at all"),
    )
    lines = []
    for names, least, whom in asked:
        found = ratio(ours, [row for row in rows if row.name in names])
        if found is not None:
            times, best = found
            reached = "reached" if times >= least else "missed"
            lines.append(
                f"The slower of ours is {times:.1f} times as fast as {whom}, {NAMES[best.name]} (target {least:.0f}: {reached})."
            )
    return lines


def _targets(subject: Subject, rows: Sequence[Row]) -> list[str]:
    target = subject.target
    asked = f"median {_ms(target.median)}, p95 {_ms(target.p95)}, no call failed, no save lost"
    lines = []
    for row in rows:
        if row.name in OURS:
            missed = target.missed(row)
            lines.append(
                f"{NAMES[row.name]}: target ({asked}) {'missed: ' + ', '.join(missed) if missed else 'reached'}."
            )
    return lines


def _missing(missing: Mapping[str, str]) -> list[str]:
    return [f"{NAMES[name]}: not measured: {reason}" for name, reason in missing.items()]


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
