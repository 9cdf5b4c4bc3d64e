"""What a build may see of this machine: the requirements, local packages that they name, the install script.

The same input gives the same names, bytes, modes and times, so that a builder's cache holds.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote, unquote

from orchestrator.image.dockerfile import BUILD_FOLDER, install_script
from orchestrator.plan.types import Requirements

# The name by which normalised requirements refer to their constraints.
CONSTRAINTS_FILE = "constraints.txt"
IGNORED = frozenset({".git", ".hg", ".venv", "venv", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache"})

# "/path", "file:///path", "name @ file:///path" and "--find-links /path", with extras, markers or a comment after it.
_LOCAL = re.compile(
    r"""^(?P<before>--find-links\ |(?:[A-Za-z0-9._-]+(?:\[[^\]]*\])?\s*@\s*)?)
        (?P<scheme>file:(?://(?:localhost)?)?)?(?P<path>/[^\s;\[#]+)(?P<after>.*)$""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Context:
    """Files of a build, sorted by name: (path in the context, contents, executable)."""

    files: tuple[tuple[str, bytes, bool], ...]

    def write(self, folder: str) -> None:
        """Lay it out in an empty folder, each file with a time that its content alone decides."""
        for name, data, executable in self.files:
            path = os.path.join(folder, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(data)
            os.chmod(path, 0o755 if executable else 0o644)
            os.utime(path, ns=(moment := _moment(data), moment))


def _moment(data: bytes) -> int:
    """Nanoseconds since the epoch, made of the content.

    BuildKit sends only files whose size or time changed since the last build from a folder: of two requirements of one
    size and one time it would install the first for both.
    """
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big") % (2**31 * 10**9)


def context(requirements: Requirements) -> Context:
    """The context of these requirements (normalised: nothing editable, local paths absolute)."""
    files: dict[str, tuple[bytes, bool]] = {"install.sh": (install_script().encode(), False)}
    lines = []
    for number, line in enumerate(requirements.text.splitlines()):
        found = _LOCAL.match(line)
        path = "" if found is None else (unquote(found["path"]) if found["scheme"] else found["path"])
        if found is None or not os.path.exists(path):
            lines.append(line)
            continue
        inside = f"local/{number}/{os.path.basename(path)}"
        files |= {f"{inside}{below}": content for below, content in _tree(os.path.realpath(path))}
        place = f"{BUILD_FOLDER}/work/{inside}"
        lines.append(f"{found['before']}{f'file://{quote(place)}' if found['scheme'] else place}{found['after']}")
    files["requirements.txt"] = ("".join(f"{line}\n" for line in lines).encode(), False)
    if requirements.constraints:
        files[CONSTRAINTS_FILE] = (requirements.constraints.encode(), False)
    return Context(tuple((name, *files[name]) for name in sorted(files)))


def _tree(path: str) -> Iterator[tuple[str, tuple[bytes, bool]]]:
    """Every file at or below `path`: its name relative to it ("" for a file, "/a/b" below a folder)."""
    if os.path.isfile(path):
        yield "", _file(path)
        return
    for folder, names, leaves in os.walk(path):
        names[:] = sorted(name for name in names if name not in IGNORED and not name.endswith(".egg-info"))
        for leaf in sorted(leaves):
            source = os.path.join(folder, leaf)
            if os.path.isfile(source) and not leaf.endswith(".pyc"):
                yield source[len(path) :], _file(source)


def _file(path: str) -> tuple[bytes, bool]:
    with open(path, "rb") as file:
        return file.read(), bool(os.stat(path).st_mode & 0o100)
