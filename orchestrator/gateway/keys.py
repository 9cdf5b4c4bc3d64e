"""API keys: whose a request carries, and what it may do. It keeps digests; a key is hashed and let go."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.gateway.envelope import Refusal

AUTHORIZATION = "authorization"
API_KEY = "x-api-key"
_CHALLENGE = 'Bearer realm="model-sandbox"'


@dataclass(frozen=True, slots=True)
class Key:
    """One key. digest: hex of its SHA-256. models: that it may name, none for all. rate_limit: (requests, seconds)."""

    name: str
    digest: str = field(repr=False)
    models: frozenset[str] = frozenset()
    allow: frozenset[str] = frozenset()
    rate_limit: tuple[int, float] | None = None

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Key:
        """From the `keys` of a policy (docs/internals.md)."""
        limit = data.get("rate_limit")
        return cls(
            name=str(data["name"]),
            digest=str(data["digest"]),
            models=frozenset(data.get("models") or ()),
            allow=frozenset(data["allow"]),
            rate_limit=(int(limit[0]), float(limit[1])) if limit else None,
        )

    def sees(self, model: str) -> bool:
        """Whether this model is any of its business."""
        return not self.models or model in self.models

    def require_right(self, needs: str) -> None:
        """Raises Refusal(FORBIDDEN). needs: "" where every key will do."""
        if needs and needs not in self.allow:
            raise Refusal("FORBIDDEN", f"the key {self.name!r} may not {needs}", "gateway.api_keys says what it may do")

    def require_model(self, model: str) -> None:
        """Raises Refusal(FORBIDDEN), whether there is such a model or not."""
        if not self.sees(model):
            hint = "gateway.api_keys says which models it may call"
            raise Refusal("FORBIDDEN", f"the key {self.name!r} is not for model {model!r}", hint)


def find(keys: Sequence[Key], authorization: str | None, api_key: str | None) -> tuple[Key, str]:
    """Whose key this is, and the field (in lower case) that carried it. Raises Refusal(UNAUTHORIZED).

    Either field may be an application's own, so what is wrong in one does not spoil the other.
    """
    for name, value in ((API_KEY, api_key), (AUTHORIZATION, _bearer(authorization))):
        found = _match(keys, value) if value else None
        if found is not None:
            return found, name
    hint = "send it as Authorization: Bearer KEY, or as X-API-Key: KEY"
    if authorization is None and api_key is None:
        raise Refusal("UNAUTHORIZED", "this gateway needs a key", hint, headers={"WWW-Authenticate": _CHALLENGE})
    headers = {"WWW-Authenticate": f'{_CHALLENGE}, error="invalid_token"'}
    raise Refusal("UNAUTHORIZED", "no such key", hint, headers=headers)


def _match(keys: Sequence[Key], value: str) -> Key | None:
    """Every digest is compared, and each in constant time: how long it takes says nothing of the keys."""
    digest = hashlib.sha256(value.encode("latin-1", "replace")).hexdigest()
    found: Key | None = None
    for key in keys:
        if hmac.compare_digest(digest, key.digest):
            found = key
    return found


def _bearer(authorization: str | None) -> str | None:
    """The token of RFC 6750, section 2.1; the scheme's name has no case."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None
