"""Environment images built on a real engine, with BuildKit and without."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import uuid
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import docker
import pytest

from orchestrator.errors import BuildError
from orchestrator.image.base import Base, Bases
from orchestrator.image.build import ImageBuilder, Order, tag
from orchestrator.image.engine import connect, find_socket
from orchestrator.plan.types import Requirements
from orchestrator.ports import Environment

pytestmark = pytest.mark.docker
CANARY = "s3cret-canary"


@dataclass(slots=True)
class Workshop:
    """A builder, and what it told while it built."""

    client: docker.DockerClient
    socket: str
    base: Base
    folder: Path
    told: list[str] = field(default_factory=list)
    made: list[str] = field(default_factory=list)

    def order(self, requirements: str) -> Order:
        self.made.append(uuid.uuid4().hex * 2)
        return Order("hello", self.made[-1], Requirements(requirements), self.base)

    def build(self, order: Order, environ: dict[str, str] | None = None) -> Environment:
        builder = ImageBuilder(
            self.client, self.socket, str(self.folder), environ if environ is not None else os.environ
        )
        return builder.build(order, lambda progress: self.told.append(progress.message))

    def run(self, environment: Environment, program: str) -> str:
        command = ["/opt/env/bin/python", "-I", "-c", program]
        return self.client.containers.run(
            environment.location, command, remove=True, network_mode="none", read_only=True
        ).decode()


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    socket = find_socket()
    client = connect(socket)
    shop = Workshop(client, socket, Bases(client).get(""), tmp_path)
    yield shop
    for lock_hash in shop.made:
        for image in client.images.list(name=tag(lock_hash)):
            client.images.remove(image.id, force=True)
    client.close()


@pytest.fixture(params=["buildkit", "classic"])
def builder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Either builder: without the docker command there is no BuildKit."""
    if request.param == "classic":
        monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    return request.param


