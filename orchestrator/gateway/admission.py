"""Whether a request may pass, and what it asks for: the one judgement that both lanes share. It reads no socket.

`judge` depends on the head and the policy alone, so a lane may keep its answer for as long as both are the same;
`count` is for each request.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.gateway import cors, keys, paths
from orchestrator.gateway.keys import Key
from orchestrator.gateway.paths import Endpoint
from orchestrator.gateway.policy import Policy, RateLimit, client_key

# Whether the process serves is nobody's secret, and who asks it often has no key: a load balancer, an engine.
OPEN = "/health"


@dataclass(frozen=True, slots=True)
class Asked:
    """What is judged of a head. target: as it came, with its query. host: "" where an HTTP/1.0 client gave none.

    preflight: its Access-Control-Request-Method.
    """

    method: str
    target: str
    host: str
    origin: str | None
    authorization: str | None = None
    api_key: str | None = None
    preflight: str | None = None


@dataclass(frozen=True, slots=True)
class Admitted:
    """What a head is for. model: that the path names, "" where it names none. key: None where none is needed.

    carrier: the field, in lower case, in which the key came; nobody behind the gateway gets it.
    """

    endpoint: Endpoint
    model: str
    key: Key | None = None
    carrier: str = ""


class Admission:
    """The gateway's settings, and what clients have used of them."""

    def __init__(self) -> None:
        self.policy = Policy()
        self._limit: RateLimit | None = None
        self._of_keys: dict[str, RateLimit] = {}

    def use(self, policy: Policy) -> None:
        """Take new settings; what clients have used of an unchanged rate limit stays."""
        if policy.rate_limit != self.policy.rate_limit or (self._limit is None and policy.rate_limit):
            self._limit = RateLimit(*policy.rate_limit) if policy.rate_limit else None
        before, self._of_keys = self._of_keys, {}
        for key in policy.keys:
            if key.rate_limit is not None:
                kept = before.get(key.name)
                same = kept is not None and (kept.requests, kept.seconds) == key.rate_limit
                self._of_keys[key.name] = (
                    kept if kept is not None and same else RateLimit(*key.rate_limit, "with this key")
                )
        self.policy = policy

    def judge(self, asked: Asked) -> Admitted:
        """What is asked for, and by whom.

        Raises Refusal(FORBIDDEN | UNAUTHORIZED | NOT_FOUND | METHOD_NOT_ALLOWED | INVALID_REQUEST).
        """
        policy = self.policy
        if asked.host:
            policy.require_host(asked.host)
        policy.require_origin(asked.origin, asked.host)
        if asked.method == "OPTIONS" and asked.preflight is not None and asked.origin in policy.origins:
            return Admitted(cors.PREFLIGHT, "")  # a browser sends no key with it
        path = asked.target.partition("?")[0]
        key, carrier = None, ""
        if policy.keys and path != OPEN:
            key, carrier = keys.find(policy.keys, asked.authorization, asked.api_key)
        endpoint, model = paths.find(asked.method, path)
        if key is not None:
            key.require_right(endpoint.needs)
            if model:
                key.require_model(model)
        return Admitted(endpoint, model, key, carrier)

    def count(self, endpoint: Endpoint, address: str | None, now: float, key: Key | None = None) -> bytes:
        """Count one request of this client; lines that its answer carries, each with its CRLF.

        Where both the address and the key have a limit, they tell of the one that is nearer its end.
        Raises Refusal(RATE_LIMITED).
        """
        own = self._of_keys.get(key.name) if key is not None and self._of_keys else None
        if not endpoint.counted or (self._limit is None and own is None):
            return b""
        left, lines = 0.0, b""
        if self._limit is not None:
            left, lines = self._limit.take(client_key(address), now)
        if own is not None:
            of_key, told = own.take("", now)
            lines = told if not lines or of_key < left else lines
        return lines
