"""From a project to Desired: paths, config.yaml, environment, runtime, hashes."""

from __future__ import annotations

import os

import pytest

from orchestrator.errors import SandboxError, SpecError
from orchestrator.plan.types import Batching, Limits, Mount, ReloadPolicy, Serving
from orchestrator.spec import resolve

HELLO = "models: {hello: model_dirs/hello}"


def one(key: str) -> str:
    return f"models: {{hello: {{path: model_dirs/hello, {key}}}}}"


def refused(folder, text: str, **arguments) -> SpecError:
    with pytest.raises(SpecError) as caught:
        folder.resolve(text, **arguments)
    return caught.value


def test_what_is_desired_has_every_default_and_absolute_paths(folder) -> None:
    desired = folder.resolve(f"{HELLO}\nname: demo\n")
    hello = desired.models["hello"]
    assert (desired.name, desired.directory) == ("demo", str(folder.root))
    assert hello.path == str(folder.root / "model_dirs/hello")
    assert (hello.serving, hello.reload, hello.limits) == (Serving(), ReloadPolicy(), Limits())
    assert (len(hello.lock_hash), hello.replica_hash[:2]) == (64, "1:")


def test_every_value_of_a_model_arrives(folder) -> None:
    folder.write("weights/w", "")
    hello = folder.resolve(
        """
models:
  digits: model_dirs/digits
  hello:
    path: ./model_dirs/hello
    python: "3.12"
    replicas: 2
    resources: {cpus: 1.5, memory: 512M, pids: 99}
    volumes: ["./weights:/weights:ro", "./weights/w:/w"]
    data: rw
    network: bridge
    concurrency: 3
    queue: {size: 4, timeout: 5s}
    timeout: 6s
    load_timeout: 7s
    max_input: 8
    max_batch: 9
    batching: {max_size: 10, max_wait: 11ms}
    reload: {quiet: 1ms, max_wait: 2ms, drain: 3s, mode: spawn, keep: 4, max_draining: 5}
    restart: always
    depends_on: [digits, digits]
    warmup: true
    debug: true
""",
        runtime="docker",
    ).models["hello"]
    assert (hello.python, hello.replicas, hello.runtime) == ("3.12", 2, "docker")
    assert hello.limits == Limits(512 * 1024**2, 1.5, 99)
    weights = str(folder.root / "weights")
    assert hello.mounts == (Mount(weights, "/weights", True), Mount(f"{weights}/w", "/w", False))
    assert (hello.data_writable, hello.network) == (True, "bridge")
    assert hello.serving == Serving(3, 4, 5.0, 6.0, 8, 9, Batching(10, 0.011), True)
    assert hello.reload == ReloadPolicy(0.001, 0.002, 3.0, "spawn", 4, 5)
    assert (hello.load_timeout, hello.restart, hello.depends_on, hello.warmup) == (7.0, "always", ("digits",), True)


def test_the_gateway_arrives(folder) -> None:
    text = "models: {}\ngateway: {host: '::1', port: 0, hosts: [a.b], origins: ['https://A.b'], rate_limit: 5/s, max_body: 1k}"
    gateway = folder.resolve(text).gateway
    assert (gateway.host, gateway.port, gateway.hosts, gateway.origins) == ("::1", 0, ("a.b",), ("https://a.b",))
    assert (gateway.rate_limit, gateway.max_body) == ((5, 1.0), 1024)


def test_composes_deploy_block_limits_as_resources_does(folder) -> None:
    ours = folder.resolve(one("resources: {cpus: 1, memory: 64M, pids: 9}")).models["hello"]
    theirs = folder.resolve(one("deploy: {resources: {limits: {cpus: '1.0', memory: 64M, pids: 9}}}")).models["hello"]
    assert theirs == ours


# Paths


