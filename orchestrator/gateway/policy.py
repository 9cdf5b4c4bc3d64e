"""Who may ask, how often and how much: the rules that need no model. It decides with `now` given, and never waits."""

from __future__ import annotations

import hashlib
import ipaddress
import os
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from orchestrator.gateway.envelope import Refusal
from orchestrator.gateway.keys import Key

# Clients remembered by the rate limit; beyond it the one longest unseen is forgotten (and starts afresh).
MAX_CLIENTS = 10_000
_SALT = os.urandom(16)


@dataclass(frozen=True, slots=True)
class Policy:
    """The gateway's own settings, as control sends them. rate_limit: (requests, seconds) per client address.

    keys: where there are any, every request but a probe of the process needs one.
    """

    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    rate_limit: tuple[int, float] | None = None
    max_body: int = 10 * 1024 * 1024
    host: str = "127.0.0.1"
    port: int = 8080
    insecure: bool = False
    keys: tuple[Key, ...] = ()
    access_log: bool = False

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Policy:
        """From the `policy` field of a message; what is absent keeps its default."""
        limit = data.get("rate_limit")
        return cls(
            hosts=tuple(data.get("hosts") or ()),
            origins=tuple(data.get("origins") or ()),
            rate_limit=(int(limit[0]), float(limit[1])) if limit else None,
            max_body=int(data.get("max_body", cls().max_body)),
            host=str(data.get("host", "127.0.0.1")),
            port=int(data.get("port", 8080)),
            insecure=bool(data.get("insecure", False)),
            access_log=bool(data.get("access_log", False)),
            keys=tuple(map(Key.parse, data.get("keys") or ())),
        )

    def require_host(self, host: str) -> None:
        """Refuse a Host that a web page could have been given by DNS rebinding. Raises Refusal(FORBIDDEN)."""
        name = host_name(host)
        if is_loopback(name) or name == self.host.lower():
            return
        if any(name == host_name(allowed) for allowed in self.hosts):
            return
        # Beyond loopback, a name can be rebound and an address cannot.
        if (self.insecure or self.keys) and _address(name) is not None:
            return
        raise Refusal("FORBIDDEN", f"the Host {host!r} is not allowed", "add it to gateway.hosts in sandbox.yaml")

    def require_origin(self, origin: str | None, host: str) -> None:
        """Refuse a web page of another origin. `host` has passed require_host. Raises Refusal(FORBIDDEN)."""
        if origin is None or origin in self.origins or _is_own(origin, host):
            return
        raise Refusal("FORBIDDEN", f"the Origin {origin!r} is not allowed", "add it to gateway.origins in sandbox.yaml")


@dataclass(slots=True)
class RateLimit:
    """A token bucket per client: `requests` at once, refilled over `seconds`. whose: in the words of a refusal."""

    requests: int
    seconds: float
    whose: str = "from this address"
    _clients: OrderedDict[str, list[float]] = field(default_factory=OrderedDict)

    def take(self, client: str, now: float) -> tuple[float, bytes]:
        """Count one request; what is left, and the RateLimit-* lines of its answer. Raises Refusal(RATE_LIMITED)."""
        rate = self.requests / self.seconds
        bucket = self._clients.get(client)
        if bucket is None:
            bucket = self._clients[client] = [float(self.requests), now]
            if len(self._clients) > MAX_CLIENTS:
                self._clients.popitem(last=False)
        else:
            self._clients.move_to_end(client)
        tokens = min(float(self.requests), bucket[0] + (now - bucket[1]) * rate)
        allowed = tokens >= 1
        tokens -= 1 if allowed else 0
        bucket[0], bucket[1] = tokens, now
        told = (self.requests, tokens, (self.requests - tokens) / rate + 0.999)
        if allowed:
            return tokens, b"RateLimit-Limit: %d\r\nRateLimit-Remaining: %d\r\nRateLimit-Reset: %d\r\n" % told
        names = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")
        headers = {name: str(int(number)) for name, number in zip(names, told, strict=True)}
        raise Refusal(
            "RATE_LIMITED",
            f"too many requests {self.whose}",
            f"the limit is {self.requests} requests in {self.seconds:g} s",
            retry_after=(1 - tokens) / rate,
            headers=headers,
        )


def mark_of(address: str | None) -> bytes:
    """Which client this is, for a worker's fair queue: not its address, which is none of a model's business."""
    return _mark(client_key(address))


def mark_of_key(key: Key) -> bytes:
    """The same for who has a key: one client, wherever it calls from."""
    return _mark(f"key {key.name}")


def _mark(client: str) -> bytes:
    return hashlib.blake2s(client.encode(), key=_SALT, digest_size=6).hexdigest().encode()


@lru_cache(maxsize=4096)
def client_key(address: str | None) -> str:
    """One client: an IPv4 address, or an IPv6 /64 (one subscriber has at least that many)."""
    found = _address(address or "")
    if found is None:
        return address or ""
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.IPv6Network((found, 64), strict=False).network_address)
    return str(found)


@lru_cache(maxsize=256)
def host_name(host: str) -> str:
    """The name of a Host value: lower case, without port, brackets or a final dot."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, colon, _ = host.rpartition(":")
    return (name if colon and ":" not in name else host).rstrip(".")


@lru_cache(maxsize=256)
def is_loopback(name: str) -> bool:
    """Whether this is localhost or an address of a loopback network. The port is not looked at: it may be forwarded."""
    address = _address(name)
    return name == "localhost" or (address is not None and address.is_loopback)


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return None


def _is_own(origin: str, host: str) -> bool:
    """True where the page came from this very Host, port included (another port is another program's page)."""
    try:
        parts = urlsplit(origin)
        asked = urlsplit(f"{parts.scheme}://{host}")
        default = {"http": 80, "https": 443}.get(parts.scheme)
        ports = (parts.port or default, asked.port or default)
    except ValueError:
        return False
    return default is not None and parts.hostname == asked.hostname and ports[0] == ports[1]
