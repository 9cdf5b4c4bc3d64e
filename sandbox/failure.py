"""What went wrong in a model's code, told in its author's terms: their file, their line, their frames. No HTTP."""

from __future__ import annotations

import importlib
import os
import traceback
from types import TracebackType
from typing import Any, Dict, List, Optional, Tuple

_GUEST = os.path.dirname(os.path.abspath(__file__)) + os.sep
_MACHINERY = ("<frozen importlib", "<string>")
# A message to the agent is at most 1 MiB; nobody reads more of a traceback than this.
_TEXT = 64 * 1024
_MESSAGE = 4 * 1024


class Source:
    """Where the user's files are: `shown` is the path that their code bears, `tree` the snapshot it was read from."""

    __slots__ = ("shown", "tree")

    def __init__(self, shown: str, tree: str) -> None:
        self.shown = shown.rstrip("/")
        self.tree = tree.rstrip("/")

    def relative(self, path: Optional[str]) -> Optional[str]:
        """The path within the model directory, or None where the file is not the user's."""
        # The tree first: where the model directory is the project itself, the tree lies below it.
        for root in (self.tree, self.shown):
            if path and path.startswith(root + "/"):
                return path[len(root) + 1 :]
        return None


def describe(error: BaseException, source: Source) -> Dict[str, Any]:
    """The error as agent and terminal want it: {type, message, file, line, traceback}; file and line may be None."""
    file, line = _place(error, source)
    return {
        "type": type(error).__name__,
        "message": _message(error)[:_MESSAGE],
        "file": file,
        "line": line,
        "traceback": render(error, source),
    }


def render(error: BaseException, source: Source) -> str:
    """The traceback from the user's first frame on; our frames and the import machinery's are left out."""
    report = traceback.TracebackException(type(error), error, error.__traceback__)
    seen: List[int] = []
    part: Optional[traceback.TracebackException]
    parts = [report]
    while parts:
        part = parts.pop()
        if id(part) in seen:
            continue
        seen.append(id(part))
        part.stack = traceback.StackSummary.from_list(_trim(list(part.stack), source))
        parts.extend(other for other in (part.__cause__, part.__context__) if other is not None)
    text = "".join(report.format())
    return text if len(text) <= _TEXT else "…\n" + text[-_TEXT:]


def _trim(frames: List[traceback.FrameSummary], source: Source) -> List[traceback.FrameSummary]:
    machinery = (_GUEST, *_MACHINERY, os.path.dirname(importlib.__file__))
    kept = [f for f in frames if not f.filename.startswith(machinery)]
    for index, frame in enumerate(kept):
        if source.relative(frame.filename) is not None:
            return kept[index:]
    return kept


def _place(error: BaseException, source: Source) -> Tuple[Optional[str], Optional[int]]:
    """The user's line that is nearest to the error; for a syntax error, the line that cannot be compiled."""
    if isinstance(error, SyntaxError):
        file = source.relative(error.filename)
        if file is not None:
            return file, error.lineno
    place: Tuple[Optional[str], Optional[int]] = (None, None)
    step: Optional[TracebackType] = error.__traceback__
    while step is not None:
        file = source.relative(step.tb_frame.f_code.co_filename)
        if file is not None:
            place = (file, step.tb_lineno)
        step = step.tb_next
    if place[0] is None and error.__cause__ is not None:
        return _place(error.__cause__, source)
    return place


def _message(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return str(error.msg)
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001 - an exception class of the user's whose __str__ raises
        return f"(its message cannot be shown: {type(broken).__name__})"
