"""The JSON schema is that of this release, knows every key, and never calls wrong what we take."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from orchestrator.errors import SpecError
from orchestrator.scaffold import SCHEMA
from orchestrator.spec import editor, schema
from orchestrator.spec.models import SandboxSpec
from orchestrator.spec.yaml import Document
from tests.unit.spec.test_documented import EXAMPLE, INIT, KEYS, ROOT, switched_on
from tests.unit.spec.test_refusals import CASES as MISTAKES

KEPT: dict[str, Any] = json.loads(editor.text())
VALIDATOR = jsonschema.Draft202012Validator(KEPT)
# What only a look at several keys, at variables or at the machine shows.
BEYOND_A_SCHEMA = {
    "bad-name",
    "bad-value",
    "dependency-cycle",
    "env-file",
    "insecure-gateway",
    "interpolation",
    "missing-key",
    "not-supported",
    "path-missing",
    "path-outside",
    "unknown-model",
    "unknown-profile",
    "volume",
}


def described(section: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every key path of the schema with what is said of it."""
    for key, value in section.get("properties", {}).items():
        yield f"{prefix}{key}", value.get("description", "")
        for name, below in editor._below(value, f"{prefix}{key}"):
            yield from described(KEPT["$defs"][name], f"{below}.")


def test_the_schema_that_is_kept_is_that_of_the_code() -> None:
    assert editor.text() == editor.written(editor.schema()), "python -m orchestrator.spec.editor writes it anew"


def test_it_says_of_each_key_what_the_documentation_says() -> None:
    table = (ROOT / "docs/configuration.md").read_text().partition("## Keys")[2].partition("## In an editor")[0]
    said = {}
    for key, rest in re.findall(r"^\| `([^`]+)` \|(.*)\|$", table, flags=re.MULTILINE):
        meaning = re.split(r"(?<!\\)\|", rest)[2].strip().replace("\\|", "|")
        if meaning:
            said[key] = meaning
    found = json.loads((Path(editor.__file__).parent / "meanings.json").read_text(encoding="utf-8"))
    assert found == said


def test_it_knows_every_key_and_no_other() -> None:
    assert {key for key, _ in described(KEPT)} == KEYS == set(schema.keys(SandboxSpec))


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(KEPT)


@pytest.mark.parametrize("text", [EXAMPLE, switched_on(EXAMPLE), INIT, switched_on(INIT)])
def test_what_we_show_people_is_valid(text: str) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(Document(text, "f").value())] == []


def test_the_files_that_we_show_people_name_it() -> None:
    named = [re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)[1] for text in (EXAMPLE, INIT)]  # type: ignore[index]
    assert (ROOT / named[0]).samefile(Path(editor.__file__).parent / editor.FILE)
    assert named[1] == SCHEMA


@pytest.mark.parametrize("case", MISTAKES, ids=lambda case: f"{case.key}-{case.reference}")
def test_an_editor_shows_what_a_single_value_gets_wrong(case: Any) -> None:
    if case.reference in BEYOND_A_SCHEMA:
        return
    try:
        value = Document(case.text, "f").value()
    except SpecError:
        return  # no YAML at all
    assert not VALIDATOR.is_valid(value)
