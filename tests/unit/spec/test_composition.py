"""Several files as one: what they come to is compared with Compose elsewhere; here is what people are told."""

from __future__ import annotations

import pytest

from orchestrator.errors import SpecError
from orchestrator.spec import load


def refused(folder, text: str, **files: str) -> SpecError:
    for name, content in files.items():
        folder.write(f"{name}.yaml", content)
    with pytest.raises(SpecError) as caught:
        folder.load(text)
    return caught.value


def over(folder, base: str, *others: str) -> load.Project:
    paths = [str(folder.write(f"{index}.yaml", text)) for index, text in enumerate((base, *others))]
    return load.load(paths[0], {}, paths[1:])


def test_an_override_beside_the_file_is_laid_over_it_unless_files_were_named(folder) -> None:
    folder.write("sandbox.override.yaml", "models: {hello: {timeout: 5s}}\n")
    assert folder.load("models: {hello: model_dirs/hello}").spec.models["hello"].timeout == 5.0
    path = str(folder.root / "sandbox.yaml")
    assert load.load(path, {}, []).spec.models["hello"].timeout == 60.0


def test_every_file_is_watched_and_so_is_an_override_or_env_file_that_may_come(folder) -> None:
    folder.write("inner/sandbox.yaml", "models: {digits: ../model_dirs/digits}\n")
    folder.write("base.yaml", "models: {base: {timeout: 1s}}\n")
    text = """
include: [inner/sandbox.yaml]
models:
  hello: {path: model_dirs/hello, extends: {file: base.yaml, service: base}, env_file: [{path: .e, required: false}]}
"""
    files = {name.removeprefix(f"{folder.root}/") for name in folder.resolve(text).files}
    assert files == {
        "sandbox.yaml",
        "sandbox.override.yaml",
        "sandbox.override.yml",
        ".env",
        ".e",
        "base.yaml",
        "inner/sandbox.yaml",
        "inner/.env",
    }


def test_a_mistake_is_shown_where_it_was_written(folder) -> None:
    folder.write("sandbox.override.yaml", "\nmodels:\n  hello:\n    replica: 2\n")
    assert refused(folder, "models: {hello: model_dirs/hello}").at == "sandbox.override.yaml:4"


def test_what_an_override_leaves_as_it_was_keeps_its_own_line(folder) -> None:
    folder.write("sandbox.override.yaml", "models: {hello: {replicas: 2}}\n")
    error = refused(folder, "models:\n  hello:\n    path: x\n    timeout: 5\n    environment: [A=1]\n")
    assert error.at == "sandbox.yaml:4"


def test_a_mistake_in_an_extended_or_included_file_names_that_file(folder) -> None:
    text = "models:\n  hello: {path: model_dirs/hello, extends: {file: base.yaml, service: b}}\n"
    assert refused(folder, text, base="models:\n  b:\n    tmeout: 5s\n").at == "base.yaml:3"
    text = "include: [base.yaml]\nmodels: {}\n"
    assert refused(folder, text, base="models:\n  b:\n    path: x\n    timeout: 5\n").at == "base.yaml:4"
    assert refused(folder, text, base="modles: {}\n").at == "base.yaml:1"
    assert refused(folder, text, base="models: []\n").at == "base.yaml:1"
    assert refused(folder, text, base="models: {b: $X}\n").at == "base.yaml:1"


def test_a_dependency_of_an_override_is_found_by_its_name(folder) -> None:
    folder.write("sandbox.override.yaml", "models:\n  hello:\n    depends_on:\n    - gone\n")
    error = refused(folder, "models: {hello: {path: model_dirs/hello, depends_on: []}}")
    assert (error.at, error.message) == (
        "sandbox.override.yaml:4",
        "models.hello.depends_on.gone: there is no model 'gone'",
    )


def test_a_mapping_over_a_value_is_refused_with_both_places(folder) -> None:
    with pytest.raises(SpecError) as caught:
        over(folder, "models: {a: {path: x, queue: {size: 1}}}\n", "models:\n  a:\n    queue: 3\n")
    error = caught.value
    assert (error.reference, error.at) == ("wrong-type", "1.yaml:3")
    assert error.message == "models.a.queue: a single value cannot be laid over a mapping"
    assert error.hint == "write it as at 0.yaml:1, or replace that with !override"


def test_a_model_that_is_included_cannot_be_written_again(folder) -> None:
    error = refused(folder, "include: [base.yaml]\nmodels:\n  a: y\n", base="models: {a: x}\n")
    assert (error.reference, error.at) == ("duplicate-key", "sandbox.yaml:3")
    assert error.message == "include.0: models.a is also at base.yaml:1, which is included here"


def test_a_circle_of_files_is_shown(folder) -> None:
    error = refused(folder, "include: [base.yaml]\nmodels: {}\n", base="include: [sandbox.yaml]\nmodels: {}\n")
    assert error.reference == "dependency-cycle"
    assert error.message == "include.0: include goes in a circle: sandbox.yaml → base.yaml → sandbox.yaml"


def test_a_file_outside_the_project_needs_to_be_allowed(folder) -> None:
    outside = folder.root.parent / "shared.yaml"
    outside.write_text("models: {base: {timeout: 1s}}\n")
    text = "models:\n  a: {path: model_dirs/hello, extends: {file: ../shared.yaml, service: base}}\n"
    error = refused(folder, text)
    assert (error.reference, error.at) == ("path-outside", "sandbox.yaml:2")
    assert folder.load(f"allow_outside: [..]\n{text}").spec.models["a"].timeout == 1.0


def test_merge_tags_are_for_the_sandbox_file_only(folder) -> None:
    folder.write("model_dirs/hello/config.yaml", "a: !reset null\n")
    with pytest.raises(SpecError, match="the tag !reset is not known here"):
        folder.resolve("models: {hello: model_dirs/hello}")


def test_a_model_waits_for_what_it_depends_on_as_it_says(folder) -> None:
    text = """models:
  hello: {path: model_dirs/hello, depends_on: {digits: {condition: service_started}, b: {}, c: {required: false}}}
  digits: model_dirs/digits
  b: model_dirs/digits
  c: {path: model_dirs/digits, profiles: [p]}
"""
    hello = folder.resolve(text).models["hello"]
    assert (hello.depends_on, hello.starts_after) == (("b",), ("digits",))
    assert folder.resolve(profiles=["p"]).models["hello"].depends_on == ("b", "c")


def test_a_model_that_restarts_with_another_is_replaced_with_it_and_with_what_that_restarts_with(folder) -> None:
    text = """models:
  hello: {path: model_dirs/hello, depends_on: {digits: {restart: true}}}
  digits: {path: model_dirs/digits, depends_on: {b: {restart: true}}}
  b: {path: model_dirs/digits, environment: {A: "%s"}}
  c: {path: model_dirs/digits, depends_on: [b]}
"""
    before, after = (folder.resolve(text % value).models for value in ("1", "2"))
    changed = [name for name in before if before[name].replica_hash != after[name].replica_hash]
    assert changed == ["hello", "digits", "b"]
