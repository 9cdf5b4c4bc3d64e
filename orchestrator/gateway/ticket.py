"""What a request's head is worth once it was read and judged: where it goes, and the head that the worker gets.

It depends on the head's bytes and the policy alone, so a connection keeps it for the next request with the same head.
"""

from __future__ import annotations

from orchestrator.gateway import cors, envelope
from orchestrator.gateway.admission import Admission, Admitted, Asked
from orchestrator.gateway.heads import Head
from orchestrator.gateway.keys import API_KEY, AUTHORIZATION
from orchestrator.gateway.paths import Endpoint, Kind
from orchestrator.gateway.policy import Policy, mark_of_key

# Heads longer than this are read anew each time: what idle connections keep stays small.
MAX_KEPT = 2048
PREFLIGHT = "access-control-request-method"
# The client's fields that a worker sees.
PASSED = ("content-type", "accept", "inference-header-content-length")


class Ticket:
    """endpoint: None where the request is for the general lane. request_id: the client's own, if it has one.

    key: that the client has; mark: who it is by that key, b"" where it has none.
    """

    __slots__ = ("_before", "cors", "endpoint", "head", "key", "mark", "model", "policy", "raw", "request_id", "size")

    def __init__(self, raw: bytes, head: Head, policy: Policy, admitted: Admitted | None = None) -> None:
        self.raw = raw
        self.head = head
        self.policy = policy
        self.size = len(raw) + head.length
        endpoint = self.endpoint = admitted.endpoint if admitted is not None else None
        self.model = admitted.model if admitted is not None else ""
        self.key = admitted.key if admitted is not None else None
        origin = head.fields.get("origin")
        self.cors = b"" if origin is None else cors.lines(policy.origins, origin)
        self.mark = b"" if self.key is None else mark_of_key(self.key)
        offered = head.fields.get("x-request-id")
        self.request_id = offered if offered is not None and envelope.is_request_id(offered) else None
        self._before = _before(head, endpoint) if endpoint is not None else b""

    def request(self, request_id: str, client: bytes, body: bytes) -> bytes:
        """The worker's request: its head, and what is at hand of its body. client: who asks, for its fair queue."""
        return self._before % (request_id.encode(), client) + body


def issue(raw: bytes, head: Head, admission: Admission) -> Ticket:
    """Judge a head. Raises Refusal."""
    policy = admission.policy
    if head.unusual:
        return Ticket(raw, head, policy)
    admitted = admission.judge(asked(head))
    endpoint = admitted.endpoint
    if endpoint.kind not in (Kind.WORKER, Kind.WORKER_BY_BODY) or (head.method != "POST" and head.length):
        return Ticket(raw, head, policy)
    return Ticket(raw, head, policy, admitted)


def asked(head: Head) -> Asked:
    """What is judged of a head."""
    get = head.fields.get
    keys = get(AUTHORIZATION), get(API_KEY)
    return Asked(head.method, head.target, get("host", ""), get("origin"), *keys, get(PREFLIGHT))


def _before(head: Head, endpoint: Endpoint) -> bytes:
    """The worker's head with a place for the request id."""
    passed = [name for name in PASSED if name in head.fields]
    lines = [f"{head.method} {endpoint.upstream} HTTP/1.1", "Host: worker"]
    lines += [f"{name.title()}: {head.fields[name]}" for name in passed]
    if head.method == "POST":
        lines.append(f"Content-Length: {head.length}")
    text = "\r\n".join(lines).replace("%", "%%")
    return f"{text}\r\nX-Request-ID: %b\r\nX-Sandbox-Client: %b\r\n\r\n".encode("latin-1")
