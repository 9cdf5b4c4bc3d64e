"""What an edit asks for: changed files and two wishes in, the smallest safe tier out. It knows no clock and no disk."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from typing import Literal

from orchestrator.plan.types import GatewayDesired, Limits, ModelDesired, ReloadPolicy, Serving

Tier = Literal["none", "live", "fork", "spawn", "replace", "stop-first"]

# More files than this are counted, not named.
NAMED = 3


@dataclass(frozen=True, slots=True)
class Change:
    """tier: the largest step that the edit needs. causes: what was edited, in words. live: whether limits that running
    workers take over by a message differ as well, whatever the tier.
    """

    tier: Tier
    causes: tuple[str, ...] = ()
    live: bool = False

    def __str__(self) -> str:
        """As in `fork: main.py`, `live: timeout 60 s → 20 s` or `none`."""
        return f"{self.tier}: {', '.join(self.causes)}" if self.causes else self.tier


def classify(changed: Collection[str], old: ModelDesired | None, new: ModelDesired, *, forkable: bool = True) -> Change:
    """The tier of an edit.

    changed: paths unlike the last generation, relative to the model directory (of equal content: leave them out).
    forkable: the zygote is ready and safe.

    1. No model before, another replica or another environment → replace.
    2. Files → what `reload.mode` says: nothing (off), replace, spawn; auto forks where a zygote can.
    3. Only limits → live.
    4. Otherwise → none.
    """
    if old is None:
        return Change("replace", ("new model",))
    live = _live(old, new)
    reborn = _reborn(changed, old, new)
    if reborn:  # 1
        return Change("replace", (*reborn, *live), live=bool(live))
    files = _files(changed) if new.reload.mode != "off" else ()
    if files:  # 2
        return Change(_file_tier(new, forkable=forkable), (*files, *live), live=bool(live))
    if live:  # 3
        return Change("live", live, live=True)
    return Change("none")  # 4


def classify_gateway(old: GatewayDesired, new: GatewayDesired) -> Change:
    """The tier of an edit of `gateway:`, which is live, all of it."""
    rate_limit = _word("rate_limit", _rate(old.rate_limit), _rate(new.rate_limit))
    causes = [
        *(_word(name, str(getattr(old, name)), str(getattr(new, name))) for name in ("host", "port", "workers")),
        rate_limit,
        _word("max_body", _bytes(old.max_body), _bytes(new.max_body)),
        *(
            _named(name, getattr(old, name) == getattr(new, name))
            for name in ("insecure", "hosts", "origins", "api_keys", "access_log")
        ),
    ]
    found = tuple(f"gateway.{text}" for text in causes if text)
    return Change("live", found, live=True) if found else Change("none")


def _file_tier(new: ModelDesired, *, forkable: bool) -> Tier:
    if new.reload.mode == "replace":
        return "replace"
    return "fork" if forkable and new.reload.mode == "auto" else "spawn"


def _files(changed: Collection[str]) -> tuple[str, ...]:
    names = sorted(changed)
    if len(names) <= NAMED:
        return tuple(names)
    return (*names[:NAMED], f"{len(names) - NAMED} more files")


def _reborn(changed: Collection[str], old: ModelDesired, new: ModelDesired) -> tuple[str, ...]:
    """Why new replicas are needed, or ()."""
    if (old.lock_hash, old.replica_hash) == (new.lock_hash, new.replica_hash):
        return ()
    causes = [
        text
        for text in (
            _word("runtime", old.runtime, new.runtime),
            _word("python", old.python or "default", new.python or "default"),
            _requirements(changed, old, new),
            *_limits(old.limits, new.limits),
            _named("environment", old.environment == new.environment),
            _named("volumes", old.mounts == new.mounts),
            _named("tmpfs", old.tmpfs == new.tmpfs),
            _named("secrets", old.secrets == new.secrets),
            _word("data", _access(old), _access(new)),
            _word("network", old.network, new.network),
        )
        if text
    ]
    # The hashes cover more than can be named here: an interpreter's patch version, the format of the hash itself.
    return tuple(causes) or (
        ("environment of its packages",) if old.lock_hash != new.lock_hash else ("replica settings",)
    )


def _requirements(changed: Collection[str], old: ModelDesired, new: ModelDesired) -> str:
    if old.requirements.text == new.requirements.text:
        return ""
    named = sorted(path for path in changed if path.endswith((".txt", ".lock", ".toml")))
    return named[0] if named else "requirements.txt"


def _limits(old: Limits, new: Limits) -> tuple[str, ...]:
    return (
        _word("memory", _bytes(old.memory), _bytes(new.memory)),
        _word("cpus", _count(old.cpus), _count(new.cpus)),
        _word("pids", str(old.pids), str(new.pids)),
    )


def _live(old: ModelDesired, new: ModelDesired) -> tuple[str, ...]:
    causes = [_word("replicas", str(old.replicas), str(new.replicas))]
    causes += [
        _word(name, _serving_text(name)(getattr(old.serving, name)), _serving_text(name)(getattr(new.serving, name)))
        for name in (field.name for field in fields(Serving))
    ]
    causes.append(_word("load_timeout", _seconds(old.load_timeout), _seconds(new.load_timeout)))
    causes.append(_word("restart", old.restart, new.restart))
    causes += [
        _named(f"reload.{field.name}", getattr(old.reload, field.name) == getattr(new.reload, field.name))
        for field in fields(ReloadPolicy)
    ]
    return tuple(text for text in causes if text)


def _serving_text(name: str) -> Callable[[object], str]:
    return _seconds if name.endswith("timeout") else _count


def _named(name: str, same: bool) -> str:
    return "" if same else name


def _word(name: str, old: str, new: str) -> str:
    return "" if old == new else f"{name} {old} → {new}"


def _access(model: ModelDesired) -> str:
    return "rw" if model.data_writable else "ro"


def _count(value: object) -> str:
    match value:
        case None:
            return "no limit"
        case bool():
            return "on" if value else "off"
        case float():
            return f"{value:g}"
        case _:
            return str(value)


def _rate(value: tuple[int, float] | None) -> str:
    return "no limit" if value is None else f"{value[0]} in {value[1]:g} s"


def _seconds(value: object) -> str:
    return f"{value:g} s"


def _bytes(value: int | None) -> str:
    if value is None:
        return "no limit"
    for unit, size in (("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)):
        if value % size == 0:
            return f"{value // size}{unit}"
    return str(value)
