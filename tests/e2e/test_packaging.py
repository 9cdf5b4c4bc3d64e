"""What a stranger has: a fresh clone and two commands, or a wheel in an empty folder. Each ends in an answer."""

from __future__ import annotations

import http.client
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator import folders
from tests.e2e import remains

ROOT = Path(__file__).parents[2]
# Installing from the network included.
DEADLINE = 300.0
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def copy() -> Iterator[Path]:
    """A folder with `clone`, which is what a clone of this working tree would hold, under a short path."""
    above = Path(tempfile.mkdtemp(prefix="sc"))
    above.chmod(0o755)
    folder = above / "f"
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    clone = folder / "clone"
    for name in filter(None, listed.stdout.split("\0")):
        target = clone / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():  # else deleted, and not yet committed
            shutil.copy2(ROOT / name, target)
    yield folder
    folders.remove_tree(str(above))


def environment(folder: Path, **more: str) -> dict[str, str]:
    """The user's, with state and cache of its own; nothing of the virtual environment that the tests run in."""
    own = os.path.dirname(sys.executable)
    path = os.pathsep.join(each for each in os.environ["PATH"].split(os.pathsep) if each != own)
    kept = {name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "PYTHONPATH", "MAKEFLAGS"}}
    homes = {"XDG_STATE_HOME": str(folder / "s"), "XDG_CACHE_HOME": str(folder.parent / "c")}
    # pip keeps what it downloaded where it always does.
    cache = os.environ.get("PIP_CACHE_DIR") or os.path.join(folders.cache_home(), os.pardir, "pip")
    return {**kept, **homes, "PATH": path, "PIP_CACHE_DIR": os.path.abspath(cache), **more}


