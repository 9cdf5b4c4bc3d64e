"""What a build may see of this machine."""

from __future__ import annotations

import os

from orchestrator.image.context import context
from orchestrator.plan.types import Requirements


def names(text: str, constraints: str = "") -> dict[str, str]:
    made = context(Requirements(text, constraints=constraints))
    return {name: data.decode() for name, data, _ in made.files}


def test_a_context_holds_the_requirements_and_the_script():
    files = names("six==1.16.0\n")
    assert sorted(files) == ["install.sh", "requirements.txt"]
    assert files["requirements.txt"] == "six==1.16.0\n"


def test_constraints_lie_beside_the_requirements_that_name_them():
    assert names("six\n-c constraints.txt\n", "six==1.16.0\n")["constraints.txt"] == "six==1.16.0\n"


def test_the_same_input_gives_the_same_files_whatever_their_times(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    for name in ("b.py", "a.py", "setup.py"):
        (package / name).write_text(name)
    first = context(Requirements(f"{package}\n"))
    for number, name in enumerate(("setup.py", "a.py", "b.py")):
        (package / name).unlink()
        (package / name).write_text(name)
        os.utime(package / name, (number, number))
    assert context(Requirements(f"{package}\n")) == first
    assert [name for name, _, _ in first.files] == sorted(name for name, _, _ in first.files)


def test_a_changed_file_changes_the_context(tmp_path):
    (tmp_path / "setup.py").write_text("1")
    first = context(Requirements(f"{tmp_path}\n"))
    (tmp_path / "setup.py").write_text("2")
    assert context(Requirements(f"{tmp_path}\n")) != first


def test_local_packages_are_carried_along_and_found_where_they_will_be(tmp_path):
    package = tmp_path / "my package"
    (package / ".git").mkdir(parents=True)
    (package / ".git" / "HEAD").write_text("ref")
    (package / "setup.py").write_text("setup")
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "x.whl").write_text("wheel")
    quoted = str(package).replace(" ", "%20")
    files = names(
        f"six\n"
        f"mine[extra] @ file://{quoted} ; python_version > '3'  # sha256:00\n"
        f"{plain}/x.whl[extra]  # sha256:11\n"
        f"--find-links {plain}  # sha256:22\n"
    )
    assert sorted(files) == [
        "install.sh",
        "local/1/my package/setup.py",
        "local/2/x.whl",
        "local/3/plain/x.whl",
        "requirements.txt",
    ]
    assert files["requirements.txt"].splitlines() == [
        "six",
        "mine[extra] @ file:///run/build/work/local/1/my%20package ; python_version > '3'  # sha256:00",
        "/run/build/work/local/2/x.whl[extra]  # sha256:11",
        "--find-links /run/build/work/local/3/plain  # sha256:22",
    ]


def written(folder, text: str) -> os.stat_result:
    folder.mkdir()
    context(Requirements(text)).write(str(folder))
    return (folder / "requirements.txt").stat()


def test_a_written_context_is_what_it_holds(tmp_path):
    written(tmp_path / "made", "six\n")
    assert (tmp_path / "made" / "requirements.txt").read_text() == "six\n"
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["install.sh", "requirements.txt"]


def test_the_time_of_a_written_file_tells_two_contents_of_one_size_apart(tmp_path):
    six, abc, again = (written(tmp_path / str(n), text) for n, text in enumerate(("six==1\n", "abc==1\n", "six==1\n")))
    assert six.st_size == abc.st_size
    assert six.st_mtime_ns != abc.st_mtime_ns
    assert six.st_mtime_ns == again.st_mtime_ns
