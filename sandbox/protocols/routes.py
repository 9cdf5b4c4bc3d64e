"""The worker's paths, and which protocol answers in which form when something is refused."""

from __future__ import annotations

import sys
import traceback
from typing import Any, Awaitable, Callable, Dict, Optional, Tuple

from sandbox import result
from sandbox.connection import Connection
from sandbox.http import Request
from sandbox.protocols import asgi, completions, embeddings, envelope, openai, predict, v2, websocket
from sandbox.protocols.turn import Turn
from sandbox.refusal import Refusal
from sandbox.service import Service

Route = Callable[[Service, Turn], Awaitable[None]]


async def _health(_service: Service, turn: Turn) -> None:
    envelope.answer(turn.connection, turn.id, '{"status":"ready"}')


async def _info(service: Service, turn: Turn) -> None:
    envelope.answer(turn.connection, turn.id, result.dumps(service.info))


ROUTES: Dict[str, Tuple[str, Route]] = {
    "/predict": ("POST", predict.predict),
    "/predict/batch": ("POST", predict.predict_batch),
    "/health": ("GET", _health),
    "/info": ("GET", _info),
    "/v1/chat/completions": ("POST", completions.chat),
    "/v1/completions": ("POST", completions.complete),
    "/v1/embeddings": ("POST", embeddings.embed),
    "/ws": ("GET", websocket.talk),
    "/v2": ("GET", v2.metadata),
    "/v2/infer": ("POST", v2.infer),
}


class App:
    """Answers every request of one worker."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, request: Request, connection: Connection) -> None:
        turn = Turn(request, connection)
        path = request.path
        if "?" in path:
            path = path.partition("?")[0]
        try:
            route = self._app_route(path) or _find(path, request.method)
            await route(self._service, turn)
        except Refusal as refusal:
            _refuse(turn, path, refusal)
        except Exception as error:  # noqa: BLE001 - our own fault: say so, and leave the traceback in the log
            traceback.print_exc(file=sys.stderr)
            _refuse(turn, path, Refusal("INTERNAL_ERROR", f"the sandbox failed: {type(error).__name__}: {error}"))

    def _app_route(self, path: str) -> Optional[Route]:
        """Whatever is below /app is the model's own application's, where it has one."""
        ours = path == asgi.PREFIX or path.startswith(f"{asgi.PREFIX}/")
        return asgi.call if ours and self._service.app is not None else None


def _find(path: str, asked: str) -> Route:
    found = ROUTES.get(path)
    if found is None:
        raise Refusal("NOT_FOUND", f"no such path; there are {', '.join(ROUTES)}")
    method, route = found
    if asked != method:
        raise Refusal("METHOD_NOT_ALLOWED", f"{path} takes {method}")
    return route


def _refuse(turn: Turn, path: str, refusal: Refusal) -> None:
    if path.startswith("/v1/"):
        openai.refuse(turn, refusal)
    elif path.startswith("/v2"):
        v2.refuse(turn, refusal)
    else:
        allow: Any = ROUTES.get(path)
        headers = f"Allow: {allow[0]}\r\n" if refusal.code == "METHOD_NOT_ALLOWED" and allow else ""
        envelope.refuse(turn.connection, turn.id, refusal, turn.queue_header + headers)
