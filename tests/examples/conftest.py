"""The example models, imported by hand as their authors would."""

import importlib.util
import sys
from pathlib import Path

import pytest

from orchestrator.spec.resolve import model_config
from sandbox.model import place

MODELS = Path(__file__).parents[2] / "model_dirs"


@pytest.fixture
def imported(monkeypatch):
    """Import an example's main.py under a name of its own."""

    def load(name):
        path = MODELS / name / "main.py"
        spec = importlib.util.spec_from_file_location(f"example_{name}", path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def placed():
    """Give an example's instance its folder and its config.yaml, as a worker does."""

    def put(instance, name):
        place(instance, folder=str(MODELS / name), config=model_config(str(MODELS / name)), name=name, preloaded=None)
        return instance

    return put
