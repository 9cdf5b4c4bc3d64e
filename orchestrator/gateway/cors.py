"""What a browser is told of pages of other origins (the Fetch standard's CORS protocol): only those that are named.

Never `*`, and never with credentials: who calls has a key in a field, not a cookie.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

from orchestrator.gateway.paths import Endpoint, Kind

PREFLIGHT = Endpoint("_preflight", ("OPTIONS",), Kind.PREFLIGHT, counted=False)
# What a page may read of an answer beyond the few fields that every page may.
EXPOSED = (
    *("X-Request-ID", "X-Sandbox-Model", "X-Sandbox-Generation", "X-Sandbox-Content", "X-Sandbox-Queue-Seconds"),
    *("X-Sandbox-Batch", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "Retry-After"),
    *("WWW-Authenticate", "Inference-Header-Content-Length"),
)
# How long a browser may remember a preflight's answer, in seconds: an edit of `origins` is refused anyway.
MAX_AGE = 600


def fields(origins: Collection[str], origin: str | None) -> dict[str, str]:
    """What each answer to such a page carries, a refusal too; nothing for any other."""
    if origin is None or origin not in origins:
        return {}
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Expose-Headers": ", ".join(EXPOSED),
        "Vary": "Origin",
    }


@lru_cache(maxsize=64)
def lines(origins: tuple[str, ...], origin: str | None) -> bytes:
    """The same as bytes, each with its CRLF."""
    return "".join(f"{name}: {value}\r\n" for name, value in fields(origins, origin).items()).encode("latin-1")


def preflight(asked: str | None) -> dict[str, str]:
    """What a preflight's answer says besides. asked: its Access-Control-Request-Headers, as it was read."""
    methods = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
    told = {"Access-Control-Allow-Methods": methods, "Access-Control-Max-Age": str(MAX_AGE)}
    return {**told, "Access-Control-Allow-Headers": asked} if asked else told
