"""build, pull, images: in the process runtime, without a sandbox."""

import json

import pytest

PROCESS = "runtime: process\ngateway: {port: 0}\nmodels:\n  hello: model_dirs/hello\n  again: model_dirs/hello\n"


@pytest.fixture
def embedded(project):
    (project / "sandbox.yaml").write_text(PROCESS)
    return project


def test_what_is_built_is_listed_and_was_not_there_before(embedded, sandbox):
    before = [json.loads(line) for line in sandbox("images", "--format", "json")[1].splitlines()]
    assert [(row["name"], row["location"], row["python"]) for row in before] == [
        ("hello", None, None),
        ("again", None, None),
    ]
    assert list(before[0]) == ["name", "runtime", "lock", "python", "location"]
    assert sandbox("images", "-q")[:2] == (0, "")
    assert "not built" in sandbox("images", "hello")[1]
    code, out, err = sandbox("up", "-d", "--no-build")
    assert (code, out) == (1, "")
    assert err == "error: no environment was built yet for hello, again\n  hint: sandbox build\n  (build)\n"

    code, out, err = sandbox("build")
    assert (code, err) == (0, "")
    assert out.count(f"hello ✔ environment {before[0]['lock'][:12]}") == 1  # both models have the same
    after = json.loads(sandbox("images", "--format", "json-array")[1])
    assert after[0]["location"] == after[1]["location"] == sandbox("images", "-q", "hello")[1].strip()


def test_what_cannot_be_built_is_told_and_starts_nothing(embedded, sandbox):
    (embedded / "model_dirs" / "hello" / "requirements.txt").write_text("./no-such-folder\n")
    for words in (["build"], ["up", "-d", "--build"]):
        code, _, err = sandbox(*words)
        assert code in {1, 2}
        assert "no-such-folder" in err
    assert not (embedded / ".sandbox").exists()


def test_there_is_nothing_to_pull_for_processes(embedded, sandbox):
    assert sandbox("pull") == (0, "", "nothing to pull: no model runs in a container\n")


def test_up_cannot_both_build_and_not(sandbox, project):
    assert sandbox("up", "--build", "--no-build")[0] == 2