def test_links_on_the_way_to_a_model_are_watched_for_they_may_be_pointed_elsewhere(folder) -> None:
    (folder.root / "releases/1/m").mkdir(parents=True)
    (folder.root / "releases/1/m/main.py").write_text("")
    (folder.root / "current").symlink_to("releases/1")
    (folder.root / "releases/1/alias").symlink_to("m")

    desired = folder.resolve("models: {m: current/alias}")

    assert desired.models["m"].path == str(folder.root / "releases/1/m")
    assert {str(folder.root / "current"), str(folder.root / "current/alias")} <= set(desired.files)


def test_a_symlink_out_of_the_project_needs_permission(folder, tmp_path) -> None:
    outside = tmp_path / "elsewhere" / "m"
    outside.mkdir(parents=True)
    (folder.root / "link").symlink_to(outside)
    error = refused(folder, "models: {m: link}")
    assert (error.reference, error.at) == ("path-outside", "sandbox.yaml:1")
    assert f"add {outside} to allow_outside" in error.hint
    for allowed in ("../elsewhere", str(outside), "~/elsewhere"):
        desired = folder.resolve(f"allow_outside: ['{allowed}']\nmodels: {{m: link}}", environ={"HOME": str(tmp_path)})
        assert desired.models["m"].path == str(outside)


def test_a_directory_whose_name_begins_like_the_projects_is_outside(folder, tmp_path) -> None:
    (tmp_path / "project2").mkdir()
    assert refused(folder, "models: {m: ../project2}").reference == "path-outside"


def test_a_model_in_our_own_folder_is_refused(folder) -> None:
    folder.write(".sandbox/m/main.py")
    assert refused(folder, "models: {m: .sandbox/m}").reference == "bad-value"


def test_a_model_without_main_py_is_no_mistake_of_the_file(folder) -> None:
    (folder.root / "model_dirs/hello/main.py").unlink()
    assert list(folder.resolve(HELLO).models) == ["hello"]


def test_a_data_folder_that_leads_out_of_the_project_is_refused(folder, tmp_path) -> None:
    (tmp_path / "big").mkdir()
    (folder.root / "model_dirs/hello/data").symlink_to(tmp_path / "big")
    assert refused(folder, HELLO).reference == "path-outside"
    assert folder.resolve(f"allow_outside: [../big]\n{HELLO}").models


def test_vocab_data_is_the_data_folder_where_it_exists(folder) -> None:
    model = folder.root / "model_dirs/hello"
    assert resolve.data_dir(str(model)) is None
    (model / "data").mkdir()
    assert resolve.data_dir(str(model)) == str(model / "data")
    (model / "vocab_data").mkdir()
    assert resolve.data_dir(str(model)) == str(model / "vocab_data")


def test_mistakes_of_several_models_are_shown_together(folder) -> None:
    error = refused(
        folder, "models:\n  a: gone\n  b: {path: model_dirs/hello, volumes: ['x:/x', './gone:/w'], env_file: .gone}\n"
    )
    assert [line.split(": ")[:2] for line in str(error).split("\n")] == [
        ["sandbox.yaml:2", "models.a.path"],
        ["sandbox.yaml:3", "models.b.env_file"],
        ["sandbox.yaml:3", "models.b.volumes.0"],
        ["sandbox.yaml:3", "models.b.volumes.1"],
    ]


@pytest.mark.parametrize("target", ["/", "/proc/x", "/run", "/run/sandbox", "/etc", "/x/../dev", "//sys"])
def test_a_volume_may_not_cover_what_a_replica_needs(folder, target: str) -> None:
    assert refused(folder, one(f"volumes: ['./model_dirs:{target}']")).reference == "volume"


def test_a_volume_may_name_any_path_of_the_host(folder, tmp_path) -> None:
    (tmp_path / "far").mkdir()
    text = one("volumes: ['~/far:/a', '../far:/b:rw']")
    mounts = folder.resolve(text, environ={"HOME": str(tmp_path)}).models["hello"].mounts
    assert mounts == (Mount(str(tmp_path / "far"), "/a"), Mount(str(tmp_path / "far"), "/b"))


# Environment


