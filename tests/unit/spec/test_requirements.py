"""requirements.txt, normalised: what installs the same is the same."""

from __future__ import annotations

import hashlib

import pytest

from orchestrator.errors import SpecError
from orchestrator.plan.types import Requirements

TEXT = "models: {hello: model_dirs/hello}"


def read(folder, text: str | None = None, config: str = TEXT) -> Requirements:
    if text is not None:
        folder.write("model_dirs/hello/requirements.txt", text)
    return folder.resolve(config).models["hello"].requirements


def refused(folder, text: str) -> SpecError:
    with pytest.raises(SpecError) as caught:
        read(folder, text)
    return caught.value


def test_a_model_without_requirements_has_none(folder) -> None:
    assert read(folder) == Requirements()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("# only\n  # comments\n", ""),
        ("numpy\n\nscipy  # why\r\n", "numpy\nscipy\n"),
        ("numpy \\\n  >=1.0\n", "numpy >=1.0\n"),
        ("numpy \\\n  --hash=sha256:a \\\n  --hash=sha256:b\n", "numpy --hash=sha256:a --hash=sha256:b\n"),
        ("\ufeffnumpy", "numpy\n"),
        ("a @ https://x.example/a#egg=b # c\n", "a @ https://x.example/a#egg=b\n"),
        ("-e git+https://x.example/a#egg=b\n", "git+https://x.example/a#egg=b\n"),
        ("--index-url https://x.example/simple\n", "--index-url https://x.example/simple\n"),
        ("-f https://x.example/wheels\n", "--find-links https://x.example/wheels\n"),
        ("numpy; python_version < '3.12'\n", "numpy; python_version < '3.12'\n"),
        ("numpy \\", "numpy\n"),
    ],
)
def test_comments_and_line_breaks_do_not_count(folder, text: str, expected: str) -> None:
    assert read(folder, text).text == expected


@pytest.mark.parametrize("form", ["-r {}", "-r{}", "--requirement {}", "--requirement={}", "-r  '{}'"])
def test_included_files_are_put_in_their_place(folder, form: str) -> None:
    folder.write("model_dirs/hello/sub/a.txt", "b\n-r ../../common.txt\n")
    folder.write("model_dirs/common.txt", "c # shared\n")
    found = read(folder, f"a\n{form.format('sub/a.txt')}\nd\n")
    assert found.text == "a\nb\nc\nd\n"
    base = folder.root / "model_dirs"
    assert found.files == tuple(
        str(base / name) for name in ("hello/requirements.txt", "hello/sub/a.txt", "common.txt")
    )


def test_constraints_and_the_lock_file_pin_without_installing(folder) -> None:
    folder.write("model_dirs/hello/c.txt", "numpy<2  # old\n")
    folder.write("model_dirs/hello/sandbox.lock", "numpy==1.26.4\nscipy==1.0\n")
    found = read(folder, "numpy\n-c c.txt\n")
    assert found.text == "numpy\n-c constraints.txt\n"
    assert found.constraints == "numpy<2\nnumpy==1.26.4\nscipy==1.0\n"
    assert len(found.files) == 3


def test_with_nothing_to_install_nothing_is_pinned(folder) -> None:
    folder.write("model_dirs/hello/sandbox.lock", "numpy==1.26.4\n")
    assert (read(folder, "# none\n").text, read(folder).constraints) == ("", "")


def test_a_file_may_be_included_twice_but_not_by_itself(folder) -> None:
    folder.write("model_dirs/hello/a.txt", "a\n")
    assert read(folder, "-r a.txt\n-r a.txt\n").text == "a\na\n"
    folder.write("model_dirs/hello/a.txt", "x\n-r requirements.txt\n")
    error = refused(folder, "-r a.txt\n")
    assert (error.reference, error.at) == ("bad-value", "model_dirs/hello/a.txt:2")
    base = "model_dirs/hello"
    assert (
        error.message
        == f"the files include each other: {base}/requirements.txt → {base}/a.txt → {base}/requirements.txt"
    )


@pytest.mark.parametrize(
    ("line", "reference"),
    [
        ("-r gone.txt", "path-missing"),
        ("-c gone.txt", "path-missing"),
        ("./gone", "path-missing"),
        ("-e gone", "path-missing"),
        ("-f gone", "path-missing"),
        ("-r ../../../x.txt", "path-outside"),
        ("/etc", "path-outside"),
        ("file:///etc", "path-outside"),
        ("-r https://x.example/r.txt", "bad-value"),
    ],
)
def test_a_path_that_does_not_lead_into_the_project_names_its_line(folder, line: str, reference: str) -> None:
    error = refused(folder, f"numpy\n\n{line}\n")
    assert (error.reference, error.at) == (reference, "model_dirs/hello/requirements.txt:3")
    assert error.hint


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("./lib", "{lib}  # sha256:{hash}"),
        ("-e ./lib", "{lib}  # sha256:{hash}"),
        ("-e lib", "{lib}  # sha256:{hash}"),
        ("--editable=./lib[x]", "{lib}[x]  # sha256:{hash}"),
        ("./lib[x,y] ; python_version > '3'", "{lib}[x,y] ; python_version > '3'  # sha256:{hash}"),
        ("file:./lib", "{lib}  # sha256:{hash}"),
        ("file://{lib}", "{lib}  # sha256:{hash}"),
        ("mine @ file://{lib}", "mine @ file://{lib}  # sha256:{hash}"),
        ("-f ./lib", "--find-links {lib}  # sha256:{hash}"),
    ],
)
def test_a_local_path_is_absolute_and_carries_its_contents_hash(folder, line: str, expected: str) -> None:
    folder.write("model_dirs/hello/lib/setup.py", "x")
    lib = str(folder.root / "model_dirs/hello/lib")
    inner = hashlib.sha256(b"8:setup.py" + hashlib.sha256(b"x").digest()).hexdigest()
    found = read(folder, f"{line.replace('{lib}', lib)}\n")
    assert found.text == expected.replace("{lib}", lib).replace("{hash}", inner) + "\n"
    assert f"{lib}/setup.py" in found.files


def test_a_change_in_a_local_package_is_a_new_environment_and_its_caches_are_not(folder) -> None:
    folder.write("model_dirs/hello/lib/setup.py", "x")
    before = read(folder, "./lib\n")
    folder.write("model_dirs/hello/lib/__pycache__/a.pyc", "x")
    folder.write("model_dirs/hello/lib/.git/HEAD", "x")
    folder.write("model_dirs/hello/lib/a.egg-info/PKG-INFO", "x")
    assert read(folder).text == before.text
    folder.write("model_dirs/hello/lib/setup.py", "y")
    assert read(folder).text != before.text


def test_a_local_wheel_is_known_by_its_content(folder) -> None:
    folder.write("model_dirs/hello/a-1-py3-none-any.whl", "x")
    wheel = folder.root / "model_dirs/hello/a-1-py3-none-any.whl"
    assert read(folder, "a-1-py3-none-any.whl\n").text.startswith(f"{wheel}  # sha256:")


def test_a_path_with_a_space_is_written_as_a_url(folder) -> None:
    folder.write("model_dirs/hello/my lib/setup.py", "x")
    found = read(folder, "file:my%20lib\n").text
    assert found.startswith(f"file://{folder.root}/model_dirs/hello/my%20lib  # sha256:")
