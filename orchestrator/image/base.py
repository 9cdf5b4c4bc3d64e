"""Base images: having one for a Python version, and knowing which Python is in it."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import docker
import requests
from docker.errors import ContainerError, DockerException, ImageNotFound
from docker.models.images import Image

from orchestrator.errors import SandboxError
from orchestrator.image.engine import base_name, explain
from orchestrator.ports import Progress, Report

ASK = "import platform; print(platform.python_version(), platform.machine())"


@dataclass(frozen=True, slots=True)
class Base:
    """A base image on the engine. id: "sha256:…". python: "3.11.7". machine: "x86_64"."""

    name: str
    id: str
    python: str
    machine: str

    @property
    def identity(self) -> str:
        """What of it belongs in a lock hash: another build of the same tag is another identity."""
        return f"{self.id} {self.python} {self.machine}"


class Bases:
    """The base images of one engine. Blocking; safe to use from several threads."""

    def __init__(self, client: docker.DockerClient) -> None:
        self._client = client
        self._known: dict[str, Base] = {}
        self._lock = threading.Lock()

    def get(self, python: str, report: Report | None = None) -> Base:
        """The base image for `python` ("3.11", "" = default), pulled if the engine lacks it.

        Raises SandboxError("no-python").
        """
        name = base_name(python)
        with self._lock:
            image = self._image(name, report)
            image_id = str(image.id)
            if image_id not in self._known:
                self._known[image_id] = self._ask(name, image_id)
            return self._known[image_id]

    def _image(self, name: str, report: Report | None) -> Image:
        try:
            return self._client.images.get(name)
        except ImageNotFound:
            if report is not None:
                report(Progress(f"pulling {name}"))
        try:
            repository, _, tag = name.partition(":")
            return self._client.images.pull(repository, tag)
        except (DockerException, requests.RequestException) as error:
            raise SandboxError(
                "no-python",
                f"the base image {name} is not here and cannot be pulled ({explain(error)})",
                hint=f"docker pull {name}, or choose another python",
            ) from error

    def _ask(self, name: str, image_id: str) -> Base:
        # Only the interpreter itself knows its version: tags and image variables are what somebody wrote.
        try:
            answer = self._client.containers.run(
                image_id, ["python3", "-I", "-c", ASK], entrypoint=[], network_mode="none", remove=True, read_only=True
            )
        except ContainerError as error:
            raise SandboxError("no-python", f"the base image {name} has no working python3: {error}") from error
        version, machine = answer.decode().split()
        return Base(name, image_id, version, machine)