def wheel(folder: Path) -> None:
    """A distribution `canary_free` 1.0, so that no test of settings depends on an index."""
    folder.mkdir(parents=True)
    files = {
        "canary_free.py": "answer = 42\n",
        "canary_free-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: canary-free\nVersion: 1.0\n",
        "canary_free-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},{len(text)}"
        for name, text in files.items()
    ]
    files["canary_free-1.0.dist-info/RECORD"] = "\n".join([*rows, "canary_free-1.0.dist-info/RECORD,,", ""])
    with zipfile.ZipFile(folder / "canary_free-1.0-py3-none-any.whl", "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)


def secret_settings(folder: Path) -> dict[str, str]:
    """Credentials in every place where a setting may carry one."""
    wheel(folder / "wheels")
    (folder / "ca.pem").write_text(f"{CANARY}\n")
    return {
        "HOME": str(folder),
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_NO_INDEX": "1",
        "PIP_INDEX_URL": f"https://user:{CANARY}@index.invalid/simple",
        "PIP_FIND_LINKS": str(folder / "wheels"),
        "PIP_CERT": str(folder / "ca.pem"),
        "HTTP_PROXY": f"http://user:{CANARY}@proxy.invalid:3128",
        "http_proxy": f"http://user:{CANARY}@proxy.invalid:3128",
    }


def places_of(image: docker.models.images.Image, text: bytes) -> list[str]:
    """Where in a saved image, its configuration and history included, a text occurs."""
    found = []
    if text in json.dumps([image.attrs, image.history()]).encode():
        found.append("configuration")
    saved = io.BytesIO(b"".join(image.save()))
    with tarfile.open(fileobj=saved) as archive:
        for entry in archive:
            data = archive.extractfile(entry).read() if entry.isfile() else b""
            if text in data:
                found.append(entry.name)
    return found


def test_requirements_are_installed_and_importable(workshop, builder):
    # Requirements that no build has seen: BuildKit would have nothing to tell of a cached one.
    environment = workshop.build(workshop.order(f"six==1.16.0  # {uuid.uuid4()}\n"))
    assert workshop.run(environment, "import six, sys; print(six.__version__, sys.prefix)") == "1.16.0 /opt/env\n"
    assert environment.python == workshop.base.python
    assert any("six" in message for message in workshop.told)


def test_a_model_without_requirements_has_an_image_too(workshop, builder):
    environment = workshop.build(workshop.order(""))
    assert workshop.run(environment, "import sys; print(sys.prefix)") == "/opt/env\n"


def test_the_fallback_is_told_in_one_line(workshop, builder):
    workshop.build(workshop.order(""))
    told = [message for message in workshop.told if "BuildKit" in message]
    assert told == (["building without BuildKit: the docker command is not installed"] if builder == "classic" else [])


def test_no_credential_is_in_any_layer_or_in_the_history(workshop, builder, tmp_path):
    environment = workshop.build(
        workshop.order(f"canary-free  # {uuid.uuid4()}\n"), secret_settings(tmp_path / "settings")
    )
    image = workshop.client.images.get(environment.location)
    # The search can find something: what was installed is there.
    assert places_of(image, b"answer = 42")
    assert places_of(image, CANARY.encode()) == []
    assert workshop.run(environment, "import canary_free; print(canary_free.answer)") == "42\n"


def test_nothing_of_a_build_is_left_beside_the_image(workshop, builder, tmp_path):
    workshop.build(workshop.order(f"canary-free  # {uuid.uuid4()}\n"), secret_settings(tmp_path / "settings"))
    assert (
        workshop.client.containers.list(all=True, filters={"label": f"model-sandbox.build={tag(workshop.made[0])}"})
        == []
    )
    assert [path.suffix for path in (tmp_path / "builds").iterdir()] == [".lock"]


def test_a_local_package_is_installed_from_where_it_lies(workshop, builder, tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "setup.py").write_text(
        "from setuptools import setup; setup(name='mine', version='1', py_modules=['mine'])"
    )
    (package / "mine.py").write_text("answer = 43\n")
    environment = workshop.build(workshop.order(f"mine @ file://{package}  # sha256:00\n"))
    assert workshop.run(environment, "import mine; print(mine.answer)") == "43\n"
    assert sorted(path.name for path in package.iterdir()) == ["mine.py", "setup.py"]


def test_what_cannot_be_installed_is_told_in_the_installer_s_words(workshop, builder):
    with pytest.raises(BuildError) as caught:
        workshop.build(workshop.order("no-such-distribution-of-anyone==1\n"))
    assert caught.value.message == (
        "models.hello: its requirements cannot be installed: "
        "No matching distribution found for no-such-distribution-of-anyone==1"
    )
    assert not any("BuildKit" in line or "buildkit" in line for line in caught.value.log)


def test_an_image_that_is_there_is_not_built_again(workshop):
    order = workshop.order("")
    first = workshop.build(order)
    workshop.told.clear()
    assert workshop.build(order) == first
    assert workshop.told == []


def test_threads_that_want_one_environment_build_it_once(workshop):
    order = workshop.order("six==1.16.0\n")
    built: list[Environment] = []
    threads = [threading.Thread(target=lambda: built.append(workshop.build(order))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 4
    assert len(set(built)) == 1
    assert sum(message.startswith("building the environment") for message in workshop.told) == 1


PROGRAM = """
import sys
from orchestrator.image.base import Bases
from orchestrator.image.build import ImageBuilder, Order
from orchestrator.image.engine import connect, find_socket
from orchestrator.plan.types import Requirements
client = connect(find_socket())
order = Order("hello", sys.argv[1], Requirements(""), Bases(client).get(""))
builder = ImageBuilder(client, find_socket(), sys.argv[2])
print(builder.build(order, lambda progress: print(progress.message)).location)
"""


def test_processes_that_want_one_environment_build_it_once(workshop):
    order = workshop.order("")
    command = [sys.executable, "-c", PROGRAM, order.lock_hash, str(workshop.folder)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=100)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert said[0][-1] == said[1][-1]
    assert sum(line.startswith("building the environment") for lines in said for line in lines) == 1


@pytest.fixture
def official_layout(workshop) -> Iterator[Base]:
    """A base laid out as the official images are: Python below /usr/local, `python` a name of it, nothing in /usr/bin."""
    name = "model-sandbox-test/base:usr-local"
    recipe = (
        f"FROM {workshop.base.name}\n"
        "RUN cp -a /usr/lib/python3 /usr/lib/python3.11 /usr/local/lib/ "
        "&& cp -a /usr/bin/python3.11 /usr/local/bin/ && ln -s python3.11 /usr/local/bin/python3 "
        "&& ln -s python3 /usr/local/bin/python && rm /usr/bin/python3* && rm -r /usr/lib/python3.11 "
        "&& rm -f /usr/local/lib/python3.11/EXTERNALLY-MANAGED\n"
    )
    image, _ = workshop.client.images.build(fileobj=io.BytesIO(recipe.encode()), tag=name, network_mode="none")
    yield Base(name, image.id, workshop.base.python, workshop.base.machine)
    workshop.client.images.remove(name, force=True)


def test_a_base_with_python_below_usr_local_will_do(workshop, builder, official_layout):
    workshop.base = official_layout
    environment = workshop.build(workshop.order(f"six==1.16.0  # {uuid.uuid4()}\n"))
    found = workshop.run(environment, "import os, six, sys; print(six.__version__, os.path.realpath(sys.executable))")
    assert found == "1.16.0 /usr/local/bin/python3.11\n"
