"""What a model imports before it does anything else, read from its files: literal variables and imports, in order.

Only what surely runs first counts: imports and assignments of literals to `os.environ` from the top of a file, up to
the first other statement. A file of the user's that is imported there is followed. Nothing is run.
"""

from __future__ import annotations

import ast
import os
from typing import Callable, Iterator, List, Optional, Sequence, Set

from sandbox.steps import MOST, Step

LARGEST = 1024 * 1024


def program(tree: str, entry: str, wanted: Callable[[str], bool]) -> List[Step]:
    """The steps of a model directory, `preload.py` first, as it runs first. wanted: whether a package counts."""
    scan = _Scan(tree, wanted)
    for module in ("preload", entry):
        scan.follow(module)
    return scan.steps[:MOST]


class _Scan:
    def __init__(self, tree: str, wanted: Callable[[str], bool]) -> None:
        self.steps: List[Step] = []
        self._tree = tree
        self._wanted = wanted
        self._followed: Set[str] = set()

    def follow(self, module: str) -> None:
        """Add what the user's file of this dotted name begins with."""
        path = self._file(module)
        if path is None or path in self._followed:
            return
        self._followed.add(path)
        for statement in _beginning(path):
            if isinstance(statement, ast.Import):
                for alias in statement.names:
                    self._import(alias.name, ())
            elif isinstance(statement, ast.ImportFrom):
                if statement.level == 0 and statement.module:
                    self._import(statement.module, [alias.name for alias in statement.names])
            else:
                step = variable(statement)
                if step is not None:
                    self.steps.append(step)

    def _import(self, name: str, items: Sequence[str]) -> None:
        root = name.partition(".")[0]
        if os.path.isdir(os.path.join(self._tree, root)) or self._file(root) is not None:
            self.follow(name)
        elif self._wanted(root):
            # Of `from a import b` it is not known whether b is a module: where it is none, that import fails quietly.
            for module in (name, *(f"{name}.{item}" for item in items if item != "*")):
                if ("import", module) not in self.steps:
                    self.steps.append(("import", module))

    def _file(self, module: str) -> Optional[str]:
        path = os.path.join(self._tree, *module.split("."))
        return next((file for file in (path + ".py", os.path.join(path, "__init__.py")) if os.path.isfile(file)), None)


def variable(statement: ast.stmt) -> Optional[Step]:
    """`os.environ["NAME"] = "value"` or `os.environ.setdefault("NAME", "value")` as a step."""
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target, value = statement.targets[0], statement.value
        if isinstance(target, ast.Subscript) and _is_environ(target.value):
            return _literal("set", target.slice, value)
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        call = statement.value
        named = isinstance(call.func, ast.Attribute) and call.func.attr == "setdefault" and _is_environ(call.func.value)
        if named and len(call.args) == 2 and not call.keywords:
            return _literal("default", call.args[0], call.args[1])
    return None


def _literal(kind: str, key: object, value: ast.expr) -> Optional[Step]:
    literals = [each.value for each in (key, value) if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    return (kind, *literals) if len(literals) == 2 else None


def _is_environ(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "environ" and getattr(node.value, "id", "") == "os"


def _beginning(path: str) -> Iterator[ast.stmt]:
    """The statements up to the first that is neither an import nor a variable. A file that does not parse has none."""
    try:
        with open(path, "rb") as file:
            body = ast.parse(file.read(LARGEST)).body
    except (OSError, SyntaxError, ValueError, MemoryError, RecursionError):
        return
    for index, statement in enumerate(body):
        if index == 0 and isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue  # the docstring
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            if not (isinstance(statement, ast.ImportFrom) and statement.module == "__future__"):
                yield statement
        elif variable(statement) is not None:
            yield statement
        else:
            return
