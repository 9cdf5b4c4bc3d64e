"""The form of control's orders. The socket is the replica's own, so a model too may write to it: form is checked."""

from __future__ import annotations

from typing import Any, Dict, Tuple, Type, Union

from sandbox import wire

_Kind = Union[Type[Any], Tuple[Type[Any], ...]]
_NUMBER = (int, float)
_KEY: Dict[str, _Kind] = {"generation": int, "attempt": int}
_LOAD: Dict[str, _Kind] = {
    **_KEY,
    "content": str,
    "tree": str,
    "config": dict,
    "entry": (str, type(None)),
    "serving": dict,
    "load_timeout": _NUMBER,
    "warmup": bool,
    "check": list,
    "mode": str,
}
_FIELDS: Dict[str, Dict[str, _Kind]] = {
    "hello": {},
    "load": _LOAD,
    "kill": _KEY,
    "proceed": _KEY,
    "activate": _KEY,
    "retire": {**_KEY, "drain": _NUMBER, "grace": _NUMBER},
    "configure": {"serving": dict, "load_timeout": (*_NUMBER, type(None))},
    "preload": {"imports": list},
    "learned": {"imports": list},
    "usage": {},
    "stop": {"drain": _NUMBER, "grace": _NUMBER},
}


def well_formed(order: wire.Message) -> bool:
    """Whether a known order has every field, each of its type."""
    return all(isinstance(order.get(name), kind) for name, kind in _FIELDS[order["type"]].items())
