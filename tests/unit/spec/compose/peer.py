"""Asks `docker compose config` what a case comes to, and brings its answer into the form that ours is compared in."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.spec.units import duration
from tests.unit.spec.compose.case import ERROR, Case, Text


def missing() -> str | None:
    """Why Compose cannot be asked; None where it can."""
    try:
        found = subprocess.run(["docker", "compose", "version"], capture_output=True, text=True, check=False)
    except OSError as error:
        return f"docker: {error.strerror}"
    return None if found.returncode == 0 else "docker compose is not installed"


def config(case: Case) -> Any:
    """The services as Compose has them, or ERROR."""
    with tempfile.TemporaryDirectory() as folder:
        return _config(Path(folder).resolve(), case.files, case.named, case.environ, case.profiles)


def values(texts: Sequence[Text]) -> list[Any]:
    """What texts of equal environment come to. None of them may be refused."""
    lines = "".join(f"      T{index}: {json.dumps(each.text)}\n" for index, each in enumerate(texts))
    content = f"services:\n  a:\n    image: x\n    environment:\n{lines}"
    found = config(Case("texts", {"compose.yaml": content}, environ=texts[0].environ))
    if found == ERROR:
        return [ERROR] * len(texts)
    return [found["a"]["environment"][f"T{index}"] for index in range(len(texts))]


def _config(
    root: Path, files: Mapping[str, str], named: Sequence[str], environ: Mapping[str, str], profiles: Sequence[str]
) -> Any:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    words = ["docker", "compose"]
    words += [word for name in named for word in ("-f", name)]
    words += [word for name in profiles for word in ("--profile", name)]
    answer = subprocess.run(
        [*words, "config", "--format", "json"],
        cwd=root,
        env={"PATH": os.environ["PATH"], "HOME": str(root), "DOCKER_CONFIG": _settings(), **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        return ERROR
    services = json.loads(answer.stdout).get("services") or {}
    return {name: _model(service, root) for name, service in sorted(services.items())}


def _settings() -> str:
    """Plugins of this user are found where docker looks for its settings."""
    return os.environ.get("DOCKER_CONFIG") or os.path.join(os.path.expanduser("~"), ".docker")


def _model(service: Mapping[str, Any], root: Path) -> dict[str, Any]:
    deploy = service.get("deploy") or {}
    limits = (deploy.get("resources") or {}).get("limits") or {}
    found: dict[str, Any] = {
        "path": service.get("image"),
        "environment": {
            _undoubled(name): _undoubled(value)
            for name, value in (service.get("environment") or {}).items()
            if value is not None
        },
        "volumes": [_volume(volume, root) for volume in service.get("volumes") or ()],
        "tmpfs": sorted(service.get("tmpfs") or ()),
        "depends_on": {
            name: [each["condition"], each.get("required", True), each.get("restart", False)]
            for name, each in (service.get("depends_on") or {}).items()
        },
        "replicas": service.get("scale", deploy.get("replicas", 1)),
        "limits": {key: float(value) for key, value in limits.items()},
        "profiles": sorted(service.get("profiles") or ()),
        "stop_grace_period": duration(_spelt(service["stop_grace_period"])) if "stop_grace_period" in service else None,
        "restart": service.get("restart"),
        "secrets": sorted(
            [each["source"], os.path.join("/run/secrets", each.get("target") or each["source"])]
            for each in service.get("secrets") or ()
        ),
    }
    return spoken(found)


def spoken(model: Mapping[str, Any]) -> dict[str, Any]:
    """Without what says nothing."""
    return {
        key: value for key, value in model.items() if value not in (None, [], {}) and (key, value) != ("replicas", 1)
    }


def _undoubled(value: str) -> str:
    return str(value).replace("$$", "$")


def _spelt(text: str) -> str:
    return re.sub(r"(?<![0-9.])0[hm]", "", text) or "0s"


def _volume(volume: Mapping[str, Any], root: Path) -> list[Any]:
    source = str(volume.get("source", ""))
    mode = "ro" if volume.get("read_only") else "rw"
    return [volume["type"], source.replace(str(root), "{root}"), volume["target"], mode]
