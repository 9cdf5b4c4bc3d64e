"""Whether a request may pass, and what it asks for: the one judgement that both lanes share. It reads no socket.

`judge` depends on the head and the policy alone, so a lane may keep its answer for as long as both are the same;
`count` is for each request.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.gateway import paths
from orchestrator.gateway.paths import Endpoint
from orchestrator.gateway.policy import Policy, RateLimit


@dataclass(frozen=True, slots=True)
class Asked:
    """What is judged of a head. target: as it came, with its query. host: "" where an HTTP/1.0 client gave none."""

    method: str
    target: str
    host: str
    origin: str | None


class Admission:
    """The gateway's settings, and what clients have used of them."""

    def __init__(self) -> None:
        self.policy = Policy()
        self._limit: RateLimit | None = None

    def use(self, policy: Policy) -> None:
        """Take new settings; what clients have used of an unchanged rate limit stays."""
        if policy.rate_limit != self.policy.rate_limit or (self._limit is None and policy.rate_limit):
            self._limit = RateLimit(*policy.rate_limit) if policy.rate_limit else None
        self.policy = policy

    def judge(self, asked: Asked) -> tuple[Endpoint, str]:
        """The endpoint that is asked for, and the model that the path names ("" where it names none).

        Raises Refusal(FORBIDDEN | NOT_FOUND | METHOD_NOT_ALLOWED | INVALID_REQUEST).
        """
        if asked.host:
            self.policy.require_host(asked.host)
        self.policy.require_origin(asked.origin, asked.host)
        return paths.find(asked.method, asked.target.partition("?")[0])

    def count(self, endpoint: Endpoint, address: str | None, now: float) -> bytes:
        """Count one request of this client; lines that its answer carries, each with its CRLF.

        Raises Refusal(RATE_LIMITED).
        """
        if self._limit is None or not endpoint.counted:
            return b""
        return self._limit.take(address, now)
