"""Environments of packages by lock hash, made once with uv and shared by every model and project of the user.

It knows uv and folders; not what a model is beyond its requirements, nor how a lock hash comes to be. Files:
`<cache>/environments/<lock hash>/` with `environment.json`, written last: a folder without it is no environment.
Beside it `.<lock hash>.lock` (flock of the builder) and, while one builds, `.<lock hash>.<8 hex>`.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import re
import secrets
import signal
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import uv

from orchestrator import folders
from orchestrator.errors import BuildError, SandboxError
from orchestrator.image import index
from orchestrator.plan.types import ModelDesired
from orchestrator.ports import Environment, Progress, Report
from orchestrator.runtimes.interpreters import Interpreter, Interpreters

MARKER = "environment.json"
INSTALLER = "installer.json"
_KEPT_LINES = 30
_LOCK_POLL = 0.05
_KILL_POLLS = 100
# uv would otherwise take a project, an environment or an interpreter from where it happens to be run.
_NOT_PASSED = ("VIRTUAL_ENV", "CONDA_PREFIX", "UV_PROJECT", "UV_WORKING_DIR", "UV_PYTHON", "PYTHONPATH", "PYTHONHOME")


# Lines of uv that name a folder which is renamed a moment later.
_SILENT = ("Using ", "Creating virtual environment", "Activate with")
_BOX = "\N{BOX DRAWINGS LIGHT ARC UP AND RIGHT}\N{BOX DRAWINGS LIGHT VERTICAL AND RIGHT}"
_REASON = re.compile(rf"^\s*(?:error:|cause:|\N{{MULTIPLICATION SIGN}}|[{_BOX}]\S+) *(.+)$")


@dataclass(frozen=True, slots=True)
class Installed:
    """A finished environment. folder: absolute. prefix: of the interpreter that it stands on, needed to run it."""

    folder: str
    python: str
    prefix: str

    @property
    def executable(self) -> str:
        """The environment's own python."""
        return os.path.join(self.folder, "bin", "python")


class Environments:
    """The environments in one cache folder; any number of processes may use it at once."""

    def __init__(self, cache: str, interpreters: Interpreters | None = None) -> None:
        self.root = os.path.join(cache, "environments")
        self.interpreters = interpreters or Interpreters()

    def find(self, lock_hash: str) -> Installed | None:
        """The finished environment of this lock hash, if its interpreter still exists."""
        folder = os.path.join(self.root, lock_hash)
        marker = folders.read_json(os.path.join(folder, MARKER))
        if marker is None or not os.path.exists(os.path.join(folder, "bin", "python")):
            return None
        return Installed(folder, str(marker.get("python", "")), str(marker.get("prefix", "")))

    async def prepare(self, model: ModelDesired, report: Report) -> Environment:
        """Make the model's environment unless it exists.

        Two calls for one lock hash build once, in whichever processes they run; the builder's death leaves a lock that
        the kernel lets go of, and a folder that the next builder removes.
        Raises BuildError with uv's own last lines, SandboxError("no-python" | "disk-full").
        """
        found = self.find(model.lock_hash)
        if found is None:
            interpreter = await self.interpreters.find(model.python)
            os.makedirs(self.root, mode=0o755, exist_ok=True)
            async with _locked(os.path.join(self.root, f".{model.lock_hash}.lock"), report):
                found = self.find(model.lock_hash) or await self._build(model, interpreter, report)
        return Environment(model.lock_hash, found.folder, found.python)

    async def _build(self, model: ModelDesired, interpreter: Interpreter, report: Report) -> Installed:
        final = os.path.join(self.root, model.lock_hash)
        for name in os.listdir(self.root):
            # Left by builders that died (we hold the lock), or finished but without its interpreter.
            if name.startswith(f".{model.lock_hash}.") and not name.endswith(".lock"):
                await _clear(os.path.join(self.root, name))
        aside = os.path.join(self.root, f".{model.lock_hash}.{secrets.token_hex(4)}")
        try:
            await self._install(model, interpreter, aside, report)
            marker = {
                "version": 1,
                "lock_hash": model.lock_hash,
                "python": interpreter.version,
                "identity": interpreter.identity,
                "prefix": interpreter.prefix,
                "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            }
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(aside, ".lock"))  # uv's own, writable by everyone
            folders.write_json(os.path.join(aside, MARKER), marker, mode=0o644)
            await asyncio.to_thread(folders.remove_tree, final)
            os.rename(aside, final)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise SandboxError("disk-full", f"no space for an environment in {self.root}") from error
            raise BuildError(f"models.{model.name}: its environment cannot be made: {error}") from error
        finally:
            await asyncio.to_thread(folders.remove_tree, aside)
        return Installed(final, interpreter.version, interpreter.prefix)

    async def _install(self, model: ModelDesired, interpreter: Interpreter, aside: str, report: Report) -> None:
        report(Progress(f"creating an environment for Python {interpreter.version}"))
        command = ["venv", "--relocatable", "--no-project", "--no-config", "--python", interpreter.executable, aside]
        await _Uv(model, report).run(command, {}, None)
        if not model.requirements.text.strip():
            return
        wanted = _written(os.path.join(aside, "requirements.txt"), model.requirements.text)
        python = os.path.join(aside, "bin", "python")
        command = ["pip", "install", "--no-config", "--compile-bytecode", "--python", python, "--requirements", wanted]
        options, variables = _index(index.read())
        await _Uv(model, report).run([*command, *options], variables, os.path.join(aside, INSTALLER))
        os.unlink(os.path.join(aside, INSTALLER))