def test_environment_wins_over_env_files_and_a_later_file_over_an_earlier(folder) -> None:
    folder.write("a.env", "A=a\nB=a\nC=a\n")
    folder.write("b.env", "B=b\nC=b\nD=$OUT\nOUT\n")
    text = one("env_file: [a.env, b.env], environment: {C: c}")
    desired = folder.resolve(text, environ={"OUT": "o"})
    assert desired.models["hello"].environment == {"A": "a", "B": "b", "C": "c", "D": "o", "OUT": "o"}
    assert {str(folder.root / "a.env"), str(folder.root / "b.env")} <= set(desired.files)


@pytest.mark.parametrize("form", ["{OUT: , GONE: , A: 1}", "[OUT, GONE, A=1]"])
def test_a_name_without_a_value_is_passed_through(folder, form: str) -> None:
    desired = folder.resolve(one(f"environment: {form}"), environ={"OUT": "o"})
    assert desired.models["hello"].environment == {"OUT": "o", "A": "1"}


def test_a_name_without_a_value_anywhere_is_removed_even_from_an_env_file(folder) -> None:
    folder.write("a.env", "A=1\nB=2\n")
    assert folder.resolve(one("env_file: a.env, environment: [A]")).models["hello"].environment == {"B": "2"}


def test_nothing_of_the_hosts_environment_reaches_a_model_unasked(folder) -> None:
    assert folder.resolve(HELLO, environ={"SECRET": "s"}).models["hello"].environment == {}


def test_an_env_file_names_its_own_line(folder) -> None:
    folder.write("a.env", "A=1\n?\n")
    error = refused(folder, one("env_file: a.env"))
    assert (error.reference, error.at) == ("env-file", "a.env:2")


# config.yaml


def test_config_yaml_says_how_a_model_runs_and_sandbox_yaml_wins(folder) -> None:
    folder.write("model_dirs/hello/config.yaml", "isolation: {python_version: 3.10, resources: {memory: 1G, cpu: 2}}\n")
    hello = folder.resolve(HELLO).models["hello"]
    assert (hello.python, hello.limits) == ("3.10", Limits(1024**3, 2.0))
    hello = folder.resolve(one("python: '3.12', resources: {memory: 64M}")).models["hello"]
    assert (hello.python, hello.limits) == ("3.12", Limits(64 * 1024**2, 2.0))


@pytest.mark.parametrize(
    ("top", "model", "enabled", "kind"),
    [
        ("auto", "", "true", "docker"),
        ("auto", "", "false", "process"),
        ("docker", "", "false", "docker"),
        ("process", "", "true", "process"),
        ("auto", "docker", "false", "docker"),
        ("process", "docker", "false", "docker"),
        ("docker", "process", "true", "process"),
        ("docker", "auto", "false", "process"),
        ("process", "auto", "true", "docker"),
    ],
)
def test_isolation_chooses_the_runtime_only_where_sandbox_yaml_leaves_it_open(
    folder, top: str, model: str, enabled: str, kind: str
) -> None:
    folder.write("model_dirs/hello/config.yaml", f"isolation: {{enabled: {enabled}}}\n")
    text = f"runtime: {top}\n{one(f'runtime: {model}')}"
    assert folder.resolve(text, runtime="docker").models["hello"].runtime == kind


def test_all_of_config_yaml_comes_back_as_json_types(folder) -> None:
    text = "name: Hello\nversion: 1.10\ntasks: [a]\nparameters: {n: 3, x: 1.5, on: yes, off: null}\nsettings: {1: {}}\nentry: main:A\n"
    folder.write("model_dirs/hello/config.yaml", text)
    config = resolve.model_config(str(folder.root / "model_dirs/hello"))
    assert config == {
        "name": "Hello",
        "version": 1.1,
        "tasks": ["a"],
        "parameters": {"n": 3, "x": 1.5, "on": "yes", "off": None},
        "settings": {"1": {}},
        "entry": "main:A",
    }
    assert {type(value) for value in config["parameters"].values()} == {int, float, str, type(None)}


