"""The installed guest is a read-only copy named by its content."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import sandbox
from orchestrator import guest


def test_the_guest_is_the_package_and_its_entry(tmp_path: Path) -> None:
    folder = Path(guest.install(str(tmp_path)))
    assert sorted(path.name for path in folder.iterdir()) == ["__main__.py", "sandbox"]
    source = Path(sandbox.__file__).parent
    for file in source.rglob("*.py"):
        assert (folder / "sandbox" / file.relative_to(source)).read_bytes() == file.read_bytes()
    assert not list(folder.rglob("__pycache__"))


def test_nobody_can_write_and_everybody_can_read_it(tmp_path: Path) -> None:
    folder = Path(guest.install(str(tmp_path)))
    for path in [folder, *folder.rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o555 if path.is_dir() else 0o444)


def test_a_second_install_finds_the_first(tmp_path: Path) -> None:
    first = guest.install(str(tmp_path))
    entry = os.stat(os.path.join(first, "__main__.py"))
    assert guest.install(str(tmp_path)) == first
    assert os.stat(os.path.join(first, "__main__.py")).st_ino == entry.st_ino


def test_installs_at_once_end_in_one_copy(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(guest.install, [str(tmp_path)] * 8))
    assert [str(path) for path in (tmp_path / "guests").iterdir()] == list(folders)


def test_another_content_has_another_folder(tmp_path: Path, monkeypatch) -> None:
    other = tmp_path / "changed" / "sandbox"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("")
    (other / "__main__.py").write_text("")
    first = guest.install(str(tmp_path))
    monkeypatch.setattr(sandbox, "__file__", str(other / "__init__.py"))
    assert guest.install(str(tmp_path)) != first


def test_the_guest_imports_nothing_of_the_host(tmp_path: Path) -> None:
    folder = guest.install(str(tmp_path))
    code = (
        "import sys; sys.path[:] = [p for p in sys.path if 'site-packages' not in p]; sys.path.insert(0, sys.argv[1])\n"
        "import sandbox.agent, sandbox.zygote, sandbox.worker, sandbox.checker\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)))"
    )
    shown = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", code, folder], capture_output=True, text=True, check=False
    )
    assert shown.stdout.strip() == "['__main__', 'sandbox']", shown.stderr
