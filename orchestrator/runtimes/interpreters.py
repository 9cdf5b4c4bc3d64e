"""Which Python interpreters this machine has, and which of them a model's `python` means.

It starts interpreters to ask who they are; it installs nothing and downloads nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from orchestrator.errors import SandboxError

_DEADLINE = 20.0
# What an interpreter says of itself. A shim of a version manager answers through the interpreter that it stands for.
_QUESTION = """
import json, os, platform, sys, sysconfig
libc = platform.libc_ver()[0]
print(json.dumps({
    "executable": os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable),
    "prefix": sys.base_prefix,
    "version": ".".join(map(str, sys.version_info[:3])),
    "name": sys.implementation.name,
    "platform": sysconfig.get_platform(),
    "libc": "gnu" if libc == "glibc" else libc or "musl",
}))
"""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """One interpreter, symbolic links and shims resolved. identity: "cpython-3.11.7-linux-x86_64-gnu"."""

    executable: str
    prefix: str
    version: str
    identity: str


class Interpreters:
    """Finds interpreters, and remembers what it found."""

    def __init__(self) -> None:
        self._known: dict[str, Interpreter] = {}
        self._asked: dict[tuple[str, float], Interpreter | None] = {}

    async def find(self, python: str) -> Interpreter:
        """The interpreter that `python` means: "" is the one that runs us, "3.11" and "3.11.7" are looked for.

        Raises SandboxError("no-python") naming those that are here.
        """
        known = self._known.get(python)
        if known is not None and _exists(known):
            return known
        found = await self._search(python)
        if found is None:
            here = sorted({each.version async for each in self._all()}, key=_number)
            raise SandboxError(
                "no-python",
                f"Python {python or 'of this program'} is not on this machine (found: {', '.join(here) or 'none'})",
                hint="install it, or choose one that is here with `python:`",
            )
        self._known[python] = found
        return found

    async def _search(self, python: str) -> Interpreter | None:
        if not python:
            return await self._ask(getattr(sys, "_base_executable", None) or sys.executable)
        for candidate in _candidates(python):
            found = await self._ask(candidate)
            if found is not None and f"{found.version}.".startswith(f"{python}."):
                return found
        return None

    async def _all(self) -> AsyncIterator[Interpreter]:
        for candidate in [sys.executable, *_candidates("")]:
            found = await self._ask(candidate)
            if found is not None:
                yield found

    async def _ask(self, executable: str) -> Interpreter | None:
        try:
            key = (executable, os.stat(executable).st_mtime)
        except OSError:
            return None
        if key not in self._asked:
            self._asked[key] = await _introduce(executable)
        return self._asked[key]


async def _introduce(executable: str) -> Interpreter | None:
    """Let an interpreter say who it is; None for what does not answer like one."""
    try:
        process = await asyncio.create_subprocess_exec(
            executable, "-I", "-S", "-c", _QUESTION,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
    except OSError:
        return None
    try:
        async with asyncio.timeout(_DEADLINE):
            output, _ = await process.communicate()
        said = json.loads(output)
    except (TimeoutError, ValueError):
        return None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    identity = f"{said['name']}-{said['version']}-{said['platform']}-{said['libc']}"
    return Interpreter(said["executable"], said["prefix"], said["version"], identity)


def _candidates(python: str) -> Iterator[str]:
    """Paths that may be it, the likeliest first: PATH, then what pyenv and uv have installed."""
    minor = re.fullmatch(r"(\d+\.\d+)(\.\d+)?", python)
    name = re.compile(rf"python{re.escape(minor.group(1))}" if minor else r"python3(\.\d+)?")
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        yield from _named(folder, name)
    for versions in _version_folders():
        for version in sorted(_listed(versions), key=_number, reverse=True):
            yield from _named(os.path.join(versions, version, "bin"), name)


def _named(folder: str, name: re.Pattern[str]) -> Iterator[str]:
    yield from (os.path.join(folder, entry) for entry in sorted(_listed(folder)) if name.fullmatch(entry))


def _version_folders() -> list[str]:
    home = os.path.expanduser("~")
    data = os.environ.get("XDG_DATA_HOME") or os.path.join(home, ".local", "share")
    return [
        os.path.join(os.environ.get("PYENV_ROOT") or os.path.join(home, ".pyenv"), "versions"),
        os.environ.get("UV_PYTHON_INSTALL_DIR") or os.path.join(data, "uv", "python"),
    ]


def _exists(interpreter: Interpreter) -> bool:
    return os.path.exists(interpreter.executable)


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _number(text: str) -> tuple[int, ...]:
    return tuple(int(digits) for digits in re.findall(r"\d+", text))
