"""The README is true: its console blocks are run from top to bottom, and what they show is what comes out.

`...` stands for anything within a line, and alone on a line for any lines. A command that only looks (curl, ps) may be
asked again for a moment: a save is followed by its reload as it is for a person, who is slower than both.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.sandbox import COMMAND, Sandbox

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PORT = "8080"
LOOKS = ("curl ", "sandbox ps")
PATIENCE = 10.0


@dataclass(frozen=True)
class Step:
    """A command and what is shown below it."""

    command: str
    shown: str


def steps(text: str) -> list[Step]:
    found = []
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            found.append(Step(command, shown))
    return found


def pattern(shown: str) -> str:
    """What the output must match as a whole; blank lines at its end do not count."""
    lines = [
        r"(?:.*\n)*?" if line == "..." else r".*?".join(map(re.escape, line.split("..."))) + r"\n"
        for line in shown.rstrip("\n").splitlines()
    ]
    return "".join(lines) + r"\n*"


@pytest.fixture(scope="module")
def runtime() -> str:
    return "process"


@pytest.fixture
def port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return str(free.getsockname()[1])


def test_the_console_blocks_of_the_readme_are_what_happens(sandbox: Sandbox, port: str) -> None:
    shutil.copytree(ROOT / "model_dirs", sandbox.project / "model_dirs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "sandbox.yaml.example", sandbox.project / "sandbox.yaml")
    more = {"SANDBOX_PORT": port, "DOCKER_HOST": "unix:///nonexistent/docker.sock"}
    sandbox.environ |= more | {"PATH": f"{Path(COMMAND[0]).parent}:{sandbox.environ['PATH']}"}

    def run(command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", command.replace(f":{PORT}", f":{port}")],
            cwd=sandbox.project,
            env=sandbox.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=90,
            check=False,
        )
        text = done.stdout.replace(f":{port}", f":{PORT}")
        return text if text.endswith("\n") or not text else f"{text}\n"

    pause = threading.Event()
    told = steps(README)
    assert len(told) >= 10
    for step in told:
        end = time.monotonic() + (PATIENCE if step.command.startswith(LOOKS) else 0.0)
        while not re.fullmatch(pattern(step.shown), came := run(step.command)):
            assert time.monotonic() < end, f"$ {step.command}\n{came}\nis not what the README shows:\n{step.shown}"
            pause.wait(0.05)


def test_a_transcript_that_is_wrong_is_noticed() -> None:
    assert re.fullmatch(pattern("one ... three\n...\nlast\n\n"), "one two three\na\nb\nlast\n")
    assert not re.fullmatch(pattern("one\n"), "one\ntwo\n")
    assert not re.fullmatch(pattern("a ... c\n"), "a b\n")
    assert steps("```console\n$ one\nout\n$ two\n```\n```sh\n$ no\n```") == [Step("one", "out\n"), Step("two", "")]
