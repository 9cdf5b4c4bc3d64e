"""A project folder to write files into and load."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.plan.types import Desired, RuntimeKind
from orchestrator.spec import load, resolve


@dataclass(frozen=True)
class Folder:
    """A project directory with model directories to be named."""

    root: Path

    def write(self, path: str, text: str = "") -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    def load(self, text: str | None = None, environ: Mapping[str, str] | None = None) -> load.Project:
        if text is not None:
            self.write("sandbox.yaml", text)
        return load.load(str(self.root / "sandbox.yaml"), environ or {})

    def resolve(
        self,
        text: str | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        profiles: Sequence[str] = (),
        models: Sequence[str] = (),
        runtime: RuntimeKind = "process",
        interpreter: Callable[[RuntimeKind, str], str] = lambda kind, python: f"{kind} {python or '3.11.7'}",
    ) -> Desired:
        project = self.load(text, environ)
        return resolve.resolve(project, profiles=profiles, models=models, runtime=runtime, interpreter=interpreter)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "project")
    for name in ("hello", "digits"):
        made.write(f"model_dirs/{name}/main.py", "def predict(x): return x\n")
    return made
