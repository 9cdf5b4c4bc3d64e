"""Every error a user can meet: a reference, a message, a hint, a place. It knows no module of ours."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_CHANGES = 3
EXIT_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Reference:
    """What an error reference stands for: one row of docs/errors.md."""

    meaning: str
    exit_code: int = EXIT_FAILURE


# The one list of references. `SandboxError` refuses any other; docs/errors.md and the tests are compared with it.
REFERENCES: dict[str, Reference] = {
    # The file itself (exit 2).
    "no-spec": Reference("there is no sandbox.yaml here or above", EXIT_USAGE),
    "yaml-syntax": Reference("a file is not valid YAML", EXIT_USAGE),
    "unknown-key": Reference("a key that the schema does not know", EXIT_USAGE),
    "duplicate-key": Reference("a key written twice in one mapping, or here and in an included file", EXIT_USAGE),
    "missing-key": Reference("a required key is absent", EXIT_USAGE),
    "wrong-type": Reference("a value of the wrong type or form", EXIT_USAGE),
    "bad-value": Reference("a value outside what its key allows", EXIT_USAGE),
    "bad-name": Reference("a name that does not match the naming rule", EXIT_USAGE),
    "not-supported": Reference("a key whose effect is not built yet, set to other than its default", EXIT_USAGE),
    "interpolation": Reference("a ${…} that cannot be read, or a required variable that is not set", EXIT_USAGE),
    "env-file": Reference("an env_file that is missing or cannot be read", EXIT_USAGE),
    "path-outside": Reference("a path that leaves the project, symlinks resolved", EXIT_USAGE),
    "path-missing": Reference("a path that does not exist", EXIT_USAGE),
    "path-permission": Reference("a data folder or volume that the model's user cannot use", EXIT_USAGE),
    "volume": Reference("a volume that cannot be mounted as written", EXIT_USAGE),
    "dependency-cycle": Reference("depends_on, extends or include goes in a circle", EXIT_USAGE),
    "unknown-model": Reference("a model name that sandbox.yaml does not have", EXIT_USAGE),
    "unknown-profile": Reference("a profile that no model has", EXIT_USAGE),
    "insecure-gateway": Reference("a gateway beyond loopback without keys and without gateway.insecure", EXIT_USAGE),
    "usage": Reference("the command line cannot be understood", EXIT_USAGE),
    "exists": Reference("init or new would overwrite something", EXIT_USAGE),
    # The model directory.
    "no-main": Reference("a model directory without main.py"),
    "no-model": Reference("main.py defines no model"),
    "many-models": Reference("main.py defines several models and entry does not choose"),
    "model-failed": Reference("the model's code failed to compile, import or load"),
    # The machine.
    "no-engine": Reference("runtime: docker was asked for and no usable engine answers, or not any more"),
    "engine": Reference("the Docker engine refused or failed an operation"),
    "no-python": Reference("the Python version that a model asks for is not on this machine"),
    "build": Reference("requirements could not be installed or an image not built"),
    "port-in-use": Reference("another program listens on the gateway's port"),
    "isolation": Reference("something asked for cannot be enforced on this machine"),
    "start": Reference("a replica's agent did not start"),
    "disk-full": Reference("no space left where a file had to be written"),
    # The sandbox.
    "not-running": Reference("the command needs a running sandbox and none runs here"),
    "locked": Reference("another sandbox command is changing this project right now"),
    "control": Reference("the control process did not answer or failed"),
    "store": Reference("the project's store cannot be read"),
    "no-generation": Reference("a generation that is not kept, or never was"),
    "not-live": Reference("what wait was to wait for does not answer"),
    "interrupted": Reference("stopped by Ctrl-C", EXIT_INTERRUPTED),
    "request": Reference("the gateway answered a call with an error"),
}


class SandboxError(Exception):
    """What went wrong, where, and what to do next.

    reference: a key of REFERENCES. at: "sandbox.yaml:12" where a file is at fault.
    """

    def __init__(self, reference: str, message: str, *, hint: str = "", at: str = "") -> None:
        if reference not in REFERENCES:
            raise LookupError(f"{reference!r} is no error reference")
        super().__init__(message)
        self.reference = reference
        self.message = message
        self.hint = hint
        self.at = at

    @property
    def exit_code(self) -> int:
        """The process exit code this error leads to."""
        return REFERENCES[self.reference].exit_code

    @property
    def with_hint(self) -> str:
        """In one line: what is wrong and, in brackets, what to do."""
        return f"{self} ({self.hint})" if self.hint else str(self)

    def __str__(self) -> str:
        where = f"{self.at}: " if self.at else ""
        return f"{where}{self.message}"


class SpecError(SandboxError):
    """sandbox.yaml, or a file that it names, is wrong."""


class BuildError(SandboxError):
    """An environment or image could not be made. `log` holds the installer's own last lines."""

    def __init__(self, message: str, *, hint: str = "", log: tuple[str, ...] = ()) -> None:
        super().__init__("build", message, hint=hint)
        self.log = log


class RuntimeFailure(SandboxError):  # noqa: N818 - RuntimeError is taken by the language
    """A runtime (Docker engine, process) refused or failed an operation."""


def near(word: str, known: Iterable[str]) -> str:
    """The hint for a misspelt word: "did you mean replicas?", or "" where nothing is near."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean {found[0]}?" if found else ""
