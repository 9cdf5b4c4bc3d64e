"""What a model imports first, read from its files without running them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandbox import scan, steps
from sandbox.steering import Steered, Steering


def program(folder: Path, entry: str = "main", **files: str) -> list[tuple[str, ...]]:
    """The steps of these files; every package that is not of the standard library is wanted."""
    for name, text in files.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return scan.program(str(folder), entry, lambda name: name not in ("os", "json"))


def test_imports_and_literal_variables_from_the_top_are_taken_in_order(tmp_path: Path) -> None:
    main = (
        '"""A model."""\nfrom __future__ import annotations\nimport os\nimport numpy as np\nos.environ["A"] = "1"\n'
        'os.environ.setdefault("B", "2")\nfrom torch import nn, hub\nimport json\n'
    )
    assert program(tmp_path, main=main) == [
        ("import", "numpy"),
        ("set", "A", "1"),
        ("default", "B", "2"),
        ("import", "torch"),
        ("import", "torch.nn"),
        ("import", "torch.hub"),
    ]


@pytest.mark.parametrize(
    "first",
    [
        "try:\n    import a\nexcept ImportError:\n    a = None\n",
        "if True:\n    import a\n",
        "x = 1\n",
        "print('hello')\n",
        "os.environ['A'] = str(1)\n",
        "os.environ[KEY] = '1'\n",
        "os.environ |= {}\n",
        "def f():\n    import a\n",
        "with open('x'):\n    pass\n",
    ],
)
def test_nothing_counts_after_another_statement(tmp_path: Path, first: str) -> None:
    assert program(tmp_path, main=f"import os\n{first}import torch\n") == []


def test_a_file_of_the_users_is_followed_and_never_preloaded(tmp_path: Path) -> None:
    found = program(
        tmp_path,
        main="import torch\nimport helper\nfrom parts import one\nimport pandas\n",
        helper="import scipy\nX = 1\nimport never\n",
        torch="import numpy\nimport main\n",
        **{"parts/one": "import never\n", "parts/__init__": "from . import one\nimport sklearn\n"},
    )
    assert found == [("import", name) for name in ("numpy", "scipy", "sklearn", "pandas")]


def test_preload_py_comes_first_and_entry_decides(tmp_path: Path) -> None:
    files = {"preload": "import numpy\n", "other": "import scipy\n", "main": "import never\n"}
    assert program(tmp_path, entry="other", **files) == [("import", "numpy"), ("import", "scipy")]


@pytest.mark.parametrize("text", ["import (\n", "x = 'a\0b'\n"])
def test_a_file_that_does_not_parse_has_no_steps(tmp_path: Path, text: str) -> None:
    assert program(tmp_path, main="import torch\n" + text) == []


def test_steps_from_a_checker_are_looked_at_before_they_are_believed() -> None:
    good = [["import", "a"], ["set", "A", "1"], ["default", "A", "1"]]
    bad = [["import"], ["set", "A"], ["run", "a"], ["import", 3], "import", []]
    assert steps.received([*good, *bad]) == [tuple(step) for step in good]
    assert steps.received(None) == []


def test_a_module_is_refused_under_other_variables_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "steered_one.py").write_text("import os\nos.environ['MADE'] = 'by it'\n")
    (tmp_path / "steered_two.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("STEER", "MADE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    steering = Steering()
    steering.bring("steered_one")
    steering.set("STEER", "left")
    steering.bring("steered_two")
    for name in ("STEER", "MADE"):
        os.environ.pop(name)
    steering.begin(lambda: None)
    steering.check(["unknown", "steered_one.part"])
    assert os.environ["MADE"] == "by it"
    os.environ["STEER"] = "left"
    steering.check(["steered_two"])
    os.environ["STEER"] = "right"
    steering.check(["steered_one", "steered_two"])  # imported by now: too late to be steered
    steering.begin(lambda: None)
    steering._seen.clear()
    with pytest.raises(Steered, match=r"steered_two was preloaded under another value of .* STEER"):
        steering.check(["steered_two"])
    for name in ("steered_one", "steered_two"):
        monkeypatch.delitem(__import__("sys").modules, name)
