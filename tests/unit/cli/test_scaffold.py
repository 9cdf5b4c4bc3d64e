"""init and new: what they write works, and what was there stays."""

import importlib.util

import pytest

from orchestrator.scaffold import with_model
from orchestrator.spec import load, resolve


def desired(project):
    found = load.load(str(project / "sandbox.yaml"), {})
    return resolve.resolve(found, profiles=("*",), runtime="process", interpreter=lambda _kind, python: python)


def test_new_writes_a_model_that_works_beside_the_others(project, sandbox):
    code, out, _ = sandbox("new", "greeter")
    assert code == 0
    assert out.startswith(
        "wrote model_dirs/greeter/ with main.py, config.yaml, requirements.txt\nadded to sandbox.yaml\n"
    )
    assert list(desired(project).models) == ["hello", "digits", "greeter"]
    folder = project / "model_dirs" / "greeter"
    spec = importlib.util.spec_from_file_location("greeter", folder / "main.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    example = resolve.model_config(str(folder))["example"]
    assert module.predict(**example) == {"words": 4, "longest": "quick"}
    assert "{{" not in (folder / "main.py").read_text() + (folder / "config.yaml").read_text()


def test_new_overwrites_nothing(project, sandbox):
    before = (project / "sandbox.yaml").read_text()
    (project / "model_dirs" / "taken").mkdir()
    for name in ("hello", "taken"):
        code, _, err = sandbox("new", name)
        assert code == 2
        assert err.endswith("(exists)\n")
    assert (project / "sandbox.yaml").read_text() == before


def test_new_refuses_a_name_and_suggests_one(project, sandbox):
    code, _, err = sandbox("new", "My Model")
    assert code == 2
    assert "hint: for example my-model\n  (bad-name)" in err


def test_init_writes_a_spec_that_new_can_extend_and_overwrites_nothing(project, sandbox, monkeypatch):
    assert sandbox("init", "fresh")[0] == 0
    code, _, err = sandbox("init", "fresh")
    assert code == 2
    assert err.endswith("(exists)\n")
    monkeypatch.chdir(project / "fresh")
    assert sandbox("new", "first")[0] == 0
    assert "first" in desired(project / "fresh").models


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("models:\n  a: x/a  # why\n", "models:\n  a: x/a  # why\n  new: x/new\n"),
        ("models:\n    a: x/a", "models:\n    a: x/a\n    new: x/new\n"),
        ("models: {}  # none yet\nname: p\n", "models:   # none yet\n  new: x/new\nname: p\n"),
        ("models:\nname: p\n", "models:\n  new: x/new\nname: p\n"),
        ("name: p", "name: p\nmodels:\n  new: x/new\n"),
        (
            "models:\n  a:\n    path: x/a\n    # replicas: 2\n\n# the gateway\ngateway: {}\n",
            "models:\n  a:\n    path: x/a\n    # replicas: 2\n  new: x/new\n\n# the gateway\ngateway: {}\n",
        ),
        ("models: {a: x/a}\n", None),
        ("models: &m\n  a: x/a\n", None),
    ],
)
def test_a_model_is_added_by_one_line_or_not_at_all(before, after):
    assert with_model(before, "new", "x/new") == after


def test_where_the_file_cannot_be_edited_the_line_to_add_is_printed(project, sandbox):
    (project / "sandbox.yaml").write_text("models: {hello: model_dirs/hello}\n")
    code, out, _ = sandbox("new", "greeter")
    assert code == 0
    assert "add it under models: in sandbox.yaml:\n  greeter: model_dirs/greeter\n" in out
