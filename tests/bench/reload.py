"""From a save to the first answer of the new code, ours and the peers', paired in one run: `python -m tests.bench reload`.

Clock: from just before the editor's write() to the last byte of the first answer that the new code gave, one client
calling back to back over one connection. All servers of a model run at once, and are measured one at a time, in rounds,
forwards and backwards by turns. Any answer but a good one counts as failed.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import partial

from tests.bench import compose, ours, peers, report
from tests.bench.caller import Caller
from tests.bench.figures import AFTER, Block, Row, orders, share
from tests.bench.server import Server, Unavailable
from tests.bench.subjects import SUBJECTS, Subject

OURS = ("process", "docker")
# Containers and environments are made in this order; a save of a later one may be as slow as it likes.
SERVERS: dict[str, Callable[[Subject], AbstractContextManager[Server]]] = {
    **{runtime: partial(ours.sandbox, runtime=runtime) for runtime in OURS},
    "uvicorn-reload": peers.uvicorn_reload,
    "bentoml-reload": peers.bentoml_reload,
    "gunicorn-hup": peers.gunicorn_hup,
    **{row: partial(compose.watched, row=row) for row in compose.ACTIONS},
}
SAVES = 30
PEER_SAVES = 5
ROUNDS = 3
QUIET = 1.0  # calls without a save, at the start of each block
PAUSE = (0.1, 0.3)  # after AFTER, before the next save: no server may get used to a beat
SETTLE = 3.0  # what is made in the background after the start: our zygotes, the peers' watchers
STARTS_WITHIN = 60.0
ANSWERS_WITHIN = 30.0
GIVEN_UP_AFTER = 3  # saves in a row that never answered


@dataclass(slots=True)
class _Measured:
    """A running server, its row, and which version it was saved as last."""

    server: Server
    row: Row
    version: int = 1
    unanswered: int = 0


@dataclass(slots=True)
class Findings:
    """What was measured of one model, and of whom not and why."""

    subject: Subject
    rows: list[Row] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def measure(subject: Subject, names: Sequence[str], saves: int, peer_saves: int, rounds: int) -> Findings:
    """Start the servers of a model, save it in all of them by turns, take them down."""
    found, began, pace = Findings(subject), time.monotonic(), random.Random(7)
    with ExitStack() as stack:
        running: dict[str, _Measured] = {}
        for name in names:
            try:
                running[name] = _started(stack, subject, name)
            except Unavailable as reason:
                found.missing[name] = str(reason)
        time.sleep(SETTLE)
        for number, order in enumerate(orders(list(running), rounds)):
            for name in order:
                each = running[name]
                count = share(saves if name in OURS else peer_saves, rounds, number)
                if each.unanswered < GIVEN_UP_AFTER and count:
                    _note(f"{subject.name}: {name}, {count} saves")
                    each.row.add(_block(each, count, pace))
        found.rows = [each.row for each in running.values()]
    found.seconds = time.monotonic() - began
    return found


def _started(stack: ExitStack, subject: Subject, name: str) -> _Measured:
    """A server that answers. Raises Unavailable; then nothing of it is left."""
    _note(f"{subject.name}: starting {name}")
    _enough_memory(subject)
    with ExitStack() as own:
        server = own.enter_context(SERVERS[name](subject))
        with Caller(server.url) as caller:
            if caller.wait(1, STARTS_WITHIN) is None:
                raise Unavailable(f"no good answer within {STARTS_WITHIN:.0f} s: {caller.trouble}")
        stack.push(own.pop_all())
    return _Measured(server, Row(subject.name, name))


def _enough_memory(subject: Subject) -> None:
    with open("/proc/meminfo", encoding="ascii") as file:
        free = next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    if free < 2 * subject.memory:  # one to serve, one to take over
        raise Unavailable(f"too little memory is available: {free >> 20} MB")


def _block(measured: _Measured, count: int, pace: random.Random) -> Block:
    server, saves, seconds = measured.server, [], []
    server.phases()
    with Caller(server.url) as caller:
        caller.wait(measured.version, ANSWERS_WITHIN)
        began = time.perf_counter()
        time.sleep(QUIET)
        quiet = (began, time.perf_counter())
        for _ in range(count):
            measured.version += 1
            saves.append(time.perf_counter())
            server.save(measured.version)
            answered = caller.wait(measured.version, ANSWERS_WITHIN)
            measured.unanswered = 0 if answered is not None else measured.unanswered + 1
            if answered is not None:
                seconds.append(answered - saves[-1])
            if measured.unanswered == GIVEN_UP_AFTER:
                break
            time.sleep(AFTER + pace.uniform(*PAUSE))
    return Block(caller.calls, quiet, saves, seconds, server.phases())


def _note(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def explained() -> str:
    """What the figures mean."""
    return report.EXPLAINED.format(saves=SAVES, peer_saves=PEER_SAVES, after=AFTER * 1000)


def run(
    models: Iterable[str] = tuple(SUBJECTS),
    rows: Iterable[str] = tuple(SERVERS),
    saves: int = SAVES,
    peer_saves: int = PEER_SAVES,
    rounds: int = ROUNDS,
) -> str:
    """Measure; the tables."""
    text = []
    for model in models:
        found = measure(SUBJECTS[model], list(rows), saves, peer_saves, rounds)
        text.append(report.section(found.subject, found.rows, found.missing, found.seconds))
    return "\n".join(text)


def _list(known: Iterable[str]) -> Callable[[str], list[str]]:
    def read(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(known)}")
        return names

    return read


def main(words: Sequence[str]) -> None:
    """Measure what was asked for, and print it."""
    parser = argparse.ArgumentParser("python -m tests.bench reload", description=__doc__)
    parser.add_argument("--models", type=_list(SUBJECTS), default=list(SUBJECTS), help=", ".join(SUBJECTS))
    parser.add_argument("--rows", type=_list(SERVERS), default=list(SERVERS), help=", ".join(SERVERS))
    parser.add_argument("--saves", type=int, default=SAVES, help="of each row of ours")
    parser.add_argument("--peer-saves", type=int, default=PEER_SAVES)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    chosen = parser.parse_args(words)
    print(run(chosen.models, chosen.rows, chosen.saves, chosen.peer_saves, chosen.rounds))
