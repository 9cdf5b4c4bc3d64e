"""Our rows of the reload benchmark: a sandbox of one model, in either runtime."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from tests.bench.project import Failed, Project
from tests.bench.server import Unavailable
from tests.bench.subjects import MAIN, Subject


class Ours:
    """See server.Server."""

    def __init__(self, project: Project, subject: Subject) -> None:
        self._project = project
        self._subject = subject
        self._main = project.path / subject.name / MAIN
        self._told = 0
        self.url = f"{project.url()}/models/{subject.name}/predict"

    def save(self, version: int) -> None:
        self._main.write_text(self._subject.source(version, ours=True))

    def phases(self) -> Sequence[Mapping[str, float]]:
        lines = map(json.loads, self._project.sandbox("events", "--format", "json").splitlines())
        found = [line["data"]["phases"] for line in lines if line["event"] == "reload" and line["data"].get("ok")]
        news, self._told = found[self._told :], len(found)
        return news


@contextmanager
def sandbox(subject: Subject, runtime: str) -> Iterator[Ours]:
    """`sandbox up -d` of the model alone."""
    files = {MAIN: subject.source(1, ours=True), "requirements.txt": subject.requirements, **(subject.beside or {})}
    with Project(runtime, files={subject.name: files}) as project:
        try:
            project.sandbox("up", "-d")
        except Failed as failure:
            raise Unavailable(str(failure)) from failure
        yield Ours(project, subject)
