"""The paths that the gateway answers, and what each is: a table and how a path is found in it."""

from __future__ import annotations

import difflib
import enum
import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote

from orchestrator.gateway.envelope import Refusal


class Kind(enum.Enum):
    """What answers: the gateway itself (by name), a worker named by the path, or one named by the body.

    VERSION: a worker, if the version in the path is its own. APP: whatever is below the path, with every method.
    """

    INDEX = enum.auto()
    HEALTH = enum.auto()
    READY = enum.auto()
    METRICS = enum.auto()
    MODELS = enum.auto()
    MODEL = enum.auto()
    INFO = enum.auto()
    WORKER = enum.auto()
    WORKER_BY_BODY = enum.auto()
    VERSION = enum.auto()
    APP = enum.auto()
    WEBSOCKET = enum.auto()
    OPENAPI = enum.auto()
    DOCS = enum.auto()
    V2_SERVER = enum.auto()
    V2_LIVE = enum.auto()
    V2_READY = enum.auto()
    V2_MODEL_READY = enum.auto()
    V2_INDEX = enum.auto()
    V2_LOAD = enum.auto()
    V2_UNLOAD = enum.auto()
    PREFLIGHT = enum.auto()


class Form(enum.Enum):
    """In which form an error is answered."""

    ENVELOPE = enum.auto()
    OPENAI = enum.auto()
    V2 = enum.auto()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One row. path: with {name} where the model's name stands, also the metric's label. upstream: the worker's path.

    methods: none named means all. counted: False for probes, which are neither counted nor limited. needs: what a key
    must be allowed to do here; "" where every key will do.
    """

    path: str
    methods: tuple[str, ...]
    kind: Kind
    upstream: str = ""
    counted: bool = True
    needs: str = ""


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("/", ("GET", "HEAD"), Kind.INDEX),
    Endpoint("/health", ("GET", "HEAD"), Kind.HEALTH, counted=False),
    Endpoint("/ready", ("GET", "HEAD"), Kind.READY, counted=False, needs="observe"),
    Endpoint("/metrics", ("GET", "HEAD"), Kind.METRICS, counted=False, needs="observe"),
    Endpoint("/models/{name}/predict", ("POST",), Kind.WORKER, "/predict", needs="infer"),
    Endpoint("/models/{name}/predict/batch", ("POST",), Kind.WORKER, "/predict/batch", needs="infer"),
    Endpoint("/models/{name}/health", ("GET", "HEAD"), Kind.WORKER, "/health", counted=False),
    Endpoint("/models/{name}/info", ("GET", "HEAD"), Kind.INFO),
    Endpoint("/v1/models", ("GET", "HEAD"), Kind.MODELS),
    Endpoint("/v1/models/{name}", ("GET", "HEAD"), Kind.MODEL),
    Endpoint("/v1/chat/completions", ("POST",), Kind.WORKER_BY_BODY, "/v1/chat/completions", needs="infer"),
    Endpoint("/v1/completions", ("POST",), Kind.WORKER_BY_BODY, "/v1/completions", needs="infer"),
    Endpoint("/v1/embeddings", ("POST",), Kind.WORKER_BY_BODY, "/v1/embeddings", needs="infer"),
    Endpoint("/models/{name}/ws", ("GET",), Kind.WEBSOCKET, "/ws", needs="infer"),
    Endpoint("/models/{name}/app", (), Kind.APP, "/app", needs="infer"),
    Endpoint("/openapi.json", ("GET", "HEAD"), Kind.OPENAPI),
    Endpoint("/docs", ("GET", "HEAD"), Kind.DOCS),
    Endpoint("/v2", ("GET", "HEAD"), Kind.V2_SERVER),
    Endpoint("/v2/health/live", ("GET", "HEAD"), Kind.V2_LIVE, counted=False),
    Endpoint("/v2/health/ready", ("GET", "HEAD"), Kind.V2_READY, counted=False, needs="observe"),
    Endpoint("/v2/models/{name}", ("GET", "HEAD"), Kind.WORKER, "/v2"),
    Endpoint("/v2/models/{name}/ready", ("GET", "HEAD"), Kind.V2_MODEL_READY, counted=False),
    Endpoint("/v2/models/{name}/infer", ("POST",), Kind.WORKER, "/v2/infer", needs="infer"),
    Endpoint("/v2/models/{name}/versions/{version}", ("GET", "HEAD"), Kind.VERSION, "/v2"),
    Endpoint("/v2/models/{name}/versions/{version}/ready", ("GET", "HEAD"), Kind.V2_MODEL_READY, counted=False),
    Endpoint("/v2/models/{name}/versions/{version}/infer", ("POST",), Kind.VERSION, "/v2/infer", needs="infer"),
    Endpoint("/v2/repository/index", ("POST",), Kind.V2_INDEX),
    Endpoint("/v2/repository/models/{name}/load", ("POST",), Kind.V2_LOAD, needs="manage"),
    Endpoint("/v2/repository/models/{name}/unload", ("POST",), Kind.V2_UNLOAD, needs="manage"),
)
# A name that a file system or another parser would read as a way to somewhere else.
_TRAVERSAL = re.compile(r"[/\\\x00-\x1f\x7f]|^\.{1,2}$")
_EXACT = {endpoint.path: endpoint for endpoint in ENDPOINTS}


@lru_cache(maxsize=512)
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
    if endpoint.methods and method not in endpoint.methods:
        allowed = ", ".join(endpoint.methods)
        raise Refusal(
            "METHOD_NOT_ALLOWED", f"{path} does not take {method}", f"use {allowed}", headers={"Allow": allowed}
        )
    return endpoint, name


def form(target: str) -> Form:
    """In which form errors of this path are answered."""
    if target.startswith("/v1/"):
        return Form.OPENAI
    return Form.V2 if target.startswith("/v2") else Form.ENVELOPE


def version(target: str) -> str | None:
    """The version that a path of the Open Inference Protocol names."""
    parts = target.partition("?")[0].split("/")
    return unquote(parts[5]) if len(parts) > 5 and parts[4] == "versions" else None


def _named(path: str) -> tuple[Endpoint | None, str]:
    parts = path.split("/")
    match parts:
        case ["", "models", name, "app", *_] if name:
            pattern = "/models/{name}/app"
        case ["", "v2", "models", name, "versions", version, *rest] if name and version:
            pattern = "/".join(["/v2/models/{name}/versions/{version}", *rest])
        case ["", "v2", "models", name, *rest] if name:
            pattern = "/".join(["/v2/models/{name}", *rest])
        case ["", "v2", "repository", "models", name, verb] if name:
            pattern = f"/v2/repository/models/{{name}}/{verb}"
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
