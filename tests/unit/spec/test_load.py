"""sandbox.yaml is found, read with its variables, and checked."""

from __future__ import annotations

import pytest

from orchestrator import folders
from orchestrator.errors import SpecError
from orchestrator.spec import load
from orchestrator.spec.models import SandboxSpec


def test_the_defaults_are_those_of_the_product(folder) -> None:
    model = folder.load("models: {hello: model_dirs/hello}").spec.models["hello"]
    found = model.model_dump(
        exclude={
            "path",
            "resources",
            "deploy",
            "environment",
            "env_file",
            "volumes",
            "extends",
            "scale",
            "tmpfs",
            "gpus",
            "healthcheck",
            "secrets",
        }
    )
    assert found == {
        "runtime": None,
        "python": None,
        "replicas": 1,
        "data": "ro",
        "network": "none",
        "concurrency": 16,
        "queue": {"size": 1000, "timeout": 30.0},
        "timeout": 60.0,
        "load_timeout": 300.0,
        "stop_grace_period": 5.0,
        "max_input": None,
        "max_batch": 100,
        "batching": None,
        "reload": {"quiet": 0.010, "max_wait": 0.250, "drain": 30.0, "mode": "auto", "keep": 10, "max_draining": 8},
        "restart": "on-failure",
        "depends_on": {},
        "profiles": (),
        "warmup": False,
        "debug": False,
    }
    spec = folder.load().spec
    assert spec.runtime == "auto"
    assert spec.gateway.model_dump(exclude={"hosts", "origins", "api_keys"}) == {
        "host": "127.0.0.1",
        "port": 8080,
        "workers": 1,
        "insecure": False,
        "access_log": False,
        "rate_limit": None,
        "max_body": 10 * 1024**2,
    }


def test_a_key_without_a_value_is_as_if_it_were_not_there(folder) -> None:
    spec = folder.load("name:\ngateway:\nmodels:\n  hello:\n    path: m\n    queue:\n    env_file:\n").spec
    assert spec == folder.load("models: {hello: m}").spec
    assert folder.load("models:\n").spec.models == {}


def test_words_that_yaml_1_1_took_for_truth_are_words(folder) -> None:
    model = folder.load("models: {a: {path: m, restart: no, environment: {A: yes, B: on, C: true}}}").spec.models["a"]
    assert model.restart == "no"
    assert model.environment == {"A": "yes", "B": "on", "C": "true"}


def test_numbers_keep_the_form_they_were_written_in(folder) -> None:
    text = "models: {a: {path: m, python: 3.10, environment: {V: 1.10, N: 007, E: 1e3}}}"
    model = folder.load(text).spec.models["a"]
    assert (model.python, model.environment) == ("3.10", {"V": "1.10", "N": "007", "E": "1e3"})


def test_x_keys_are_allowed_in_every_mapping_of_ours_but_name_a_model_under_models(folder) -> None:
    spec = folder.load(
        "x-a: ${ not read\ngateway: {x-b: 1}\nmodels:\n  x-ray: {path: m, x-c: 1, queue: {x-d: 1}, resources: {x-e: []}}\n"
    ).spec
    assert list(spec.models) == ["x-ray"]


def test_anchors_under_x_keys_are_shared_and_interpolated_where_they_are_used(folder) -> None:
    text = "x-a: &a {environment: {A: $V}, timeout: 5s}\nmodels:\n  a: {<<: *a, path: m}\n  b: {<<: *a, path: m, timeout: 7s}\n"
    models = folder.load(text, {"V": "v"}).spec.models
    assert (models["a"].timeout, models["b"].timeout) == (5.0, 7.0)
    assert models["b"].environment == {"A": "v"}


def test_a_variable_takes_the_type_that_its_key_wants(folder) -> None:
    text = "gateway: {port: $P, insecure: $I}\nmodels: {a: {path: m, replicas: '${R:-3}', timeout: '${T:-}5s', environment: {E: $E}}}"
    spec = folder.load(text, {"P": "1", "I": "true", "E": ""}).spec
    assert (spec.gateway.port, spec.gateway.insecure) == (1, True)
    assert (spec.models["a"].replicas, spec.models["a"].timeout, spec.models["a"].environment) == (3, 5.0, {"E": ""})


def test_values_are_interpolated_and_keys_are_not(folder) -> None:
    spec = folder.load("models: {a: {path: $A, environment: {$A: $$A}}}", {"A": "x"}).spec
    assert (spec.models["a"].path, spec.models["a"].environment) == ("x", {"$A": "$A"})


