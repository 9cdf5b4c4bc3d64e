"""Whatever is written, people get a file, a line and a key, and never a traceback. The files come from the schema."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.errors import SpecError
from orchestrator.spec import editor, schema
from orchestrator.spec.models import SandboxSpec
from orchestrator.spec.yaml import Document
from tests.unit.spec.test_documented import EXAMPLE, switched_on

KEYS = sorted(schema.keys(SandboxSpec))
VALID: dict[str, Any] = json.loads(json.dumps(Document(switched_on(EXAMPLE), "f").value()))
PLACE = re.compile(r"(?:sandbox\.yaml|shared/[\w.]+|\.env[\w.]*):[0-9]+\Z")
# Values of every type, the kinds of text that keys know, and what nobody expects.
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        ["", "30s", "512M", "100/minute", "$", "${", "${X:?y}", "no", "../..", "/", "a:b:c", "0400", "!reset", "~"]
    )
)
VALUES = st.recursive(
    SCALARS,
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(st.text(max_size=6) | st.sampled_from(["path", "x-a", "<<"]), children, max_size=3)
    ),
    max_leaves=5,
)


def places(value: Any, pattern: list[str]) -> list[tuple[Any, Any]]:
    """The containers that have a key path's last part, each with the part: where a value can be put."""
    part, rest = pattern[0], pattern[1:]
    if isinstance(value, dict):
        names = list(value) if part == "*" else [part]
    elif isinstance(value, list):
        names = list(range(len(value))) if part == "*" else []
    else:
        return []
    if not rest:
        return [(value, name) for name in names]
    found = []
    for name in names:
        child = value.get(name) if isinstance(value, dict) else value[name]
        found += places(child, rest)
    return found


def outcome(folder: Any, text: str) -> SpecError | None:
    try:
        folder.resolve(text, environ={"SANDBOX_CI_KEY": "k", "HUB_TOKEN": "t"}, profiles=["*"])
    except SpecError as error:
        return error
    return None


def check(error: SpecError | None) -> None:
    if error is None:
        return
    for each in getattr(error, "errors", [error]):
        assert PLACE.match(each.at), each
        if each.reference not in {"yaml-syntax", "duplicate-key"} and not each.at.startswith(("shared", ".env")):
            assert re.match(r"[\w-]+(?:\.[^:]*)?: ", each.message), each.message
    assert error.hint


@pytest.fixture
def project(folder):
    for name in ("hello", "digits", "chat", "embed"):
        folder.write(f"model_dirs/{name}/main.py", "def predict(x): return x\n")
    for name in (".env.digits", "shared/.env", "licence.txt"):
        folder.write(name, "")
    folder.write("shared/sandbox.yaml", "models: {}\n")
    folder.write("shared/base.yaml", "models: {base: {timeout: 5s}}\n")
    (folder.root / "weights").mkdir()
    return folder


LENIENT = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@LENIENT
@given(st.data())
def test_a_value_of_any_type_at_any_key_is_taken_or_refused_with_its_place(project, data: st.DataObject) -> None:
    tree = copy.deepcopy(VALID)
    for _ in range(data.draw(st.integers(1, 3))):
        key = data.draw(st.sampled_from(KEYS))
        for container, name in places(tree, key.split("."))[:2]:
            container[name] = data.draw(VALUES)
    check(outcome(project, yaml.safe_dump(tree, sort_keys=False)))


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", [[[]], {"nobody": {"knows": 1}}, -1.5, "\0", [{"a": 1}]], ids=repr)
def test_each_key_refuses_what_it_cannot_be(project, key: str, value: object) -> None:
    tree = copy.deepcopy(VALID)
    found = places(tree, key.split("."))
    assert found, "the example shows every key"
    container, name = found[0]
    container[name] = value
    error = outcome(project, yaml.safe_dump(tree, sort_keys=False))
    assert error is not None
    check(error)


@LENIENT
@given(st.data())
def test_an_unknown_key_anywhere_is_refused_with_its_place(project, data: st.DataObject) -> None:
    sections = [
        key for key in KEYS if any(other.startswith(f"{key}.") and "*" not in other[len(key) :] for other in KEYS)
    ]
    tree = copy.deepcopy(VALID)
    held = [container.get(name) for key in sections for container, name in places(tree, key.split("."))]
    containers = [each for each in held if isinstance(each, dict)]
    container = data.draw(st.sampled_from([each for each in containers if each is not tree["models"]]))
    word = data.draw(st.from_regex(r"\Aq[a-z_]{3,12}\Z"))
    container[word] = 1
    error = outcome(project, yaml.safe_dump(tree, sort_keys=False))
    assert error is not None
    assert any(each.reference == "unknown-key" and word in each.message for each in getattr(error, "errors", [error]))
    check(error)


@LENIENT
@given(st.text(alphabet=st.sampled_from(list("ab:-[]{},&*<'\"|>#!\n 01.~\t?$é")), max_size=60))
def test_no_text_makes_it_crash(project, text: str) -> None:
    outcome(project, f"models:\n  hello: model_dirs/hello\n  other:\n    {text}\n")
    outcome(project, text)


def test_the_schema_lists_the_keys_that_are_tried() -> None:
    assert len(KEYS) > 90
    assert set(editor.schema()["properties"]) == {key for key in KEYS if "." not in key}
