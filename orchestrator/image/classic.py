"""Builds without BuildKit, as the engine's old builder does: a container of the base, then a commit of it.

The old builder itself has no secrets, so whatever it is given stays in a layer or in the history. A container that we
start has them in read-only bind mounts under a tmpfs, and a commit takes neither.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import docker
from docker.errors import NotFound
from docker.models.containers import Container
from docker.types import LogConfig, Mount

from orchestrator.image.dockerfile import BUILD_FOLDER
from orchestrator.image.engine import refusals
from orchestrator.image.installer import Transcript
from orchestrator.image.parts import Parts

LABEL = "model-sandbox.build"
CACHE_VOLUME = "model-sandbox-pip"
BUILD_TIMEOUT = 3600


def build(client: docker.DockerClient, parts: Parts, transcript: Transcript) -> bool:
    """Whether the image was built; what was said is in the transcript."""
    with refusals("build an image"):
        _sweep(client, parts.tag)
        with _container(client, parts) as container:
            container.start()
            for chunk in _lines(container):
                transcript.line(chunk)
            if container.wait(timeout=BUILD_TIMEOUT)["StatusCode"] != 0:
                return False
            repository, _, tag = parts.tag.rpartition(":")
            # Each instruction replaces what the build's own container was configured with.
            changes = ['CMD ["python3"]', "ENTRYPOINT []", f'LABEL {LABEL}=""']
            changes += [f"LABEL {key}={value}" for key, value in parts.labels.items()]
            container.commit(repository, tag, changes=changes)
    return True


def _sweep(client: docker.DockerClient, tag: str) -> None:
    """Remove what an interrupted build of the same image left; the caller holds its lock."""
    for container in client.containers.list(all=True, filters={"label": f"{LABEL}={tag}"}, ignore_removed=True):
        with contextlib.suppress(NotFound):
            container.remove(force=True, v=True)


@contextlib.contextmanager
def _container(client: docker.DockerClient, parts: Parts) -> Iterator[Container]:
    folders = parts.index.folders()
    inside = {folder: f"{BUILD_FOLDER}/folders/{number}" for number, folder in enumerate(folders)}
    secrets = parts.write_secrets({folder: f"file://{path}" for folder, path in inside.items()})
    bound = {parts.context: f"{BUILD_FOLDER}/context", **inside}
    bound |= {source: f"{BUILD_FOLDER}/secrets/{name}" for name, source in secrets.items()}
    mounts = [Mount(target, source, type="bind", read_only=True) for source, target in bound.items()]
    mounts.append(Mount(f"{BUILD_FOLDER}/cache", CACHE_VOLUME, type="volume"))
    script = "python3 -m venv /opt/env"
    if parts.requirements:
        script += f" && exec sh {BUILD_FOLDER}/context/install.sh"
    container = client.containers.create(
        parts.base,
        ["sh", "-c", script],
        entrypoint=[],
        labels={LABEL: parts.tag},
        mounts=mounts,
        # Mount points would stay in the layer as empty folders; on a tmpfs they do not.
        tmpfs={"/run": "", "/tmp": "exec"},  # noqa: S108 (the container's own)
        working_dir="/",
        log_config=LogConfig(type=LogConfig.types.JSON, config={"max-size": "10m"}),
        userns_mode="host",
    )
    try:
        yield container
    finally:
        with contextlib.suppress(NotFound):
            container.remove(force=True, v=True)


def _lines(container: Container) -> Iterator[str]:
    rest = b""
    for chunk in container.logs(stream=True, follow=True):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line.decode(errors="replace") for line in whole)
    if rest:
        yield rest.decode(errors="replace")