class _Uv:
    """One model's runs of uv: their lines become progress, the last of them explain a failure."""

    def __init__(self, model: ModelDesired, report: Report) -> None:
        self._model = model
        self._report = report
        self._last: deque[str] = deque(maxlen=_KEPT_LINES)

    async def run(self, arguments: list[str], variables: Mapping[str, str], record: str | None) -> None:
        """Run uv to its end; killed with all it started where the caller is cancelled.

        record: where to note who runs, for a builder that comes after our own sudden death.
        """
        environment = {key: value for key, value in os.environ.items() if key not in _NOT_PASSED}
        environment |= {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1", "NO_COLOR": "1", **variables}
        process = await asyncio.create_subprocess_exec(
            uv.find_uv_bin(),
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            cwd="/",
            umask=0o022,  # the model's user reads what this user installs
            start_new_session=True,  # a Ctrl-C is ours to pass on; and builds of packages start programs of their own
            limit=1 << 20,
        )
        try:
            if record is not None:
                folders.write_json(record, {"pid": process.pid, "start_time": folders.start_time(process.pid)})
            await self._read(process)
            code = await process.wait()
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if code:
            raise self._failure(code)

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        if process.stderr is None:
            return
        async for raw in process.stderr:
            line = raw.decode("utf-8", "replace").rstrip()
            if line and not line.startswith(_SILENT):
                self._last.append(line)
                self._report(Progress(line.strip()))

    def _failure(self, code: int) -> BuildError:
        lines = tuple(self._last)
        # uv's reason is the last link of a chain; older versions draw a box around it.
        chain = [found[1] for line in lines if (found := _REASON.match(line))]
        reason = chain[-1] if chain else (lines[-1].strip() if lines else f"uv ended with {code}")
        return BuildError(
            f"models.{self._model.name}: its requirements cannot be installed: {reason}",
            hint="the installer's last lines are in the log; fix requirements.txt and save",
            log=lines,
        )


def _index(settings: index.PackageIndex) -> tuple[list[str], dict[str, str]]:
    """The settings of pip for uv, which does not read them itself: (options, environment variables)."""
    options: list[str] = ["--no-index"] if settings.no_index else []
    if settings.index:
        options += ["--index-url", settings.index]
    for url in settings.extra:
        options += ["--extra-index-url", url]
    if settings.extra:
        # As pip does, which these settings were written for: the best version of all indexes, not of the first.
        options += ["--index-strategy", "unsafe-best-match"]
    for link in settings.find_links:
        options += ["--find-links", link]
    for host in settings.trusted:
        options += ["--allow-insecure-host", host]
    for key, value in settings.options:
        if key in ("only-binary", "no-binary"):
            for name in value.replace(",", " ").split():
                options += [f"--{key}", name]
    passed = dict(settings.options)
    variables = dict(settings.proxies)
    if settings.certificate:
        variables["SSL_CERT_FILE"] = settings.certificate
    if passed.get("timeout", "").isdigit():
        variables["UV_HTTP_TIMEOUT"] = passed["timeout"]
    if passed.get("proxy"):
        variables["ALL_PROXY"] = passed["proxy"]
    return options, variables


async def _clear(aside: str) -> None:
    """Remove what a dead builder left; an installer of its that still runs would go on writing there."""
    installer = folders.read_json(os.path.join(aside, INSTALLER))
    if installer is not None and folders.living(installer):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(installer["pid"], signal.SIGKILL)
        for _ in range(_KILL_POLLS):
            if not folders.living(installer):
                break
            await asyncio.sleep(_LOCK_POLL)
    await asyncio.to_thread(folders.remove_tree, aside)


def _written(path: str, text: str) -> str:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


@asynccontextmanager
async def _locked(path: str, report: Report) -> AsyncIterator[None]:
    """Hold the lock of one lock hash. The file stays: removing it would let two builders lock two files."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        waiting = False
        while not _try_lock(descriptor):
            if not waiting:
                report(Progress("waiting for another build of the same environment"))
                waiting = True
            await asyncio.sleep(_LOCK_POLL)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
