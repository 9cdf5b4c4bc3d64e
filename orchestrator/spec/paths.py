"""Where a path of sandbox.yaml leads, and whether it may: symlinks resolved, nothing outside the project unasked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.errors import SpecError


@dataclass(frozen=True, slots=True)
class Boundary:
    """The project's real directory and the real paths outside it that allow_outside names."""

    directory: str
    outside: tuple[str, ...] = ()
    home: str = ""

    @classmethod
    def of(cls, directory: str, allow_outside: Sequence[str], home: str) -> Boundary:
        """allow_outside as it is written: relative to the project, or with `~`."""
        bare = cls(directory, (), home)
        return cls(directory, tuple(os.path.realpath(bare.absolute(path)) for path in allow_outside), home)

    def absolute(self, path: str, base: str = "") -> str:
        """`path` from `base` (the project's directory if none), `~` for the user's home; symlinks untouched."""
        if path == "~" or path.startswith("~/"):
            path = (self.home or "~") + path[1:]
        return os.path.normpath(os.path.join(base or self.directory, path))

    def inside(self, path: str, base: str = "") -> str:
        """The real path. Raises SpecError("path-missing", "path-outside")."""
        absolute = self.absolute(path, base)
        real = os.path.realpath(absolute)
        if not any(contains(root, real) for root in (self.directory, *self.outside)):
            raise SpecError(
                "path-outside",
                f"{path} leads to {real}, outside the project",
                hint=f"add {real} to allow_outside, or move it into the project",
            )
        if not os.path.exists(real):
            raise SpecError("path-missing", f"{path} does not exist", hint=f"create {absolute}, or correct the path")
        return real

    def model_directory(self, path: str) -> str:
        """A model's directory. It may not hold the project: a generation would contain all generations."""
        real = self.inside(path)
        if not os.path.isdir(real):
            hint = "name the directory that holds main.py"
            raise SpecError("bad-value", f"{path} is a file, not a directory", hint=hint)
        if contains(real, self.directory):
            hint = "put the model into a directory of its own below the project"
            raise SpecError("bad-value", f"{path} holds the project itself", hint=hint)
        if contains(os.path.join(self.directory, ".sandbox"), real):
            raise SpecError(
                "bad-value", f"{path} lies in .sandbox, which is ours", hint="move the model out of .sandbox"
            )
        return real

    def links(self, path: str) -> tuple[str, ...]:
        """The symbolic links on the way from the project's directory to `path`: each may be pointed elsewhere."""
        found, at = [], self.absolute(path)
        while contains(self.directory, at) and at != self.directory:
            if os.path.islink(at):
                found.append(at)
            at = os.path.dirname(at)
        return tuple(found)

    def shown(self, path: str) -> str:
        """A path for people: relative to the project where it lies inside."""
        return os.path.relpath(path, self.directory) if contains(self.directory, path) else path


def contains(root: str, path: str) -> bool:
    """Whether the absolute `path` is `root` or below it."""
    return path == root or path.startswith(root.rstrip("/") + "/")


def data_dir(path: str) -> str | None:
    """A model directory's data folder: `vocab_data/` where that exists, else `data/`; None where neither does."""
    for name in ("vocab_data", "data"):
        folder = os.path.join(path, name)
        if os.path.isdir(folder):
            return os.path.realpath(folder)
    return None
