"""A model's requirements.txt, normalised: what decides its environment, and nothing else. Reads files, installs none.

`-r` and `-c` are followed (a circle is an error); comments go; a local path becomes absolute, with the hash of its
content behind it as a comment, so that a change in it is a change of the text. `sandbox.lock` pins: it is read as
constraints. What a line means is left to the installer.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from orchestrator.errors import SpecError
from orchestrator.plan.types import Requirements
from orchestrator.spec.paths import Boundary
from orchestrator.spec.reading import read_text

FILE = "requirements.txt"
LOCK_FILE = "sandbox.lock"
CONSTRAINTS_FILE = "constraints.txt"

_COMMENT = re.compile(r"(?:^|\s)#.*$")
_OPTION = re.compile(
    r"(?P<name>-r|-c|-e|-f|--requirement|--constraint|--editable|--find-links)(?:\s*=\s*|\s+|(?<=-[rcef]))(?P<value>.+)"
)
_LOCAL = re.compile(
    r"(?:(?P<name>[A-Za-z0-9][\w.-]*(?:\[[^\]]*\])?)\s*@\s*)?(?P<path>file:\S+|[^\s;\[]+)(?P<rest>.*)", re.DOTALL
)
_PLAIN = re.compile(r"[\w./@+~-]+\Z")
_ARCHIVES = (".whl", ".zip", ".tar.gz", ".tar.bz2", ".tgz")
_IGNORED = frozenset({".git", "__pycache__", ".venv", ".mypy_cache", ".pytest_cache", ".ruff_cache", "node_modules"})


def read(directory: str, boundary: Boundary) -> Requirements:
    """The requirements of the model in `directory`. Raises SpecError with file:line."""
    reading = _Reading(boundary)
    top = os.path.join(directory, FILE)
    if os.path.exists(top):
        reading.file(top, reading.lines, ())
    lock = os.path.join(directory, LOCK_FILE)
    if os.path.exists(lock):
        reading.file(lock, reading.constraints, ())
    # With nothing to install there is nothing to pin.
    constraints = list(dict.fromkeys(reading.constraints)) if reading.lines else []
    lines = [*reading.lines, *([f"-c {CONSTRAINTS_FILE}"] if constraints else [])]
    return Requirements(
        text="".join(f"{line}\n" for line in lines),
        files=tuple(dict.fromkeys(reading.files)),
        constraints="".join(f"{line}\n" for line in constraints),
    )


@dataclass(slots=True)
class _Reading:
    boundary: Boundary
    lines: list[str] = field(default_factory=list)
    constraints: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)

    def file(self, path: str, lines: list[str], trail: tuple[str, ...]) -> None:
        """Add what `path` holds to `lines`; `trail` is the chain of files that led here."""
        shown = self.boundary.shown(path)
        self.files.append(path)
        for number, line in _logical_lines(read_text(path, shown, "path-missing")):
            place = f"{shown}:{number}"
            try:
                self.line(line, os.path.dirname(path), lines, (*trail, path))
            except SpecError as error:
                if error.at:
                    raise
                raise SpecError(error.reference, error.message, hint=error.hint, at=place) from error

    def line(self, line: str, base: str, lines: list[str], trail: tuple[str, ...]) -> None:
        option = _OPTION.fullmatch(line)
        match option["name"] if option else "":
            case "-r" | "--requirement":
                self.follow(option["value"], base, lines, trail)  # type: ignore[index]
            case "-c" | "--constraint":
                self.follow(option["value"], base, self.constraints, trail)  # type: ignore[index]
            case "-f" | "--find-links":
                lines.append(self.find_links(option["value"], base))  # type: ignore[index]
            case "-e" | "--editable":
                lines.append(self.requirement(_unquoted(option["value"]), base, editable=True))  # type: ignore[index]
            case _:
                lines.append(line if line.startswith("-") else self.requirement(line, base))

    def follow(self, value: str, base: str, lines: list[str], trail: tuple[str, ...]) -> None:
        value = _unquoted(value)
        if "://" in value and not value.startswith("file:"):
            hint = "copy the file into the project: what a URL holds can change unseen"
            raise SpecError("bad-value", f"{value} is not a file of the project", hint=hint)
        path = self.boundary.inside(_without_scheme(value), base)
        if path in trail:
            circle = " → ".join(self.boundary.shown(file) for file in (*trail[trail.index(path) :], path))
            raise SpecError("bad-value", f"the files include each other: {circle}", hint="remove one of these lines")
        self.file(path, lines, trail)

    def find_links(self, value: str, base: str) -> str:
        """A folder of packages, with the hash of its content; a URL as it is."""
        if "://" in value and not value.startswith("file:"):
            return f"--find-links {value}"
        path = self.boundary.inside(_without_scheme(_unquoted(value)), base)
        return f"--find-links {path}  # sha256:{self.content(path)}"

    def requirement(self, line: str, base: str, *, editable: bool = False) -> str:
        """One requirement; a local path made absolute, with its content's hash. Nothing stays editable: an environment
        is what its lock hash says.
        """
        found = _LOCAL.fullmatch(line)
        if found is None or not (_is_local(found["path"], base) or (editable and not _is_url(found["path"]))):
            return line
        path = self.boundary.inside(_without_scheme(found["path"]), base)
        name = f"{found['name']} @ " if found["name"] else ""
        where = path if not name and _PLAIN.match(path) else f"file://{quote(path)}"
        return f"{name}{where}{found['rest'].rstrip()}  # sha256:{self.content(path)}"

    def content(self, path: str) -> str:
        """sha256 over a file, or over the names and contents of a directory's files."""
        digest = hashlib.sha256()
        for file in _files(path):
            self.files.append(file)
            name = os.fsencode(os.path.relpath(file, path))
            digest.update(b"%d:%s" % (len(name), name))
            try:
                with open(file, "rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
            except OSError as error:
                hint = "check its permissions, or remove it"
                raise SpecError("path-missing", f"{file} cannot be read: {error.strerror}", hint=hint) from error
        return digest.hexdigest()


def _logical_lines(text: str) -> list[tuple[int, str]]:
    """Lines with continuations joined and comments dropped, each with the number of its first line."""
    found: list[tuple[int, str]] = []
    pending, start = "", 0
    for number, raw in enumerate(text.splitlines(), 1):
        start = start if pending else number
        if raw.endswith("\\") and not raw.lstrip().startswith("#"):
            pending += raw[:-1].strip() + " "
            continue
        line = _COMMENT.sub("", pending + raw.strip()).strip()
        pending = ""
        if line:
            found.append((start, line))
    if pending.strip():
        found.append((start, pending.strip()))
    return found


def _is_local(path: str, base: str) -> bool:
    if path.startswith("file:"):
        return True
    if _is_url(path):
        return False
    if path.startswith((".", "/", "~")):
        return True
    return path.lower().endswith(_ARCHIVES) or ("/" in path and os.path.exists(os.path.join(base, path)))


def _is_url(path: str) -> bool:
    return "://" in path and not path.startswith("file:")


def _without_scheme(path: str) -> str:
    return unquote(re.sub(r"\Afile:(?://(?:localhost)?(?=/))?", "", path)) if path.startswith("file:") else path


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


def _files(path: str) -> list[str]:
    if not os.path.isdir(path):
        return [path]
    found = []
    for folder, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if name not in _IGNORED and not name.endswith(".egg-info"))
        found += [os.path.join(folder, name) for name in sorted(files) if not name.endswith(".pyc")]
    return found
