"""What the gateways are told of `gateway:`, kept in the state folder: for a control that comes back to a file that is
wrong meanwhile, and with the key that this user's own commands call with. Of other keys it holds digests alone.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from typing import Any

from orchestrator import folders
from orchestrator.plan.types import ApiKey, GatewayDesired


class Told:
    """The last policy, and our own key where a key is needed."""

    def __init__(self, state: str) -> None:
        self._path = os.path.join(state, folders.POLICY)
        kept = folders.read_json(self._path) or {}
        self._key: str | None = kept.get("key")
        self.policy: dict[str, Any] | None = kept.get("policy")

    def tell(self, gateway: GatewayDesired) -> dict[str, Any]:
        """The policy (docs/internals.md) that this gateway needs."""
        keys = [_key(each) for each in gateway.api_keys]
        self._key = (self._key or secrets.token_urlsafe(32)) if keys else None
        if self._key is not None:
            own = ApiKey("(sandbox)", hashlib.sha256(self._key.encode()).hexdigest(), allow=("infer",))
            keys.append(_key(own))
        self.policy = {
            "hosts": list(gateway.hosts),
            "origins": list(gateway.origins),
            "rate_limit": list(gateway.rate_limit) if gateway.rate_limit is not None else None,
            "max_body": gateway.max_body,
            "host": gateway.host,
            "port": gateway.port,
            "insecure": gateway.insecure,
            "access_log": gateway.access_log,
            "keys": keys,
        }
        return self.policy

    def keep(self) -> None:
        """Write it down. Raises OSError."""
        now = {"key": self._key, "policy": self.policy}
        if folders.read_json(self._path) != now:
            folders.write_json(self._path, now)


def _key(key: ApiKey) -> dict[str, Any]:
    limit = list(key.rate_limit) if key.rate_limit is not None else None
    return {
        "name": key.name,
        "digest": key.digest,
        "models": list(key.models),
        "allow": list(key.allow),
        "rate_limit": limit,
    }
