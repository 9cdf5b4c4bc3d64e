"""Builds with BuildKit: cache mounts, secrets, layers shared between models."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from orchestrator.image.dockerfile import dockerfile
from orchestrator.image.installer import Transcript
from orchestrator.image.mirror import Mirror
from orchestrator.image.parts import Parts

if TYPE_CHECKING:
    from python_on_whales import DockerClient

# "#8 1.234 text" is what a command of the Dockerfile wrote; "#8 text" is BuildKit on its step.
_OUTPUT = re.compile(r"^#\d+ \d+\.\d+ (.*)$")
_STEP = re.compile(r"^#\d+ (.*)$")


def missing(socket: str) -> str | None:
    """Why BuildKit cannot be used, or None."""
    # Asked first, because python-on-whales would download a client where there is none.
    if shutil.which("docker") is None:
        return "the docker command is not installed"
    if not _client(socket).buildx.is_installed():
        return "docker buildx is not installed"
    return None


def build(socket: str, parts: Parts, transcript: Transcript) -> bool:
    """Whether the image was built; what was said is in the transcript."""
    from python_on_whales.exceptions import DockerException  # noqa: PLC0415 - see _client

    folders = parts.index.folders()
    with Mirror(folders) as mirror:
        secrets = parts.write_secrets(mirror.urls)
        path = os.path.join(parts.folder, "Dockerfile")
        with open(path, "w", encoding="utf-8") as file:
            file.write(dockerfile(parts.base, requirements=parts.requirements, secrets=tuple(secrets)))
        lines = _client(socket).buildx.build(
            parts.context,
            file=path,
            # The builder of the engine itself: one in a container would neither see the base image nor keep the result.
            builder="default",
            labels=dict(parts.labels),
            network="host" if folders else None,
            progress="plain",
            provenance=False,
            secrets=[f"id={name},src={source}" for name, source in secrets.items()],
            tags=parts.tag,
            stream_logs=True,
        )
        try:
            for line in cast("Iterator[str]", lines):
                _take(line.rstrip("\n"), transcript)
        except DockerException:
            return False
    return True


def _take(line: str, transcript: Transcript) -> None:
    if found := _OUTPUT.match(line):
        transcript.line(found[1])
    elif found := _STEP.match(line):
        transcript.aside(found[1])
    # Anything else repeats, after a failure, what was said before it.


def _client(socket: str) -> DockerClient:
    # Late: it costs a fifth of a second, which only a build should pay.
    from python_on_whales import DockerClient  # noqa: PLC0415

    return DockerClient(host=f"unix://{socket}")
