"""What a build may see of this machine: the requirements, local packages that they name, the install script.

The same input gives the same bytes, order, modes and times, so that a builder's cache holds.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.image.dockerfile import BUILD_FOLDER, install_script

IGNORED = frozenset({".git", ".hg", ".venv", "venv", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache"})

# "-e /path", "/path", "file:///path" and "name @ file:///path", with extras or markers after it.
_LOCAL = re.compile(
    r"""^(?P<before>(?:(?:-e|--editable)[ =]+)?(?:[A-Za-z0-9._-]+(?:\[[^\]]*\])?\s*@\s*)?)
        (?:file://(?:localhost)?)?(?P<path>/[^\s;\[#]+)(?P<after>.*)$""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Context:
    """Files of a build, sorted by name: (path in the context, contents, executable)."""

    files: tuple[tuple[str, bytes, bool], ...]

    def tar(self) -> bytes:
        """The context as an archive: names sorted, owners and times zeroed."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name, data, executable in self.files:
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                entry.mode = 0o755 if executable else 0o644
                archive.addfile(entry, io.BytesIO(data))
        return buffer.getvalue()

    def write(self, folder: str) -> None:
        """Unpack it into an empty folder."""
        with tarfile.open(fileobj=io.BytesIO(self.tar())) as archive:
            archive.extractall(folder, filter="data")


def context(requirements: str) -> Context:
    """The context of these requirements (normalised: local paths absolute)."""
    files: dict[str, tuple[bytes, bool]] = {"install.sh": (install_script().encode(), False)}
    lines = []
    for number, line in enumerate(requirements.splitlines()):
        found = _LOCAL.match(line)
        if found is None or not os.path.exists(found["path"]):
            lines.append(line)
            continue
        path = os.path.realpath(found["path"])
        inside = f"local/{number}/{os.path.basename(path)}"
        files |= {f"{inside}{below}": content for below, content in _tree(path)}
        lines.append(_rewritten(found, inside))
    files["requirements.txt"] = ("".join(f"{line}\n" for line in lines).encode(), False)
    return Context(tuple((name, *files[name]) for name in sorted(files)))


def _rewritten(found: re.Match[str], inside: str) -> str:
    before = found["before"]
    # An editable install would point into the context, which is gone after the build.
    before = re.sub(r"^(-e|--editable)[ =]+", "", before)
    path = f"file://{BUILD_FOLDER}/context/{inside}" if "@" in before else f"./{inside}"
    return f"{before}{path}{found['after']}"


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
