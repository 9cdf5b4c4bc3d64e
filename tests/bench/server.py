"""What every measured server offers the reload benchmark, ours and the peers'."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

ENDS_WITHIN = 10.0


class Unavailable(Exception):  # noqa: N818 - it is no defect: the machine lacks something
    """This server cannot be had here; the message says why."""


class Server(Protocol):
    """A running server whose model can be saved."""

    @property
    def url(self) -> str:
        """Where a POST of `{"x": 0.0}` is answered."""

    def save(self, version: int) -> None:
        """What the editor does, and nothing that takes time before its write()."""

    def phases(self) -> Sequence[Mapping[str, float]]:
        """Seconds by phase of every reload since it was last asked; nothing where the server does not tell."""


def run(words: Sequence[str | Path], **options: object) -> str:
    """The output of a command. Raises Unavailable with its last words."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    except OSError as error:
        raise Unavailable(f"{words[0]}: {error.strerror}") from error
    if done.returncode:
        raise Unavailable(last_words(f"{done.stdout}\n{done.stderr}") or f"{words[0]} exits with {done.returncode}")
    return done.stdout


def last_words(text: str) -> str:
    """The end of what a program said, in one line."""
    return " ".join(line.strip() for line in text.strip().splitlines()[-3:])[-300:]


@contextmanager
def program(words: Sequence[str | Path], folder: Path, environ: Mapping[str, str], log: Path):
    """A program in a session of its own, ended with all it started."""
    with log.open("w") as output:
        process = subprocess.Popen(
            words, cwd=folder, env={**os.environ, **environ}, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(ENDS_WITHIN)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
