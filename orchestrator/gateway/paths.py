"""The paths that the gateway answers, and what each is: a table and how a path is found in it."""

from __future__ import annotations

import difflib
import enum
import re
from dataclasses import dataclass
from urllib.parse import unquote

from orchestrator.gateway.envelope import Refusal


class Kind(enum.Enum):
    """What answers: the gateway itself (by name), a worker named by the path, or one named by the body."""

    INDEX = enum.auto()
    HEALTH = enum.auto()
    READY = enum.auto()
    METRICS = enum.auto()
    MODELS = enum.auto()
    MODEL = enum.auto()
    INFO = enum.auto()
    WORKER = enum.auto()
    WORKER_BY_BODY = enum.auto()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One row. path: with {name} where the model's name stands, also the metric's label. upstream: the worker's path.

    counted: False for probes, which are neither counted nor limited.
    """

    path: str
    methods: tuple[str, ...]
    kind: Kind
    upstream: str = ""
    counted: bool = True


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("/", ("GET", "HEAD"), Kind.INDEX),
    Endpoint("/health", ("GET", "HEAD"), Kind.HEALTH, counted=False),
    Endpoint("/ready", ("GET", "HEAD"), Kind.READY, counted=False),
    Endpoint("/metrics", ("GET", "HEAD"), Kind.METRICS, counted=False),
    Endpoint("/models/{name}/predict", ("POST",), Kind.WORKER, "/predict"),
    Endpoint("/models/{name}/predict/batch", ("POST",), Kind.WORKER, "/predict/batch"),
    Endpoint("/models/{name}/health", ("GET", "HEAD"), Kind.WORKER, "/health", counted=False),
    Endpoint("/models/{name}/info", ("GET", "HEAD"), Kind.INFO),
    Endpoint("/v1/models", ("GET", "HEAD"), Kind.MODELS),
    Endpoint("/v1/models/{name}", ("GET", "HEAD"), Kind.MODEL),
    Endpoint("/v1/chat/completions", ("POST",), Kind.WORKER_BY_BODY, "/v1/chat/completions"),
    Endpoint("/v1/completions", ("POST",), Kind.WORKER_BY_BODY, "/v1/completions"),
    Endpoint("/v1/embeddings", ("POST",), Kind.WORKER_BY_BODY, "/v1/embeddings"),
)
# A name that a file system or another parser would read as a way to somewhere else.
_TRAVERSAL = re.compile(r"[/\\\x00-\x1f\x7f]|^\.{1,2}$")
_EXACT = {endpoint.path: endpoint for endpoint in ENDPOINTS}


def find(method: str, path: str) -> tuple[Endpoint, str]:
    """The endpoint of a raw (still quoted) path and the model it names, "" where it names none.

    Raises Refusal(NOT_FOUND | METHOD_NOT_ALLOWED | INVALID_REQUEST).
    """
    endpoint, name = _EXACT.get(path), ""
    if endpoint is None or "{" in path:
        endpoint, name = _named(path)
    if endpoint is None:
        raise _unknown(path)
    if _TRAVERSAL.search(name):
        raise Refusal(
            "INVALID_REQUEST", "the model's name is no name", "it has neither slashes nor dots alone", close=True
        )
    if method not in endpoint.methods:
        allowed = ", ".join(endpoint.methods)
        raise Refusal(
            "METHOD_NOT_ALLOWED", f"{path} does not take {method}", f"use {allowed}", headers={"Allow": allowed}
        )
    return endpoint, name


def is_openai(path: str) -> bool:
    """Whether errors under this path have OpenAI's form."""
    return path.startswith("/v1/")


def _named(path: str) -> tuple[Endpoint | None, str]:
    parts = path.split("/")
    match parts:
        case ["", "models", name, *_] if name and len(parts) > 3:
            pattern = "/".join(["", "models", "{name}", *parts[3:]])
        case ["", "v1", "models", name] if name:
            pattern = "/v1/models/{name}"
        case _:
            return None, ""
    return _EXACT.get(pattern), unquote(name)


def _unknown(path: str) -> Refusal:
    shown = path if len(path) <= 200 else f"{path[:200]}…"
    found = difflib.get_close_matches(shown, list(_EXACT), n=3, cutoff=0.5)
    details = f"near: {', '.join(found)}" if found else "GET / lists what there is"
    return Refusal("NOT_FOUND", f"there is nothing at {shown}", details)
