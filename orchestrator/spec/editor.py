"""sandbox.yaml's JSON schema, so that editors complete and check it. Read off the pydantic classes.

It is kept as a file beside this module, so that `sandbox schema` prints what was tested; `python -m
orchestrator.spec.editor` writes it anew. It is more lenient than we are where files are merged: what one leaves out
another may have.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from orchestrator.spec.models import SandboxSpec
from orchestrator.spec.told import FILLED_IN
from orchestrator.spec.units import duration_text, size_text

FILE = "sandbox.schema.json"
_MEANINGS = "meanings.json"
# Another file may have them.
_ELSEWHERE = {"SandboxSpec": "models", "ModelSpec": "path"}
_UNITS = {"duration": duration_text, "size": size_text, "mode": "0{:o}".format}


def schema() -> dict[str, Any]:
    """The JSON schema of a sandbox.yaml."""
    found = SandboxSpec.model_json_schema()
    sections = {"SandboxSpec": found, **found["$defs"]}
    meanings: dict[str, str] = json.loads(_packaged(_MEANINGS))
    for name, section in sections.items():
        _finish(name, section)
    _explain(found, "", found["$defs"], meanings)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "sandbox.yaml", **found}


def text() -> str:
    """The schema as it is kept."""
    return _packaged(FILE)


def written(value: dict[str, Any]) -> str:
    """A schema as text."""
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _finish(name: str, section: dict[str, Any]) -> None:
    """Keys of one's own, keys without a value, and defaults as people write them."""
    section.pop("title", None)
    section["patternProperties"] = {"^x-": {}}
    section["required"] = [key for key in section.get("required", ()) if key != _ELSEWHERE.get(name)]
    if not section["required"]:
        del section["required"]
    section["properties"] = {key: _property(value) for key, value in section["properties"].items()}


def _property(value: dict[str, Any]) -> dict[str, Any]:
    forms = value.pop("anyOf", None)
    default = value.pop("default", None)
    unit = value.pop("unit", "") or next((form.pop("unit") for form in forms or () if "unit" in form), "")
    value.pop("title", None)
    if forms is None:
        forms = [{key: value.pop(key) for key in list(value)}]
    if any("enum" in form and form.get("type") == "string" for form in forms):
        forms.append(FILLED_IN)
    if {"type": "null"} not in forms:
        forms.append({"type": "null"})
    made: dict[str, Any] = {"anyOf": forms}
    if default not in (None, [], {}) and not isinstance(default, dict):
        made["default"] = _UNITS[unit](default) if unit else default
    return made


def _explain(section: dict[str, Any], prefix: str, defs: dict[str, Any], meanings: dict[str, str]) -> None:
    """Say of each key what docs/configuration.md says."""
    for key, value in section.get("properties", {}).items():
        path = f"{prefix}{key}"
        if path in meanings and "description" not in value:
            value["description"] = meanings[path]
        for name, below in _below(value, path):
            _explain(defs[name], f"{below}.", defs, meanings)


def _below(value: Any, path: str) -> list[tuple[str, str]]:
    """The sections that a property leads to, each with its key path."""
    found = []
    if isinstance(value, dict):
        if "$ref" in value:
            found.append((value["$ref"].rpartition("/")[2], path))
        for key, child in value.items():
            repeats = key in {"items", "additionalProperties", "patternProperties"}
            found += _below(child, f"{path}.*" if repeats else path)
    elif isinstance(value, list):
        for child in value:
            found += _below(child, path)
    return found


def _packaged(name: str) -> str:
    return resources.files("orchestrator.spec").joinpath(name).read_text(encoding="utf-8")


if __name__ == "__main__":
    print(written(schema()), end="")
