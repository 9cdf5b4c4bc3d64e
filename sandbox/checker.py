"""Compiles changed files once, under limits, in a process of its own: one large literal can take gigabytes.

It reports the first error, or that there is none, and then what the model imports first; the files are never run.
"""

from __future__ import annotations

import os
import resource
import socket
import sys
import traceback
import warnings
from typing import Any, Dict, Optional

from sandbox import packages, scan, wire

SECONDS = 10
MEMORY = 1024 * 1024 * 1024


def run(job: Dict[str, Any], channel: socket.socket) -> None:
    """job: "tree", "source" (absolute folders), "files" (relative .py paths), "entry" (a module's name).

    Answers `checked`, its error or null, and where there is none `scanned`, the steps of scan.program. `compiling`
    before each file tells the agent which one it was, should the compiler itself die.
    """
    _limit()
    warnings.simplefilter("ignore")
    error = None
    for file in job["files"]:
        channel.sendall(wire.encode({"type": "compiling", "file": file}))
        error = check(job["tree"], job["source"], file)
        if error is not None:
            break
    channel.sendall(wire.encode({"type": "checked", "error": error}))
    if error is None:
        steps = scan.program(job["tree"], job["entry"], packages.wanted)
        channel.sendall(wire.encode({"type": "scanned", "steps": steps}))


def check(tree: str, source: str, file: str) -> Optional[Dict[str, Any]]:
    """The error of one file in the form of `failed`, or None. A file that is gone has none."""
    try:
        with open(os.path.join(tree, file), "rb") as opened:
            text = opened.read()
    except FileNotFoundError:
        return None
    path = os.path.join(source, file)
    try:
        compile(text, path, "exec", dont_inherit=True)
    except SyntaxError as error:
        return _error(error, error.msg, file, error.lineno, (error.text or "").rstrip("\n"))
    except ValueError as error:  # null bytes, before Python 3.12
        return _error(error, str(error), file, None, "")
    except MemoryError as error:
        return _error(error, f"compiling it took more than {MEMORY // 2**20} MB", file, None, "")
    except RecursionError as error:
        return _error(error, "nested too deeply to compile", file, None, "")
    return None


def _error(error: BaseException, message: str, file: str, line: Optional[int], text: str) -> Dict[str, Any]:
    shown = "".join(traceback.format_exception_only(type(error), error))
    name = type(error).__name__
    return {
        "type": name,
        "message": message,
        "file": file,
        "line": line,
        "text": text[:1000],
        "traceback": shown[:20000],
    }


def _limit() -> None:
    """Bound what is added to the inherited: a zygote's preloaded libraries may already map gigabytes."""
    with open("/proc/self/statm") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    _lower(resource.RLIMIT_AS, mapped + MEMORY)
    used = resource.getrusage(resource.RUSAGE_SELF)
    _lower(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + SECONDS)
    sys.setrecursionlimit(max(sys.getrecursionlimit(), 1000))


def _lower(limit: int, value: int) -> None:
    _, hard = resource.getrlimit(limit)
    bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(limit, (bound, bound))
