"""What `failed` says when the worker itself could not: deaths, timeouts and refusals in words, with their place."""

from __future__ import annotations

import signal
from typing import Any, Dict, List, Optional

from sandbox import trace

Error = Dict[str, Any]
_LONGEST = 64 * 1024
_DOING = {"preload": "preload.py", "import": "importing main.py", "load": "load()", "warmup": "the warm-up call"}


def reported(error: Any) -> Error:
    """A worker's own words, made to have every field."""
    given = error if isinstance(error, dict) else {"message": str(error)}
    whole = {**_error("Error", ""), **given}
    return {**whole, "message": str(whole["message"])[:_LONGEST], "traceback": str(whole["traceback"])[-_LONGEST:]}


def death(cause: str, phase: str) -> Error:
    """It ended before it was ready. cause: as in `exited`."""
    doing, file = _DOING.get(phase, phase), _file(phase)
    if cause == "out of memory":
        return _error("MemoryError", f"killed for lack of memory during {doing}", file)
    kind, _, number = cause.partition(" ")
    if kind not in ("exit", "signal"):
        return _error("ProcessExit", f"ended during {doing}: {cause}", file)
    if kind == "signal":
        return _error("ProcessKilled", f"killed by {_signal(int(number))} during {doing}", file)
    return _error("ProcessExit", f"exited with status {number} during {doing}", file)


def timeout(phase: str, seconds: float) -> Error:
    return _error("TimeoutError", f"{_DOING.get(phase, phase)} did not finish in {seconds:g} s", _file(phase))


def unhealthy(wrong: str) -> Error:
    return _error("HealthError", f"GET /health failed: {wrong}", file=None)


def no_process(error: OSError) -> Error:
    return _error(type(error).__name__, f"no process could be made: {error}", file=None)


def checker(cause: str, file: Optional[str]) -> Error:
    """The compiler died or took too long."""
    if cause == "signal 9":
        return _error("TimeoutError", "compiling took too long or too much memory", file=file)
    return _error("CompileError", f"the compiler died ({cause})", file=file)


def place(error: Error, stacks: str, roots: List[str]) -> Error:
    """Add what a worker's stacks show, where the error has no place."""
    if error.get("line") is not None:
        return error
    found = trace.find(stacks, *roots)
    shown = error.get("traceback") or (stacks if found is None else found.stack)
    place = {} if found is None else {"file": found.file, "line": found.line}
    return {**error, **place, "traceback": shown}


def _file(phase: str) -> str:
    return "preload.py" if phase == "preload" else "main.py"


def _error(name: str, message: str, file: Optional[str] = "main.py") -> Error:
    return {"type": name, "message": message, "file": file, "line": None, "traceback": ""}


def _signal(number: int) -> str:
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"
