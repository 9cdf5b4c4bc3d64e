"""The networks of one sandbox's containers: made when first needed, gone with the last replica. Blocking."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import docker
from docker.errors import APIError, NotFound
from docker.models.networks import Network as EngineNetwork

from orchestrator.plan.types import Network

LABEL = "model-sandbox."


class Networks:
    """Found by label; `held` keeps what it returned from being removed while a container joins it."""

    def __init__(self, client: docker.DockerClient, sandbox: str) -> None:
        self._client = client
        self._sandbox = sandbox
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def held(self, kind: Network) -> Iterator[str]:
        """What a container's network mode must be for `kind`: "none", or the id of a network that exists."""
        if kind == "none":
            yield "none"
            return
        with self._lock:
            found = self._list(kind)
            network = found[0] if found else self._create(kind)
            yield str(network.id)

    def remove_unused(self) -> None:
        """Remove those of this sandbox that no container uses."""
        with self._lock:
            for network in self._list():
                try:
                    network.remove()
                except NotFound:
                    continue
                except APIError as error:
                    if error.status_code != 403:  # "has active endpoints": still in use
                        raise

    def _list(self, kind: Network | None = None) -> list[EngineNetwork]:
        wanted = [f"{LABEL}sandbox={self._sandbox}"] + ([f"{LABEL}network={kind}"] if kind else [])
        return list(self._client.networks.list(filters={"label": wanted}))

    def _create(self, kind: Network) -> EngineNetwork:
        return self._client.networks.create(
            f"sandbox-{self._sandbox}-{kind}",
            driver="bridge",
            internal=kind == "internal",
            labels={f"{LABEL}sandbox": self._sandbox, f"{LABEL}network": kind},
        )
