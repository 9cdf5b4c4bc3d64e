"""The models that the reload benchmark saves: the same few lines for us and for every peer. It starts nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tests.bench.figures import Target

MAIN = "main.py"


@dataclass(frozen=True, slots=True)
class Subject:
    """ours, theirs: main.py, in which VERSION is to be put. beside: further files of our model directory.

    packages: what it needs. memory: bytes that one running server of it takes, roughly.
    """

    name: str
    about: str
    ours: str
    theirs: str
    target: Target
    packages: tuple[str, ...] = ()
    beside: Mapping[str, str] | None = None
    memory: int = 100 << 20

    def source(self, version: int, *, ours: bool) -> str:
        """main.py of a version."""
        return (self.ours if ours else self.theirs).replace("VERSION", str(version))

    @property
    def requirements(self) -> str:
        """requirements.txt."""
        return "".join(f"{name}\n" for name in self.packages)


_STDLIB = """\
def predict(x: float) -> float:
    return x + VERSION
"""

_SKLEARN = """\
from sklearn.linear_model import LinearRegression

MODEL = LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0])


def predict(x: float) -> float:
    return float(MODEL.predict([[x]])[0]) + VERSION
"""

# 2**28 numbers of 4 bytes; made, not read, so that no disk is part of what is measured.
_WEIGHTS = "torch.full((2**28,), 0.5)"

_TORCH_PRELOAD = f"""\
import torch


def preload(ctx):
    return {_WEIGHTS}
"""

_TORCH_OURS = """\
import torch

import sandbox


class Weighed(sandbox.Model):
    def predict(self, x: float) -> float:
        return float(torch.sum(self.preloaded[:1024] * x)) + VERSION
"""

_TORCH_THEIRS = f"""\
import torch

WEIGHTS = {_WEIGHTS}


def predict(x: float) -> float:
    return float(torch.sum(WEIGHTS[:1024] * x)) + VERSION
"""

SUBJECTS = {
    each.name: each
    for each in (
        Subject("stdlib", "needs nothing but the standard library", _STDLIB, _STDLIB, Target(0.050, 0.120)),
        Subject(
            "sklearn",
            "imports scikit-learn and fits a small model at import",
            _SKLEARN,
            _SKLEARN,
            Target(0.050, 0.120),
            packages=("scikit-learn",),
            memory=400 << 20,
        ),
        Subject(
            "torch",
            "imports torch and has 1 GB of weights: ours from `preload.py`, the peers' made at import",
            _TORCH_OURS,
            _TORCH_THEIRS,
            Target(0.060, 0.120),
            packages=("torch", "numpy"),
            beside={"preload.py": _TORCH_PRELOAD},
            memory=2000 << 20,
        ),
    )
}
