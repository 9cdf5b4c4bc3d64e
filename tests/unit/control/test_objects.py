"""A kept file is whole, is what its name says, and stays as long as anything may name it."""

import io
import os

import pytest

from orchestrator.control.objects import LONG_ENOUGH, Objects
from orchestrator.errors import SandboxError


@pytest.fixture
def objects(tmp_path):
    return Objects(str(tmp_path / "objects"))


def aged(objects, sha):
    path = os.path.join(objects.folder, sha[:2], sha[2:])
    os.utime(path, (1, 1))
    return path


def test_a_stream_and_bytes_of_one_content_are_one_object(objects):
    sha = objects.add(b"x" * 3_000_000)
    assert objects.add_stream(io.BytesIO(b"x" * 3_000_000)) == (sha, 3_000_000)
    assert objects.read(sha) == b"x" * 3_000_000


def test_what_nothing_names_goes_once_it_is_old(objects):
    old, young, named = objects.add(b"old"), objects.add(b"young"), objects.add(b"named")
    aged(objects, old)
    aged(objects, named)
    now = os.stat(objects.folder).st_mtime + LONG_ENOUGH / 2
    assert objects.collect({named}, now) == 1
    assert (objects.read(young), objects.read(named)) == (b"young", b"named")


def test_an_old_object_that_is_kept_again_counts_as_new(objects):
    sha = objects.add(b"again")
    aged(objects, sha)
    objects.add(b"again")
    assert objects.collect(set(), os.stat(objects.folder).st_mtime) == 0


def test_a_changed_object_is_refused_and_leaves_no_copy(objects, tmp_path):
    sha = objects.add(b"right")
    path = os.path.join(objects.folder, sha[:2], sha[2:])
    os.chmod(path, 0o644)
    with open(path, "wb") as file:
        file.write(b"wrong")
    with pytest.raises(SandboxError) as caught:
        objects.copy(sha, str(tmp_path / "copy"), 0o444)
    assert caught.value.reference == "store"
    assert not (tmp_path / "copy").exists()
    assert objects.read(objects.add(b"right")) == b"right"
