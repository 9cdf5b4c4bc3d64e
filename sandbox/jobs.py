"""What the processes of an attempt are told to do, from control's `load` and the agent's own configuration."""

from __future__ import annotations

import os
from typing import Any, Dict, Mapping

from sandbox import start


def tree(order: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """The folder of the generation's files."""
    return os.path.join(str(config["generations"]), str(order["tree"]))


def check(order: Mapping[str, Any], config: Mapping[str, Any]) -> start.Job:
    """A checker's: compile what changed, and read what is imported."""
    entry = order["entry"] or order["config"].get("entry") or "main"
    return {
        "kind": "check",
        "tree": tree(order, config),
        "source": config["source"],
        "files": order["check"],
        "entry": str(entry).partition(":")[0],
    }


def worker(order: Mapping[str, Any], config: Mapping[str, Any], socket: str) -> start.Job:
    """A worker's, less its `kind`: docs/internals.md has the assignment."""
    assignment: Dict[str, Any] = {
        "model": config["model"],
        "generation": order["generation"],
        "attempt": order["attempt"],
        "content": order["content"],
        "tree": tree(order, config),
        "data": config["data"],
        "source": config["source"],
        "entry": order["entry"],
        "config": order["config"],
        "serving": order["serving"],
        "warmup": order["warmup"],
        "sockets": config["sockets"],
        "socket": socket,
        "pause": order.get("pause"),
        "volumes": config.get("volumes") or [],
    }
    return {"assignment": assignment, "cpus": config["cpus"], "environment": dict(os.environ)}
