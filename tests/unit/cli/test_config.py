"""What `sandbox config` prints besides the whole: hashes, variables, the files as they are written."""

import json

import pytest

SPEC = """\
runtime: process
gateway:
  port: ${PORT:-8080}
models:
  hello:
    path: model_dirs/hello
    environment:
      A: "${A?set it}"
      B: "${B:+instead}${C-${D}}"
      C: "$$5"
"""


@pytest.fixture
def spec(project, monkeypatch):
    monkeypatch.delenv("PORT", raising=False)
    (project / "sandbox.yaml").write_text(SPEC)
    return project


def test_variables_are_listed_whether_set_or_not(spec, sandbox):
    assert sandbox("config", "--variables") == (
        0,
        (
            "NAME   REQUIRED   DEFAULT VALUE   ALTERNATE VALUE\n"
            "PORT   false      8080\n"
            "A      true\n"
            "B      false                      instead\n"
            "C      false      ${D}\n"
            "D      false\n"
        ),
        "",
    )
    rows = json.loads(sandbox("config", "--variables", "--format", "json")[1])
    assert rows[0] == {"name": "PORT", "required": False, "default": "8080", "alternate": ""}


def test_files_are_printed_as_they_are_written(spec, sandbox):
    (spec / "sandbox.override.yaml").write_text("models:\n  hello:\n    replicas: ${N}\n")
    code, out, err = sandbox("config", "--no-interpolate", "--format", "json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["gateway"] == {"port": "${PORT:-8080}"}
    assert found["models"]["hello"]["replicas"] == "${N}"
    assert found["models"]["hello"]["environment"]["C"] == "$$5"
    assert "port: ${PORT:-8080}" in sandbox("config", "--no-interpolate")[1]
    assert sandbox("config", "--no-interpolate", "-q") == (0, "", "")


def test_what_cannot_be_read_is_an_error_all_the_same(spec, sandbox):
    (spec / "sandbox.yaml").write_text("gateway: {port: '${PORT'}\n")
    code, _, err = sandbox("config", "--variables")
    assert code == 2
    assert err.startswith("error: sandbox.yaml:1: gateway.port: ${PORT is followed by")


def test_a_hash_changes_with_what_replaces_replicas_and_with_nothing_else(project, sandbox):
    text = (project / "sandbox.yaml").read_text()

    def hashes():
        code, out, _ = sandbox("--profile", "big", "config", "--hash", "*")
        assert code == 0
        return dict(line.split() for line in out.splitlines())

    before = hashes()
    assert list(before) == ["hello", "digits"]
    (project / "sandbox.yaml").write_text(text + "    concurrency: 3\n")
    assert hashes() == before
    (project / "sandbox.yaml").write_text(text + "    environment: {A: b}\n")
    after = hashes()
    assert after["hello"] == before["hello"]
    assert after["digits"] != before["digits"]
    assert sandbox("config", "--hash", "hello")[1] == f"hello {before['hello']}\n"
    assert sandbox("config", "--hash", "helo")[0] == 2


def test_processes_run_from_no_image(spec, sandbox, monkeypatch):
    monkeypatch.setenv("A", "1")
    assert sandbox("config", "--images")[:2] == (0, "")
