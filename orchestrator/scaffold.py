"""Writes what a person starts from: a sandbox.yaml, a model directory. It overwrites nothing and runs nothing."""

from __future__ import annotations

import os
import re
from importlib import resources

from orchestrator import folders
from orchestrator.errors import SandboxError
from orchestrator.spec import editor

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}")
MODEL_FILES = ("main.py", "config.yaml", "requirements.txt")
DEFAULT_PARENT = "model_dirs"
SCHEMA = ".sandbox/sandbox.schema.json"


def init(directory: str) -> str:
    """Write a commented sandbox.yaml in `directory`; return its path. Raises SandboxError("exists")."""
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, "sandbox.yaml")
    _write(path, _template("init", "sandbox.yaml"))
    write_schema(path)
    return path


def write_schema(spec_file: str) -> None:
    """Put the schema of this release where the first line of `spec_file` has editors look for it, if it does."""
    with open(spec_file, encoding="utf-8", errors="replace") as file:
        first = file.readline()
    if not first.startswith("# yaml-language-server:") or not first.rstrip().endswith(f"$schema={SCHEMA}"):
        return
    path = os.path.join(os.path.dirname(os.path.abspath(spec_file)), SCHEMA)
    folders.project_folder(os.path.dirname(path))
    text = editor.text()
    try:
        with open(path, encoding="utf-8") as file:
            if file.read() == text:
                return
    except OSError:
        pass  # it is not there yet
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def new(name: str, spec_file: str) -> tuple[str, bool]:
    """Write a model directory that works, and add it to sandbox.yaml.

    Returns the directory relative to the project, and False where sandbox.yaml has a form that cannot be edited safely.
    Raises SandboxError("bad-name" | "exists").
    """
    if not NAME.fullmatch(name):
        suggestion = re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-_")[:41]
        hint = f"for example {suggestion}" if suggestion else "lower-case letters, digits, - and _"
        raise SandboxError("bad-name", f"{name!r} is no name for a model", hint=hint)
    project = os.path.dirname(spec_file)
    with open(spec_file, encoding="utf-8") as file:
        text = file.read()
    if re.search(rf"^\s+{re.escape(name)}\s*:", text, re.MULTILINE):
        raise SandboxError("exists", f"sandbox.yaml has a model {name} already", hint="choose another name")
    relative = os.path.join(_parent(text, project), name)
    folder = os.path.join(project, relative)
    if os.path.lexists(folder):
        raise SandboxError(
            "exists", f"{relative} exists already", hint="choose another name, or add it to sandbox.yaml"
        )
    os.makedirs(folder)
    for template in MODEL_FILES:
        _write(os.path.join(folder, template), _template("new", template).replace("{{ name }}", name))
    edited = with_model(text, name, relative)
    if edited is None:
        return relative, False
    aside = f"{spec_file}.new"
    with open(aside, "w", encoding="utf-8") as file:
        file.write(edited)
    os.chmod(aside, os.stat(spec_file).st_mode & 0o777)
    os.replace(aside, spec_file)
    return relative, True


def _parent(text: str, project: str) -> str:
    """Where this project keeps its models: the folder that most of those in sandbox.yaml share."""
    parents = re.findall(
        r"^\s+(?:[a-z0-9][a-z0-9_-]*|path):[ \t]*[\"']?(?:\./)?([\w./-]+)/[\w-]+[\"']?\s*(?:#.*)?$", text, re.MULTILINE
    )
    inside = [
        parent for parent in parents if os.path.isdir(os.path.join(project, parent)) and not os.path.isabs(parent)
    ]
    return max(sorted(set(inside)), key=inside.count) if inside else DEFAULT_PARENT


def with_model(text: str, name: str, path: str) -> str | None:
    """`text` with one line more under `models:`, comments and order kept; None where that is not a plain block."""
    lines = text.splitlines(keepends=True)
    heads = [index for index, line in enumerate(lines) if re.match(r"models\s*:", line)]
    if len(heads) != 1:
        return None if heads else _with_section(text, name, path)
    head = heads[0]
    value = re.sub(r"\s#.*", "", lines[head].partition(":")[2]).strip()
    if value not in ("", "{}"):
        return None
    if value == "{}":
        lines[head] = lines[head].replace("{}", "", 1).rstrip() + "\n"
    last, indent = head, "  "
    for index in range(head + 1, len(lines)):
        line = lines[index]
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not line.startswith((" ", "\t")):
            break
        if last == head:
            indent = line[: len(line) - len(line.lstrip())]
        last = index
    # What is indented deeper and commented out belongs to the model above it.
    while last + 1 < len(lines) and re.match(rf"{indent}\s+#", lines[last + 1]):
        last += 1
    if not lines[last].endswith("\n"):
        lines[last] += "\n"
    lines.insert(last + 1, f"{indent}{name}: {path}\n")
    return "".join(lines)


def _with_section(text: str, name: str, path: str) -> str:
    gap = "" if not text or text.endswith("\n") else "\n"
    return f"{text}{gap}models:\n  {name}: {path}\n"


def _template(*parts: str) -> str:
    return resources.files("orchestrator").joinpath("templates", *parts).read_text(encoding="utf-8")


def _write(path: str, text: str) -> None:
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise SandboxError("exists", f"{path} exists already", hint="it was left as it is") from error
