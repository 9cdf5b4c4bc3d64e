"""The command line itself: what is imported, how a mistake ends, what every help says."""

import argparse
import json
import os
import re
import subprocess
import sys

import pytest

from orchestrator import folders
from orchestrator.cli import build_parser

HEAVY = ("pydantic", "aiohttp", "docker", "rich", "yaml", "uvloop", "jinja2", "python_on_whales", "watchfiles", "shtab")
ROOT = os.path.join(os.path.dirname(__file__), "..", "..", "..")


def commands():
    (choices,) = (each for each in build_parser()._actions if isinstance(each, argparse._SubParsersAction))
    return choices.choices


def options(parser):
    return [each for each in parser._actions if not isinstance(each, argparse._HelpAction | argparse._SubParsersAction)]


@pytest.mark.parametrize("words", [["ps"], ["logs"], ["events"], ["ls"], ["generations", "x"], ["version"], ["--help"]])
def test_a_thin_command_imports_nothing_but_the_standard_library(words, control, tmp_path):
    control.answers |= {("GET", "/api/logs"): [], ("GET", "/api/events"): []}
    control.answers["GET", "/api/generations"] = {"generations": []}
    code = (
        "import sys\nfrom orchestrator.cli import main\n"
        "try:\n    code = main(sys.argv[1:])\nexcept SystemExit as end:\n    code = end.code\n"
        f"found = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "sys.exit(f'imported {found}' if found or code else 0)"
    )
    ran = subprocess.run([sys.executable, "-c", code, *words], check=False, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("name", commands())
def test_every_command_has_help_with_examples(name, sandbox, capsys):
    with pytest.raises(SystemExit) as end:
        sandbox(name, "--help")
    assert end.value.code == 0
    assert f"examples:\n  sandbox {name}" in capsys.readouterr().out.replace('eval "$(sandbox', "sandbox")
    assert all(option.help for option in options(commands()[name]))


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["ps", "--format", "xml"],
        ["up", "--det"],
        ["predict"],
        ["down", "-t", "-1"],
        ["logs", "--since", "x"],
    ],
)
def test_a_command_line_that_cannot_be_read_is_an_error_like_any_other(words, sandbox):
    code, out, err = sandbox(*words)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"error: .+\n  hint: see: sandbox.* --help\n  \(usage\)\n", err)


def test_without_a_command_it_helps(sandbox):
    code, out, _ = sandbox()
    assert code == 0
    assert out.startswith("usage: sandbox")


def test_no_spec_says_what_to_do(tmp_path, monkeypatch, sandbox):
    monkeypatch.chdir(tmp_path)
    for words in (["ps"], ["up"], ["config"], ["plan"], ["down"]):
        code, _, err = sandbox(*words)
        assert code == 2
        assert err.endswith("  (no-spec)\n")
        assert "hint: " in err


def test_a_wrong_spec_starts_nothing_and_exits_2(project, sandbox):
    (project / "sandbox.yaml").write_text("models:\n  hello:\n    path: model_dirs/hello\n    replica: 2\n")
    code, out, err = sandbox("up", "-d")
    assert (code, out) == (2, "")
    assert err == (
        "error: sandbox.yaml:4: models.hello.replica: unknown key\n  hint: did you mean replicas?\n  (unknown-key)\n"
    )
    assert not os.path.exists(project / ".sandbox")


def test_an_error_shows_a_traceback_only_with_debug(project, sandbox):
    (project / "sandbox.yaml").write_text("models: [")
    code, _, err = sandbox("config")
    assert code == 2
    assert "Traceback" not in err
    with pytest.raises(Exception, match=r"sandbox\.yaml"):
        sandbox("--debug", "config")


def test_colour_follows_ansi_and_no_color(control, sandbox, monkeypatch):
    control.answers["GET", "/api/plan"] = {"actions": []}
    assert "\x1b[" not in sandbox("ps")[1]
    assert "\x1b[" in sandbox("--ansi", "always", "ps")[1]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in sandbox("--ansi", "auto", "ps")[1]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_every_command(shell, sandbox):
    code, out, _ = sandbox("completion", shell)
    assert code == 0
    assert all(name in out for name in commands())


def test_config_prints_what_reads_as_the_same(project, sandbox):
    code, out, _ = sandbox("--profile", "big", "config", "--format", "json")
    assert code == 0
    assert list(json.loads(out)["models"]) == ["hello", "digits"]
    assert sandbox("config", "--models")[1] == "hello\n"
    assert sandbox("config", "-q")[:2] == (0, "")


# The documents


def section(text, name):
    return text.split(f"\n### {name}\n")[1].split("\n### ")[0]


def test_every_command_and_flag_is_documented_and_nothing_else():
    with open(os.path.join(ROOT, "docs", "commands.md"), encoding="utf-8") as file:
        text = file.read()
    assert re.findall(r"^### (\w+)$", text, re.MULTILINE) == list(commands())
    assert documented(text.split("## The commands")[0]) == declared(build_parser())
    for name, parser in commands().items():
        assert documented(section(text, name)) == declared(parser), name


def declared(parser):
    return {word for option in options(parser) for word in option.option_strings}


def documented(text):
    rows = re.findall(r"^\| `(-[^`]+)` \|", text, re.MULTILINE)
    return {word.split()[0] for each in rows for word in each.split(", ")}


def test_every_error_reference_is_documented_with_its_meaning():
    from orchestrator.errors import REFERENCES

    with open(os.path.join(ROOT, "docs", "errors.md"), encoding="utf-8") as file:
        rows = re.findall(r"^\| `([a-z-]+)` \| (.+?) \|", file.read(), re.MULTILINE)
    assert [name for name, _ in rows] == list(REFERENCES)
    for name, meaning in rows:
        assert meaning.startswith(REFERENCES[name].meaning), name


def test_the_file_is_found_here_or_above(tmp_path) -> None:
    below = tmp_path / "model_dirs" / "hello"
    below.mkdir(parents=True)
    assert folders.find_spec(str(below)) is None
    (tmp_path / "sandbox.yaml").write_text("models: {}")
    assert folders.find_spec(str(below)) == str(tmp_path / "sandbox.yaml")
