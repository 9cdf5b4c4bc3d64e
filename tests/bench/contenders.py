"""Starts the servers of the prediction benchmark, ours and the peers', and says how each is asked. It measures nothing."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.bench import installs, server
from tests.bench.peers import free_port
from tests.bench.project import Failed, Project
from tests.bench.recipes import ASYNC, BATCHES, COG_AT_ONCE, MODELS, RECIPES, Recipe
from tests.bench.server import Unavailable

OURS = ("process", "docker")
NAMES = (*OURS, *RECIPES)
BATCHED, UNBATCHED = "batched", "unbatched"
STARTS_WITHIN = 60.0

# What waits needs a slot and little else, and 256 connections are measured; all else has the defaults.
_SPEC = f"""\
runtime: {{runtime}}
gateway: {{{{port: 0, rate_limit: 999999999/second}}}}
models:
  coroutine: coroutine
  function: function
  cpu: cpu
  wait: {{{{path: wait, concurrency: 256}}}}
  {BATCHED}: {{{{path: {BATCHED}, batching: {{{{max_size: 32, max_wait: 5ms}}}}}}}}
  {UNBATCHED}: {UNBATCHED}
"""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a model's predictions are asked for by POST, and with which JSON."""

    url: str
    body: str


def start(name: str, stack: ExitStack) -> Mapping[str, Target]:
    """Start one contender; what `stack` ends ends it. Raises Unavailable, and then nothing of it is left."""
    with ExitStack() as own:
        found = _ours(name, own) if name in OURS else _peer(RECIPES[name], own)
        stack.push(own.pop_all())
    return found


def ready(target: Target) -> None:
    """Wait for its first good answer. Raises Unavailable."""
    deadline = time.monotonic() + STARTS_WITHIN
    request = urllib.request.Request(target.url, target.body.encode(), {"Content-Type": "application/json"})
    while True:
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                told = answer.read().decode()
        except (urllib.error.URLError, OSError) as error:
            told = str(error)
        if "2.0" in told:
            return
        if time.monotonic() > deadline:
            raise Unavailable(f"no good answer within {STARTS_WITHIN:.0f} s: {told[:300]}")
        time.sleep(0.05)


def _ours(runtime: str, stack: ExitStack) -> Mapping[str, Target]:
    sources = {**MODELS, BATCHED: BATCHES, UNBATCHED: BATCHES}
    project = stack.enter_context(Project(runtime, files={name: {"main.py": text} for name, text in sources.items()}))
    (project.path / "sandbox.yaml").write_text(_SPEC.format(runtime=runtime))
    try:
        project.sandbox("up", "-d")
    except Failed as failure:
        raise Unavailable(str(failure)) from failure
    return {name: Target(f"{project.url()}/models/{name}/predict", '{"x": 1.0}') for name in sources}


def _peer(recipe: Recipe, stack: ExitStack) -> Mapping[str, Target]:
    folder = Path(tempfile.mkdtemp(prefix="sbench"))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    installs.environment(folder / "env", recipe.packages)
    source = folder / "app"
    for name, text in {**{f"{name}.py": text for name, text in MODELS.items()}, **recipe.files}.items():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if not recipe.alone:
        url = _serve(recipe, folder, "", stack)
        return {model: Target(url + recipe.path.format(model=model), recipe.body) for model in MODELS}
    return {model: Target(_serve(recipe, folder, model, stack) + recipe.path, recipe.body) for model in MODELS}


def _serve(recipe: Recipe, folder: Path, model: str, stack: ExitStack) -> str:
    """Start one server of a peer; its address."""
    port = free_port()
    values = {"port": port, "second": free_port(), "model": model}
    environ = {name: value.format(**values) for name, value in recipe.environ.items()}
    programs = folder / "env" / "bin"
    environ["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"
    if recipe.alone and model in ASYNC:
        environ |= COG_AT_ONCE
    program, *words = (word.format(**values) for word in recipe.words)
    log = folder / f"log{port}"
    stack.enter_context(server.program([programs / program, *words], folder / "app", environ, log))
    return f"http://127.0.0.1:{port}"
