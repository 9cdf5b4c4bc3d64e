"""Which sandboxes use which environment image: each holds a tag of its own, so that the engine itself counts them."""

from __future__ import annotations

import docker
from docker.errors import APIError, ImageNotFound

from orchestrator.image.build import REPOSITORY
from orchestrator.image.engine import refusals
from orchestrator.ports import Environment


def claim(client: docker.DockerClient, sandbox: str, environment: Environment) -> None:
    """Say that a sandbox uses this image."""
    with refusals("tag an image"):
        client.api.tag(environment.location, _repository(sandbox), environment.lock_hash[:32], force=True)


def release(client: docker.DockerClient, sandbox: str) -> None:
    """Give up all of a sandbox's claims; images that nobody else claims or runs are removed."""
    with refusals("remove an image"):
        repository = _repository(sandbox)
        for image in client.images.list(name=repository):
            for tag in image.tags:
                if tag.startswith(f"{repository}:"):
                    client.images.remove(tag)
            _remove_unclaimed(client, str(image.id))


def _repository(sandbox: str) -> str:
    return f"model-sandbox/{sandbox}"


def _remove_unclaimed(client: docker.DockerClient, image: str) -> None:
    try:
        tags = client.images.get(image).tags
    except ImageNotFound:
        return
    if not all(tag.startswith(f"{REPOSITORY}:") for tag in tags):
        return
    for tag in tags:
        try:
            client.images.remove(tag)
        except APIError as error:
            if error.status_code != 409:  # a container runs from it
                raise
