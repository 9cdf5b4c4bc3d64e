"""What the gateway answers of its own knowledge: the index, health, readiness, lists of models, figures."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from orchestrator import __version__
from orchestrator.exposition import render
from orchestrator.gateway.envelope import Refusal
from orchestrator.gateway.metrics import Recorder
from orchestrator.gateway.pool import fetch
from orchestrator.gateway.routes import Routes
from orchestrator.gateway.upstream import Died, NeverStarted
from orchestrator.ports import Route, Upstream
from orchestrator.sockets import SocketRefused

_ANSWERING = frozenset({"running", "degraded"})
# What a scrape waits for control before the gateway answers with its own figures.
CONTROL_DEADLINE = 5.0

# Whether a list shows a model to who asks.
Sees = Callable[[str], bool]


class Pages:
    """The gateway's own answers, as data. state: the folder with control's socket, None where there is none."""

    def __init__(self, routes: Routes, recorder: Recorder, state: str | None) -> None:
        self._routes = routes
        self._recorder = recorder
        self._state = state
        self._started = int(time.time())

    def index(self, sees: Sees) -> dict[str, Any]:
        """`GET /`."""
        models = {
            name: {"state": route.state, "predict": f"/models/{name}/predict", "info": f"/models/{name}/info"}
            for name, route in self._routes.models.items()
            if sees(name)
        }
        links = ["/docs", "/openapi.json", "/health", "/ready", "/metrics", "/v1/models", "/v1/chat/completions", "/v2"]
        return {"name": "model-sandbox", "version": __version__, "models": models, "links": links}

    def health(self) -> dict[str, Any]:
        """`GET /health`: this process serves."""
        return {"status": "ok", "pid": os.getpid()}

    def ready(self) -> dict[str, Any]:
        """`GET /ready`. Raises Refusal(MODEL_NOT_LOADED) naming the models that do not answer."""
        states = {name: route.state for name, route in self._routes.models.items()}
        waiting = {name: state for name, state in states.items() if state not in _ANSWERING}
        if not self._routes.synced.is_set():
            raise Refusal("MODEL_NOT_LOADED", "the gateway was not told its models yet", retry_after=1)
        if waiting:
            named = ", ".join(f"{name} ({state})" for name, state in waiting.items())
            raise Refusal("MODEL_NOT_LOADED", f"not ready: {named}", {"models": states}, retry_after=1)
        return {"models": states}

    def info(self, name: str) -> dict[str, Any]:
        """`GET /models/{name}/info`. Raises Refusal(MODEL_NOT_FOUND)."""
        route = self._routes.route(name)
        return {
            "name": name,
            **route.info,
            "state": route.state,
            "generation": route.generation,
            "content": route.content[:12] if route.content is not None else None,
            "reason": route.reason,
            "error": route.error,
        }

    def models(self, sees: Sees) -> dict[str, Any]:
        """`GET /v1/models`."""
        listed = [self._model(name, route) for name, route in self._routes.models.items() if sees(name)]
        return {"object": "list", "data": listed}

    def model(self, name: str) -> dict[str, Any]:
        """`GET /v1/models/{id}`. Raises Refusal(MODEL_NOT_FOUND)."""
        return self._model(name, self._routes.route(name))

    def _model(self, name: str, route: Route) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": self._started,
            "owned_by": "model-sandbox",
            "generation": route.generation,
            "content": route.content[:12] if route.content is not None else None,
            "state": route.state,
        }

    def require_app(self, name: str) -> None:
        """Raises Refusal(MODEL_NOT_FOUND | NOT_FOUND): the model's own paths need an application of its own."""
        if not self._routes.route(name).info.get("app", True):
            raise Refusal("NOT_FOUND", f"model {name!r} has no ASGI application", "main.py exposes one as `app`")

    def require_version(self, name: str, version: str | None) -> None:
        """Raises Refusal(MODEL_NOT_FOUND) where the model is there in another version only."""
        own = self._routes.route(name).info.get("version")
        if version is not None and version != own:
            there = f"its version is {own}" if own else "config.yaml gives it no version"
            raise Refusal("MODEL_NOT_FOUND", f"model {name!r} has no version {version!r:.60}", there)

    def v2_server(self) -> dict[str, Any]:
        """`GET /v2`."""
        return {
            "name": "model-sandbox",
            "version": __version__,
            "extensions": ["binary_tensor_data", "model_repository"],
        }

    def v2_ready(self, name: str, version: str | None) -> dict[str, Any]:
        """`GET /v2/models/{m}/ready`. Raises Refusal(MODEL_NOT_FOUND | MODEL_NOT_LOADED)."""
        self.require_version(name, version)
        self.v2_load(name)
        return {"name": name, "ready": True}

    def v2_index(self, body: bytes, sees: Sees) -> list[dict[str, Any]]:
        """`POST /v2/repository/index`; {"ready": true} asks for those that answer. Raises Refusal(INVALID_REQUEST)."""
        try:
            asked = json.loads(body) if body.strip() else {}
        except (ValueError, RecursionError) as error:
            raise Refusal("INVALID_REQUEST", "the body is not JSON", str(error)) from error
        only_ready = isinstance(asked, dict) and asked.get("ready") is True
        listed = []
        for name, route in self._routes.models.items():
            ready = route.state in _ANSWERING
            if (ready or not only_ready) and sees(name):
                state, reason = ("READY", "") if ready else ("UNAVAILABLE", route.reason or route.state)
                version = str(route.info.get("version") or "")
                listed.append({"name": name, "version": version, "state": state, "reason": reason})
        return listed

    def v2_load(self, name: str) -> None:
        """What is listed in sandbox.yaml is loaded, and loaded again by each save: nothing is left to be done.

        Raises Refusal(MODEL_NOT_FOUND | MODEL_NOT_LOADED) where it does not answer.
        """
        route = self._routes.route(name)
        if route.state not in _ANSWERING:
            raise Refusal("MODEL_NOT_LOADED", f"model {name!r} is {route.state}", route.reason or "", retry_after=1)

    def v2_unload(self, name: str) -> Refusal:
        """Which models run is sandbox.yaml's to say. Raises Refusal(MODEL_NOT_FOUND)."""
        self._routes.route(name)
        return Refusal(
            "INVALID_REQUEST", f"model {name!r} is not unloaded by a client", "take it out of sandbox.yaml instead"
        )

    async def metrics(self, accept: Sequence[str]) -> tuple[bytes, str]:
        """`GET /metrics`: control's answer, which sums all gateways; this gateway's figures while control is away."""
        wanted = ",".join(accept)
        if self._state is not None:
            control = Upstream("control", self._state, "control.sock", os.geteuid())
            try:
                head, body = await fetch(control, "/metrics", [("Accept", wanted or "*/*")], CONTROL_DEADLINE)
            except (SocketRefused, NeverStarted, Died, TimeoutError):
                head = None
            if head is not None and head.status == 200:
                return body, head.get("content-type") or "text/plain"
        return render(self._recorder.families(), wanted)
