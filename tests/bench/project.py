"""A throw-away project with a sandbox of its own, for the benchmarks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parents[2]
SANDBOX = [sys.executable, "-m", "orchestrator.cli"]


class Failed(SystemExit):
    """A command failed; it ends the benchmark where nobody knows better."""


class Project:
    """One sandbox.yaml and a state folder of its own. Taken down and removed at the end.

    models: copied from the examples. files: further models, by file name and text.
    """

    def __init__(
        self, runtime: str, models: Sequence[str] = (), files: Mapping[str, Mapping[str, str]] | None = None
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sbench"))
        self.path = self.folder / "project"
        self.environ = {**os.environ, "XDG_STATE_HOME": str(self.folder / "state")}
        self.path.mkdir()
        for model in models:
            shutil.copytree(ROOT / "model_dirs" / model, self.path / model)
        for model, texts in (files or {}).items():
            (self.path / model).mkdir()
            for name, text in texts.items():
                (self.path / model / name).write_text(text)
        listed = "".join(f"  {model}: {model}\n" for model in [*models, *(files or {})])
        (self.path / "sandbox.yaml").write_text(f"runtime: {runtime}\ngateway: {{port: 0}}\nmodels:\n{listed}")
        self.folder.chmod(0o755)  # a container that root starts runs as another user

    def sandbox(self, *words: str) -> str:
        """Run one command; its output. Raises Failed."""
        done = subprocess.run(
            [*SANDBOX, *words], cwd=self.path, env=self.environ, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Failed(f"sandbox {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def url(self) -> str:
        """Where its gateway answers."""
        row = json.loads(self.sandbox("ps", "--format", "json").splitlines()[0])
        return str(row["url"]).partition("/models/")[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sandbox("down", "-t", "0")
        shutil.rmtree(self.folder, ignore_errors=True)
