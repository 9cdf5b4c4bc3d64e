"""Makes environment images, each lock hash once. It knows builders and the engine; not who runs the image."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import docker
from docker.errors import ImageNotFound

from orchestrator.errors import SandboxError
from orchestrator.image import buildx, classic
from orchestrator.image.base import Base
from orchestrator.image.context import context
from orchestrator.image.engine import EngineTraits, refusals
from orchestrator.image.index import PackageIndex, read
from orchestrator.image.installer import Transcript
from orchestrator.image.parts import Parts
from orchestrator.plan.types import Requirements
from orchestrator.ports import Environment, Progress, Report

REPOSITORY = "model-sandbox/env"
LABEL = "model-sandbox."
FORMAT = "1"


@dataclass(frozen=True, slots=True)
class Order:
    """An environment to be built. requirements: with an empty text, a bare environment."""

    model: str
    lock_hash: str
    requirements: Requirements
    base: Base


def tag(lock_hash: str) -> str:
    """The name under which every project on this engine finds the image of a lock hash."""
    return f"{REPOSITORY}:{lock_hash[:32]}"


class ImageBuilder:
    """Builds on one engine. Blocking; several threads and processes may build at once, one lock hash only once."""

    def __init__(
        self, client: docker.DockerClient, socket: str, cache: str, environ: Mapping[str, str] = os.environ
    ) -> None:
        self._client = client
        self._socket = socket
        self._folder = os.path.join(cache, "builds")
        self._environ = environ

    def find(self, order: Order) -> Environment | None:
        """The environment, where its image is there already."""
        with refusals("look for an image"):
            try:
                image = self._client.images.get(tag(order.lock_hash))
            except ImageNotFound:
                return None
        return Environment(order.lock_hash, str(image.id), image.labels.get(f"{LABEL}python", order.base.python))

    def build(self, order: Order, report: Report) -> Environment:
        """The environment, built unless it is there. Raises BuildError, RuntimeFailure("engine")."""
        if found := self.find(order):
            return found
        with self._alone(order.lock_hash, report):
            # Whoever held the lock before may have built it.
            if found := self.find(order):
                return found
            report(Progress(f"building the environment on {order.base.name}"))
            self._run(order, report)
            if found := self.find(order):
                return found
        raise SandboxError("engine", f"the image {tag(order.lock_hash)} was built and is not there")

    def _run(self, order: Order, report: Report) -> None:
        index = read(self._environ) if order.requirements.text else PackageIndex()
        labels = {
            f"{LABEL}format": FORMAT,
            f"{LABEL}kind": "environment",
            f"{LABEL}lock-hash": order.lock_hash,
            f"{LABEL}python": order.base.python,
        }
        with self._parts(order, index, labels) as parts:
            transcript = Transcript(report)
            reason = self._why_classic(index)
            if reason is None:
                built = buildx.build(self._socket, parts, transcript)
            else:
                report(Progress(f"building without BuildKit: {reason}"))
                built = classic.build(self._client, parts, transcript)
            if not built:
                raise transcript.failure(order.model)

    def _why_classic(self, index: PackageIndex) -> str | None:
        if (reason := buildx.missing(self._socket)) is not None:
            return reason
        with refusals("describe itself"):
            traits = EngineTraits.of(self._client.info())
        if index.folders() and traits.rootless:
            return "a rootless engine's builds cannot reach local package folders"
        return None

    @contextlib.contextmanager
    def _parts(self, order: Order, index: PackageIndex, labels: Mapping[str, str]) -> Iterator[Parts]:
        # Not in /tmp: an engine installed as a snap has a /tmp of its own.
        folder = tempfile.mkdtemp(prefix="build-", dir=self._folder)
        try:
            source = os.path.join(folder, "context")
            os.mkdir(source)
            context(order.requirements).write(source)
            yield Parts(
                folder=folder,
                context=source,
                base=order.base.name,
                requirements=bool(order.requirements.text),
                index=index,
                tag=tag(order.lock_hash),
                labels=dict(labels),
            )
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def _alone(self, lock_hash: str, report: Report) -> Iterator[None]:
        """Hold the lock of one lock hash, between threads and processes; it ends with its holder."""
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        with open(os.path.join(self._folder, f"{lock_hash[:32]}.lock"), "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                report(Progress("waiting for another build of the same environment"))
                fcntl.flock(file, fcntl.LOCK_EX)
            yield