def test_dotenv_sets_variables_and_the_environment_wins(folder) -> None:
    folder.write(".env", "A=file\nB=file\nC=${A}\n")
    project = folder.load("models: {a: $A, b: $B, c: $C}", {"A": "outer"})
    assert [model.path for model in project.spec.models.values()] == ["outer", "file", "outer"]
    assert {str(folder.root / "sandbox.yaml"), str(folder.root / ".env")} <= set(project.files)


def test_a_broken_dotenv_is_named(folder) -> None:
    folder.write(".env", "A=1\nB='\n")
    with pytest.raises(SpecError) as caught:
        folder.load("models: {}")
    assert (caught.value.reference, caught.value.at) == ("env-file", ".env:2")


def test_a_variable_that_is_not_set_is_empty_and_a_warning_names_it(folder) -> None:
    project = folder.load("models:\n  a:\n    path: m$GONE\n")
    assert project.spec.models["a"].path == "m"
    assert project.warnings == ("sandbox.yaml:3: GONE is not set, taken as empty",)


def test_where_leads_to_the_line_of_a_key(folder) -> None:
    project = folder.load("models:\n  a:\n    path: m\n    queue: {size: 1}\n")
    assert project.where("models.a.queue.size") == "sandbox.yaml:4"
    assert project.where(("models", "a")) == "sandbox.yaml:2"


@pytest.mark.parametrize(
    ("directory", "name"),
    [("demo", "demo"), ("My Demo", "mydemo"), ("_x-1", "x-1"), ("ÄÖ", "sandbox"), ("a" * 80, "a" * 63)],
)
def test_the_name_is_by_default_the_directorys(tmp_path, directory: str, name: str) -> None:
    file = tmp_path / directory / "sandbox.yaml"
    file.parent.mkdir()
    file.write_text("models: {}")
    assert load.load(str(file), {}).name == name


def test_two_projects_of_one_name_have_two_ids_and_a_symlink_has_its_targets(tmp_path) -> None:
    for parent in ("a", "b"):
        (tmp_path / parent / "demo").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a" / "demo")
    ids = [folders.sandbox_id(str(tmp_path / path)) for path in ("a/demo", "b/demo", "link")]
    assert ids[0] == ids[2] != ids[1]
    assert len(ids[0]) == 12


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "api.localhost"])
def test_loopback_needs_no_keys(folder, host: str) -> None:
    assert folder.load(f"models: {{}}\ngateway: {{host: '{host}'}}").spec.gateway.host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "my-machine.example", "localhost.example"])
def test_beyond_loopback_someone_has_to_say_so(folder, host: str) -> None:
    with pytest.raises(SpecError) as caught:
        folder.load(f"models: {{}}\ngateway: {{host: '{host}'}}")
    assert caught.value.reference == "insecure-gateway"
    assert folder.load(f"models: {{}}\ngateway: {{host: '{host}', insecure: true}}").spec.gateway.host == host


@pytest.mark.parametrize(
    ("depends_on", "circle"),
    [
        ({"a": "b", "b": "c", "c": "a"}, "a → b → c → a"),
        ({"a": "b", "b": "c", "c": "b"}, "b → c → b"),
        ({"a": "b, c", "b": "d", "c": "d", "d": ""}, ""),
        ({"a": "", "b": "a, b"}, "b → b"),
    ],
)
def test_a_circle_of_dependencies_is_named(folder, depends_on: dict[str, str], circle: str) -> None:
    text = "models:\n" + "".join(
        f"  {name}: {{path: m, depends_on: [{others}]}}\n" for name, others in depends_on.items()
    )
    if not circle:
        assert len(folder.load(text).spec.models) == len(depends_on)
        return
    with pytest.raises(SpecError) as caught:
        folder.load(text)
    assert caught.value.reference == "dependency-cycle"
    assert caught.value.message.endswith(f"goes in a circle: {circle}")


def test_a_file_that_is_no_text_or_no_mapping_is_refused(folder) -> None:
    (folder.root / "sandbox.yaml").write_bytes(b"models:\n  a: \xff\n")
    with pytest.raises(SpecError) as caught:
        folder.load()
    assert (caught.value.reference, caught.value.at) == ("yaml-syntax", "sandbox.yaml:2")
    for text in ("[]", "hello", "12"):
        with pytest.raises(SpecError) as caught:
            folder.load(text)
        assert (caught.value.reference, caught.value.at) == ("wrong-type", "sandbox.yaml:1")


def test_the_spec_cannot_be_changed(folder) -> None:
    spec = folder.load("models: {}").spec
    assert isinstance(spec, SandboxSpec)
    with pytest.raises(ValueError, match="frozen"):
        spec.name = "other"


def test_a_secret_does_not_show_in_a_representation(folder) -> None:
    folder.write(".env", "TOKEN=hunter2\n")
    assert "hunter2" not in repr(folder.load("models: {}"))
