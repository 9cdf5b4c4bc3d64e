"""Where a usable Docker engine is on this machine, and what its refusals mean. It knows nothing of models."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound

from orchestrator.errors import RuntimeFailure

DEFAULT_PYTHON = "3.11"
DEFAULT_SOCKET = "/var/run/docker.sock"
CALL_TIMEOUT = 60
PING_TIMEOUT = 0.9
REGISTRY_TIMEOUT = 15


def base_name(python: str) -> str:
    """The base image of a Python version: "3.11" is python:3.11-slim, "" the default version."""
    return f"python:{python or DEFAULT_PYTHON}-slim"


@dataclass(frozen=True, slots=True)
class EngineTraits:
    """What an engine is able to enforce, from its `/info`. rootless: container uid 0 is the invoking user."""

    rootless: bool = False
    user_namespaces: bool = False
    selinux: bool = False
    memory: bool = True
    swap: bool = True
    cpus: bool = True
    pids: bool = True

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> EngineTraits:
        """Read them from the engine's answer to `/info`."""
        names = {option.split(",")[0] for option in info.get("SecurityOptions") or ()}
        return cls(
            rootless="name=rootless" in names,
            user_namespaces="name=userns" in names,
            selinux="name=selinux" in names,
            memory=bool(info.get("MemoryLimit", True)),
            swap=bool(info.get("SwapLimit", True)),
            cpus=bool(info.get("CpuCfsQuota", True)),
            pids=bool(info.get("PidsLimit", True)),
        )


def find_socket(environ: Mapping[str, str] = os.environ) -> str:
    """Path of the unix socket of an engine that answers this user within a second.

    DOCKER_HOST decides where it is set; else the system's engine, then the user's own (rootless).
    Raises RuntimeFailure("no-engine").
    """
    named = environ.get("DOCKER_HOST", "")
    if named and not named.startswith("unix://"):
        raise RuntimeFailure(
            "no-engine",
            f"DOCKER_HOST is {named}: models share folders and sockets with the engine, so it must be on this machine",
            hint="unset DOCKER_HOST, or set it to unix:///var/run/docker.sock",
        )
    candidates = [named.removeprefix("unix://")] if named else [DEFAULT_SOCKET]
    if not named and (runtime_folder := environ.get("XDG_RUNTIME_DIR")):
        candidates.append(os.path.join(runtime_folder, "docker.sock"))
    refusals = []
    for path in candidates:
        try:
            _ping(path)
        except RuntimeFailure as refusal:
            refusals.append(refusal)
        else:
            return path
    # The system's engine is what most people mean, so its refusal is the one to read.
    raise refusals[0]


def _ping(path: str) -> None:
    """One request by hand: a client library takes longer to import than an absent engine takes to be noticed."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(PING_TIMEOUT)
            connection.connect(path)
            connection.sendall(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")
            answer = connection.recv(64)
    except FileNotFoundError:
        raise RuntimeFailure(
            "no-engine", f"no Docker engine: {path} does not exist", hint="install Docker, or use runtime: process"
        ) from None
    except PermissionError:
        raise RuntimeFailure(
            "no-engine",
            f"this user may not use the Docker engine ({path}: permission denied)",
            hint="sudo usermod -aG docker $USER, then log in again",
        ) from None
    except OSError as error:
        raise RuntimeFailure(
            "no-engine",
            f"the Docker engine does not answer on {path} ({error.strerror or error})",
            hint="start it: sudo systemctl start docker",
        ) from None
    if not answer.startswith(b"HTTP/1.1 200"):
        raise RuntimeFailure(
            "no-engine",
            f"the Docker engine on {path} is not healthy ({answer[:40]!r})",
            hint="its log may say why: journalctl -u docker",
        )


def connect(path: str, *, timeout: int = CALL_TIMEOUT, pool: int = 16) -> docker.DockerClient:
    """A client of the engine on `path`, its API version negotiated. timeout: of one call, in seconds."""
    with refusals("connect"):
        return docker.DockerClient(base_url=f"unix://{path}", version="auto", timeout=timeout, max_pool_size=pool)


def check_base(client: docker.DockerClient, name: str) -> None:
    """Return if the engine has the image, or could pull it; else raise RuntimeFailure("no-engine").

    Nothing is pulled: the registry is only asked whether it knows the name.
    """
    try:
        client.images.get(name)
    except ImageNotFound:
        try:
            client.images.get_registry_data(name)
        except (DockerException, requests.RequestException) as error:
            raise RuntimeFailure(
                "no-engine",
                f"the Docker engine neither has the base image {name} nor can pull it ({explain(error)})",
                hint=f"docker pull {name}",
            ) from error


def probe(environ: Mapping[str, str] = os.environ) -> str | None:
    """Why `runtime: auto` cannot take docker here, in one line; None where it can.

    Takes at most a second where no engine answers. Blocking.
    """
    try:
        path = find_socket(environ)
        client = connect(path, timeout=REGISTRY_TIMEOUT)
        with contextlib.closing(client), refusals("check"):
            check_base(client, base_name(""))
    except RuntimeFailure as failure:
        return failure.message
    return None


def live_restore(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether containers outlive the engine. Raises RuntimeFailure. Blocking."""
    client = connect(find_socket(environ), timeout=REGISTRY_TIMEOUT)
    with contextlib.closing(client), refusals("describe itself"):
        return bool(client.info().get("LiveRestoreEnabled"))


@contextlib.contextmanager
def refusals(operation: str) -> Iterator[None]:
    """Map what the client library raises to RuntimeFailure: "no-engine" where it went away, else "engine"."""
    try:
        yield
    except requests.ConnectionError as error:
        reason = f"the Docker engine was asked to {operation} and does not answer: {explain(error)}"
        raise RuntimeFailure("no-engine", reason, hint="start it: sudo systemctl start docker") from error
    except (DockerException, requests.RequestException) as error:
        reason = explain(error)
        reference = "disk-full" if "no space left on device" in reason else "engine"
        hint = (
            "free some: docker system df" if reference == "disk-full" else "its log may say more: journalctl -u docker"
        )
        raise RuntimeFailure(reference, f"the Docker engine failed to {operation}: {reason}", hint=hint) from error


def explain(error: Exception) -> str:
    """An engine's own words, in one line."""
    text = error.explanation if isinstance(error, APIError) and error.explanation else str(error)
    return " ".join(str(text).split()).removeprefix("Error response from daemon: ") or type(error).__name__