def call(port: int, model: str, body: object) -> object:
    """The prediction of a model, through the gateway."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", f"/models/{model}/predict", json.dumps(body))
        answer = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    return answer["data"]["prediction"]


def until(condition: Callable[[], bool], what: str, deadline: float = 30.0) -> None:
    end = time.monotonic() + deadline
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < end, what
        pause.wait(0.05)


class Terminal:
    """A program on a terminal of its own: what it shows, and keys to press."""

    def __init__(self, command: list[str], cwd: Path, environ: dict[str, str]) -> None:
        self._keyboard, theirs = pty.openpty()
        # setsid makes the terminal its own, so that Ctrl-C reaches all that it runs, as it does for a person.
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *command], cwd=cwd, env=environ, stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        self._shown = b""
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._keyboard, 65536)
            except OSError:  # EIO: the last program on it has ended
                return
            with self._news:
                self._shown += data
                self._news.notify_all()

    @property
    def text(self) -> str:
        return ESCAPES.sub("", self._shown.decode(errors="replace")).replace("\r", "")

    def find(self, pattern: str, deadline: float = DEADLINE) -> re.Match[str]:
        """Wait until it shows this."""
        with self._news:
            self._news.wait_for(lambda: re.search(pattern, self.text) or self.process.poll() is not None, deadline)
        found = re.search(pattern, self.text)
        assert found is not None, f"{pattern!r} was never shown:\n{self.text}"
        return found

    def press(self, keys: bytes) -> None:
        os.write(self._keyboard, keys)

    def end(self) -> int:
        code = self.process.wait(60)
        self._thread.join()
        os.close(self._keyboard)
        return code


@contextmanager
def terminal(command: list[str], cwd: Path, environ: dict[str, str]) -> Iterator[Terminal]:
    made = Terminal(command, cwd, environ)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.press(b"\x03")
            made.end()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("runtime", ["process", pytest.param("docker", marks=pytest.mark.docker)])
def test_make_up_in_a_fresh_clone_ends_in_an_answer_and_ctrl_c_leaves_nothing(copy: Path, runtime: str) -> None:
    clone = copy / "clone"
    more = {"DOCKER_HOST": "unix:///nonexistent/docker.sock"} if runtime == "process" else {}
    began = time.monotonic()
    with terminal(["make", "up"], clone, environment(copy, SANDBOX_PORT="0", TERM="xterm", **more)) as shown:
        port = int(shown.find(r"gateway: http://localhost:(\d+)\s").group(1))
        shown.find(r"hello +✔ ready g1")
        assert call(port, "hello", {"x": 5.5}) == 12.0
        print(f"\nmake up to the first answer, {runtime}: {time.monotonic() - began:.1f} s")
        assert shown.find(r"curl -d '(\{.*\})' http://localhost:\d+/models/hello/predict").group(1) == '{"x": 5.5}'

        main = clone / "model_dirs" / "hello" / "main.py"
        good = main.read_text()
        main.write_text(good.replace("2 * x + 1", "2 * x + 2"))
        shown.find(r"hello +✔ g2 in .* \(fork: main.py\)")
        assert call(port, "hello", {"x": 5.5}) == 13.0
        main.write_text(good.replace("return", "retrun"))
        shown.find(r"hello +✖ degraded: SyntaxError main.py:3 invalid syntax; g2 goes on answering")
        assert call(port, "hello", {"x": 5.5}) == 13.0

        shown.press(b"\x03")
        code = shown.end()
    assert "sandbox stopped" in shown.text
    assert "failed" not in shown.text, shown.text
    assert code == -signal.SIGINT, shown.text  # make ends as it was asked to
    assert "Traceback" not in shown.text.partition("Ctrl-C again")[2]
    left = remains.find(copy, folders.sandbox_id(str(clone)), docker=runtime == "docker")
    if runtime == "docker":
        remains.remove_images(folders.sandbox_id(str(clone)))
    assert left == []


@pytest.mark.timeout(600)
def test_the_wheel_in_an_empty_folder_is_the_whole_product(copy: Path) -> None:
    environ = environment(copy, SANDBOX_PORT="0", DOCKER_HOST="unix:///nonexistent/docker.sock")

    def run(*command: str | Path, cwd: Path = copy, code: int = 0) -> str:
        done = subprocess.run(
            command, check=False, cwd=cwd, env=environ, capture_output=True, text=True, timeout=DEADLINE
        )
        assert done.returncode == code, f"{command}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    run(sys.executable, "-m", "venv", "v")
    pip = [copy / "v" / "bin" / "python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    run(*pip, "wheel", "--no-deps", "--wheel-dir", "w", copy / "clone")
    (wheel,) = (copy / "w").glob("model_sandbox-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {"orchestrator/py.typed", "orchestrator/templates/Dockerfile.j2", "orchestrator/templates/new/main.py"}
    assert wanted | {"orchestrator/templates/init/sandbox.yaml", "sandbox/__init__.py", "sandbox/agent.py"} <= names
    assert not [name for name in names if name.startswith(("tests", "model_dirs", "docs"))]
    run(*pip, "install", wheel)

    project = copy / "p"
    project.mkdir()

    def sandbox(*words: str) -> str:
        return run(copy / "v" / "bin" / "sandbox", *words, cwd=project)

    assert sandbox("version").startswith("model-sandbox ")
    sandbox("init")
    sandbox("new", "hello2")
    shown = sandbox("up", "-d")
    found = re.search(r"http://localhost:(\d+)", shown)
    assert found is not None, shown
    port = int(found.group(1))
    example = {"text": "the quick brown fox"}
    assert call(port, "hello2", example) == {"words": 4, "longest": "quick"}

    main = project / "model_dirs" / "hello2" / "main.py"
    main.write_text("def predict(text: str) -> str:\n    return text.upper()\n")
    until(lambda: call(port, "hello2", example) == "THE QUICK BROWN FOX", "the edit was not seen")
    assert "sandbox stopped" in sandbox("down")
    assert remains.find(copy, folders.sandbox_id(str(project)), docker=False) == []
