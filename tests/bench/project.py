"""A throw-away project with a sandbox of its own, for the benchmarks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parents[2]
SANDBOX = [sys.executable, "-m", "orchestrator.cli"]


class Project:
    """Models copied from the examples, one sandbox.yaml, a state folder of its own. Taken down and removed at the end."""

    def __init__(self, runtime: str, models: list[str]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sbench"))
        self.path = self.folder / "project"
        self.environ = {**os.environ, "XDG_STATE_HOME": str(self.folder / "state")}
        self.path.mkdir()
        for model in models:
            shutil.copytree(ROOT / "model_dirs" / model, self.path / model)
        listed = "".join(f"  {model}: {model}\n" for model in models)
        (self.path / "sandbox.yaml").write_text(f"runtime: {runtime}\ngateway: {{port: 0}}\nmodels:\n{listed}")
        self.folder.chmod(0o755)  # a container that root starts runs as another user

    def sandbox(self, *words: str) -> str:
        """Run one command; its output. A failure ends the benchmark."""
        done = subprocess.run(
            [*SANDBOX, *words], cwd=self.path, env=self.environ, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"sandbox {' '.join(words)}: {done.stdout}{done.stderr}")
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