def test_a_model_without_config_yaml_has_an_empty_one(folder) -> None:
    assert resolve.model_config(str(folder.root / "model_dirs/hello")) == {}
    folder.write("model_dirs/hello/config.yaml", "# nothing\n")
    assert resolve.model_config(str(folder.root / "model_dirs/hello")) == {}


@pytest.mark.parametrize(
    ("text", "reference", "at", "message"),
    [
        ("a: [\n", "yaml-syntax", "config.yaml:2", "did not find expected node content"),
        ("- a\n", "wrong-type", "config.yaml:1", "config.yaml must be a mapping, not a list"),
        ("a: 1\na: 2\n", "duplicate-key", "config.yaml:2", "a: is written twice in one mapping"),
        ("a:\n  - .nan\n", "bad-value", "config.yaml:2", "a.0: nan is no JSON number"),
        ("entry: 7\n", "wrong-type", "config.yaml:1", "entry: must be text, not the number 7"),
        ("isolation: 1\n", "wrong-type", "config.yaml:1", "isolation: must be a mapping, not the number 1"),
        (
            "isolation:\n  enabled: 2\n",
            "wrong-type",
            "config.yaml:2",
            "isolation.enabled: must be true or false, not the number 2",
        ),
        (
            "isolation: {python_version: 2.7}\n",
            "bad-value",
            "config.yaml:1",
            "isolation.python_version: '2.7' is no Python version that models can run on",
        ),
        (
            "isolation: {resources: {memory: 1M}}\n",
            "bad-value",
            "config.yaml:1",
            "isolation.resources.memory: 1M is less than the 32M that a model needs to start",
        ),
        (
            "isolation: {resources: {cpu: x}}\n",
            "wrong-type",
            "config.yaml:1",
            "isolation.resources.cpu: must be a number of cores, not 'x'",
        ),
    ],
)
def test_a_mistake_in_config_yaml_names_its_line(folder, text: str, reference: str, at: str, message: str) -> None:
    folder.write("model_dirs/hello/config.yaml", text)
    with pytest.raises(SpecError) as caught:
        resolve.model_config(str(folder.root / "model_dirs/hello"))
    assert (caught.value.reference, caught.value.at, caught.value.message) == (reference, at, message)
    assert refused(folder, HELLO).at == f"model_dirs/hello/{at}"


def test_what_config_yaml_says_of_isolation_beyond_what_we_know_is_let_be(folder) -> None:
    folder.write("model_dirs/hello/config.yaml", "isolation: {gpu: 1, enabled: , resources: {disk: 1G}}\n")
    assert folder.resolve(HELLO).models["hello"].limits == Limits()


# Files to be watched


def test_every_file_that_was_read_is_there_to_be_watched(folder) -> None:
    written = [
        folder.write(".env", ""),
        folder.write(".e", ""),
        folder.write("model_dirs/hello/config.yaml", "a: 1\n"),
        folder.write("model_dirs/hello/requirements.txt", "-r more.txt\n"),
        folder.write("model_dirs/hello/more.txt", "numpy\n"),
    ]
    desired = folder.resolve(one("env_file: .e"))
    absent = [str(folder.root / f"sandbox.override.{suffix}") for suffix in ("yaml", "yml")]
    assert sorted(desired.files) == sorted([str(folder.root / "sandbox.yaml"), *map(str, written), *absent])


# Hashes

BORN_WITH = [
    "python: '3.12'",
    "resources: {memory: 64M}",
    "resources: {cpus: 2}",
    "resources: {pids: 7}",
    "environment: {A: 1}",
    "volumes: ['./model_dirs:/w']",
    "data: rw",
    "network: bridge",
    "runtime: docker",
]
LIVE = [
    "replicas: 3",
    "concurrency: 3",
    "queue: {size: 1}",
    "timeout: 3s",
    "load_timeout: 3s",
    "max_input: 3",
    "max_batch: 3",
    "reload: {drain: 1s}",
    "restart: always",
    "depends_on: []",
    "profiles: []",
    "warmup: true",
    "debug: true",
]


