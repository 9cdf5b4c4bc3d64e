"""Throw-away environments and images for the peers, through the package settings of this machine."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import uv

from orchestrator.errors import SandboxError
from orchestrator.image import buildx, context, engine, index, installer, parts
from orchestrator.plan.types import Requirements
from orchestrator.runtimes import environments
from tests.bench.server import Unavailable, last_words, run


def environment(folder: Path, packages: Sequence[str]) -> Path:
    """The python of a new environment in `folder`."""
    python = folder / "bin" / "python"
    tool = uv.find_uv_bin()
    options, variables = environments._index(index.read())
    environ = {**os.environ, "UV_PYTHON_DOWNLOADS": "never", **variables}
    run([tool, "venv", "-q", "--no-project", "--no-config", folder], env=environ)
    run([tool, "pip", "install", "-q", "--no-config", "--python", python, *packages, *options], env=environ)
    return python


@contextmanager
def image(name: str, packages: Sequence[str]) -> Iterator[str]:
    """An image with the packages in /opt/env, on the base image that our models have too."""
    try:
        socket = engine.find_socket()
    except SandboxError as error:
        raise Unavailable(str(error)) from error
    if reason := buildx.missing(socket):
        raise Unavailable(reason)
    tag = f"sandbox-bench/{name}"
    said: list[str] = []
    with tempfile.TemporaryDirectory(prefix="sbench") as folder:
        source = os.path.join(folder, "context")
        os.mkdir(source)
        context.context(Requirements("".join(f"{package}\n" for package in packages))).write(source)
        transcript = installer.Transcript(lambda progress: said.append(progress.message))
        order = parts.Parts(
            folder=folder,
            context=source,
            base=engine.base_name(""),
            requirements=True,
            index=index.read(),
            tag=tag,
            labels={},
        )
        if not buildx.build(socket, order, transcript):
            raise Unavailable(last_words("\n".join(transcript.failure(name).log)))
    try:
        yield tag
    finally:
        run(["docker", "image", "rm", tag])
