"""The example and the documentation know exactly the keys that the schema knows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import SpecError
from orchestrator.plan.types import Batching
from orchestrator.spec import schema
from orchestrator.spec.models import SandboxSpec
from orchestrator.spec.supported import NOT_SUPPORTED
from orchestrator.spec.yaml import Document

ROOT = Path(__file__).parents[3]
EXAMPLE = (ROOT / "sandbox.yaml.example").read_text()
INIT = (ROOT / "orchestrator/templates/init/sandbox.yaml").read_text()
NAMED = {("models",), ("secrets",), ("models", "*", "depends_on")}
KEYS = set(schema.keys(SandboxSpec))


def switched_on(text: str) -> str:
    """The convention that the example states: `# ` and a word is prose, any other # at a line's start an option."""
    return re.sub(r"^#(?! \S|$)", "", text, flags=re.MULTILINE)


def paths(value: Any, pattern: tuple[str, ...] = ()) -> Iterator[str]:
    """Key paths as the schema writes them: `*` for the name of a model or an item of a list of mappings."""
    if isinstance(value, dict):
        for key, child in value.items():
            here = (*pattern, "*" if pattern in NAMED else key)
            yield ".".join(here)
            if here[-1] != "environment":
                yield from paths(child, here)
    if isinstance(value, list):
        for child in value:
            yield from paths(child, (*pattern, "*"))


@pytest.fixture
def example(folder):
    """The project folder with the directories that the example names."""
    for name in ("hello", "digits", "chat", "embed"):
        folder.write(f"model_dirs/{name}/main.py", "def predict(x): return x\n")
    folder.write(".env.digits", "A=1\n")
    folder.write("licence.txt", "for one")
    folder.write("shared/sandbox.yaml", "models: {}\n")
    folder.write("shared/.env", "")
    folder.write("shared/base.yaml", "models: {base: {timeout: 5s}}\n")
    (folder.root / "weights").mkdir()
    return folder


def test_the_example_runs_as_it_is(example) -> None:
    desired = example.resolve(EXAMPLE)
    assert list(desired.models) == ["hello", "digits", "chat"]
    assert (desired.gateway.host, desired.gateway.port) == ("127.0.0.1", 8080)
    assert example.resolve(environ={"SANDBOX_PORT": "9000"}).gateway.port == 9000
    assert "embed" in example.resolve(profiles=["large"]).models


def test_the_example_shows_every_key() -> None:
    shown = set(paths(Document(switched_on(EXAMPLE), "example").value())) - {
        "models.*",
        "models.*.depends_on.*",
        "secrets.*",
        "x-owner",
    }
    assert shown == KEYS


def test_with_every_option_on_exactly_the_keys_that_are_not_built_are_refused(example) -> None:
    with pytest.raises(SpecError) as caught:
        example.load(switched_on(EXAMPLE), {"SANDBOX_CI_KEY": "k"})
    errors = getattr(caught.value, "errors", [caught.value])
    assert {error.reference for error in errors} == {"not-supported"}
    refused = {re.sub(r"^models\.\w+", "models.*", error.message.partition(":")[0]) for error in errors}
    beside_workers = {"gateway.rate_limit", "gateway.api_keys.0.rate_limit"}
    assert refused == {*NOT_SUPPORTED, *beside_workers}


def test_with_every_option_on_but_those_the_example_resolves(example) -> None:
    text = switched_on(EXAMPLE).replace("  workers: 2", "  workers: 1")
    text = re.sub(r"^    gpus: all\n    # .*\n    healthcheck:\n(?:      .*\n)+", "", text, flags=re.MULTILINE)
    digits = example.resolve(text, profiles=["vision"], environ={"SANDBOX_CI_KEY": "k"}).models["digits"]
    assert (digits.replicas, digits.limits.memory, digits.limits.pids) == (2, 512 * 1024**2, 256)
    assert digits.serving.batching == Batching(32, 0.005)
    assert (digits.environment, digits.depends_on) == ({"A": "1", "LOG_LEVEL": "info"}, ("hello",))


def test_every_key_has_one_row_in_the_documentation() -> None:
    text = (ROOT / "docs/configuration.md").read_text()
    tables = text.partition("## Keys")[2].partition("## Values")[0]
    rows = re.findall(r"^\| `([^`]+)` \|", tables, flags=re.MULTILINE)
    assert sorted(rows) == sorted(KEYS)


def test_the_documentation_marks_what_is_not_supported() -> None:
    text = (ROOT / "docs/configuration.md").read_text()
    marked = re.findall(r"^\| `([^`]+)` \|.*Not supported yet", text, flags=re.MULTILINE)
    assert sorted(marked) == sorted(NOT_SUPPORTED)


def test_what_init_writes_loads_as_it_is_and_switched_on_and_takes_a_model_at_its_end(folder) -> None:
    assert folder.load(INIT).spec.models == {}
    assert folder.load(switched_on(INIT)).spec.name == "demo"
    assert list(folder.load(f"{INIT}  hello: model_dirs/hello\n").spec.models) == ["hello"]
