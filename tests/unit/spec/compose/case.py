"""A case: files as people write them for Compose, what Compose made of them, and the same files as ours.

Services stand for models: `services:` is read as `models:`, an `image:` as the `path:` of a directory of that name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
RECORDED = FOLDER / "recorded.json"
# What a case comes to where it is refused.
ERROR = "error"


@dataclass(frozen=True)
class Case:
    """differs: the row of the table in docs/configuration.md; ours: what we make of it then."""

    name: str
    files: Mapping[str, str]
    named: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    profiles: tuple[str, ...] = ()
    differs: str = ""
    ours: Any = None


@dataclass(frozen=True)
class Text:
    """One value with `${…}`."""

    name: str
    text: str
    environ: Mapping[str, str]
    differs: str = ""
    ours: Any = None


def cases() -> list[Case]:
    """Those of whole files."""
    found = []
    for path in sorted((FOLDER / "cases").glob("*.yaml")):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        for name, case in content.get("files", {}).items():
            found.append(_case(f"{path.stem}: {name}", case))
    return found


def texts() -> list[Text]:
    """Those of single values."""
    found = []
    for path in sorted((FOLDER / "cases").glob("*.yaml")):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        for item in content.get("texts", []):
            more = item if isinstance(item, dict) else {"text": item}
            found.append(Text(f"{path.stem}: {more['text']!r}", environ=content["environ"], **more))
    return found


def _case(name: str, case: dict[str, Any]) -> Case:
    files = {key: text for key, text in case.items() if "." in key}
    return Case(
        name,
        files,
        tuple(case.get("f", ())),
        case.get("environ", {}),
        tuple(case.get("profiles", ())),
        case.get("differs", ""),
        case.get("ours"),
    )


def recorded() -> dict[str, Any]:
    """What Compose made of each case, by name."""
    found: dict[str, Any] = json.loads(RECORDED.read_text(encoding="utf-8"))
    return found


def as_ours(text: str) -> str:
    """The same file with our words."""
    text = re.sub(r"\bservices:", "models:", text)
    text = re.sub(r"\bimage:", "path:", text)
    return text.replace("compose.yaml", "sandbox.yaml").replace("compose.override.", "sandbox.override.")


def our_files(case: Case) -> Iterator[tuple[str, str]]:
    """The files of a case under the names that they have here."""
    for name, text in case.files.items():
        yield as_ours(name), text if name.endswith(".env") else as_ours(text)