@pytest.mark.parametrize("key", BORN_WITH)
def test_what_a_replica_is_born_with_changes_its_hash(folder, key: str) -> None:
    assert folder.resolve(one(key)).models["hello"].replica_hash != folder.resolve(HELLO).models["hello"].replica_hash


@pytest.mark.parametrize("key", LIVE)
def test_what_can_change_live_leaves_the_hash_alone(folder, key: str) -> None:
    assert folder.resolve(one(key)).models["hello"].replica_hash == folder.resolve(HELLO).models["hello"].replica_hash


def test_the_gateway_and_other_models_leave_the_hash_alone(folder) -> None:
    before = folder.resolve(HELLO).models["hello"]
    after = folder.resolve("gateway: {port: 1}\nmodels: {digits: model_dirs/digits, hello: model_dirs/hello}").models[
        "hello"
    ]
    assert after == before


def test_a_data_folder_that_appears_changes_the_replica_and_not_the_environment(folder) -> None:
    before = folder.resolve(HELLO).models["hello"]
    (folder.root / "model_dirs/hello/data").mkdir()
    after = folder.resolve(HELLO).models["hello"]
    assert (after.lock_hash, after.replica_hash == before.replica_hash) == (before.lock_hash, False)


def test_code_and_config_values_change_no_hash(folder) -> None:
    before = folder.resolve(HELLO).models["hello"]
    folder.write("model_dirs/hello/main.py", "x = 1\n")
    folder.write("model_dirs/hello/config.yaml", "parameters: {a: 1}\n")
    assert folder.resolve(HELLO).models["hello"] == before


def test_the_environment_is_known_by_requirements_python_and_runtime_and_nothing_else(folder) -> None:
    def lock(text: str = HELLO, **arguments) -> str:
        return folder.resolve(text, **arguments).models["hello"].lock_hash

    bare = lock()
    assert lock(one("environment: {A: 1}, network: bridge, data: rw")) == bare
    assert folder.resolve("models: {digits: model_dirs/digits}").models["digits"].lock_hash == bare
    others = {lock(runtime="docker"), lock(one("python: '3.12'")), lock(interpreter=lambda _, __: "3.11.8")}
    folder.write("model_dirs/hello/requirements.txt", "# nothing\n\n")
    assert lock() == bare
    folder.write("model_dirs/hello/requirements.txt", "numpy==1.26.4\n")
    others.add(lock())
    folder.write("model_dirs/hello/sandbox.lock", "openblas==1\n")
    others.add(lock())
    assert len(others - {bare}) == 5


def test_the_interpreter_is_asked_for_the_runtime_and_python_of_each_model(folder) -> None:
    asked = []

    def interpreter(kind: str, python: str) -> str:
        asked.append((kind, python))
        return "x"

    text = (
        "models: {hello: {path: model_dirs/hello, runtime: docker}, digits: {path: model_dirs/digits, python: '3.12'}}"
    )
    folder.resolve(text, interpreter=interpreter)
    assert asked == [("docker", ""), ("process", "3.12")]


def test_a_missing_python_is_left_to_the_build_of_that_model(folder) -> None:
    def interpreter(kind: str, python: str) -> str:
        if python == "3.9":
            raise SandboxError("no-python", "no Python 3.9 here")
        return "3.11.7"

    text = "models: {hello: {path: model_dirs/hello, python: '3.9'}, digits: model_dirs/digits}"
    assert list(folder.resolve(text, interpreter=interpreter).models) == ["hello", "digits"]


def test_an_engine_that_does_not_answer_is_no_identity(folder) -> None:
    def interpreter(kind: str, python: str) -> str:
        raise SandboxError("no-engine", "no engine")

    with pytest.raises(SandboxError) as caught:
        folder.resolve(HELLO, interpreter=interpreter)
    assert caught.value.reference == "no-engine"


def test_a_path_with_a_colon_or_space_stays_one_path(folder) -> None:
    folder.write("a b/main.py")
    assert os.path.basename(folder.resolve("models: {m: a b}").models["m"].path) == "a b"
