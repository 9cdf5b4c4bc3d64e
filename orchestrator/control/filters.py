"""Which files of a model directory are the model: names only. It knows no disk and no event."""

from __future__ import annotations

import re

# Tools' folders: never part of a model, never worth a watch.
IGNORED_FOLDERS = frozenset(
    {
        ".git",
        ".hg",
        ".idea",
        ".ipynb_checkpoints",
        ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache",
        ".sandbox",
        ".svn",
        ".tox",
        ".venv",
        ".vscode",
        "__pycache__",
        "node_modules",
    }
)

# What editors leave beside a file while they save it, bytecode, and logs (each line of one would be an edit).
# vim: 4913 (is the folder writable?), .x.swp, x~; emacs: .#x, #x#; JetBrains: x___jb_tmp___,
# x___jb_old___; KDE: x.kate-swp; gedit and other GLib programs: .goutputstream-XXXXXX; nano: .x.swp;
# macOS: .DS_Store, ._x; ours: .sandbox-new-*.
_DROPPING = re.compile(
    r"4913|.*\.sw[a-z]|\..*\.sw[a-z]x?|.*~|\.#.*|#.*#|.*___jb_(tmp|old|bak)___|.*\.kate-swp|\.goutputstream-\w+"
    r"|\.DS_Store|\._.*|\.sandbox-new-.*|.*\.py[co]|.*\.log",
    re.DOTALL,
)


def ignored_name(name: str) -> bool:
    """Whether a file or folder of this name is never part of a model."""
    return name in IGNORED_FOLDERS or _DROPPING.fullmatch(name) is not None


def ignored(path: str) -> bool:
    """The same for a path relative to the model directory: one ignored part is enough."""
    return any(ignored_name(part) for part in path.split("/"))
