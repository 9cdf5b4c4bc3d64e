"""The digits that ship were trained by the script that ships: training again gives as good a model."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import textwrap

import pytest

from tests.examples.conftest import MODELS

DIGITS = MODELS / "digits"


@pytest.fixture(scope="module")
def python(request):
    """An interpreter with the example's requirements, kept between runs as long as they stay the same."""
    requirements = DIGITS / "requirements.txt"
    key = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = request.config.cache.mkdir(f"digits-{key}")
    done = folder / "done"
    if not done.exists():
        uv = shutil.which("uv") or os.path.join(os.path.dirname(sys.executable), "uv")
        environment = {"env": {**os.environ, "UV_PYTHON_DOWNLOADS": "never"}, "timeout": 300}
        subprocess.run(
            [uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder / "env"], check=True, **environment
        )
        target = ["--python", folder / "env/bin/python"]
        subprocess.run([uv, "pip", "install", "--quiet", *target, "-r", requirements], check=True, **environment)
        done.touch()
    return folder / "env/bin/python"


@pytest.fixture(scope="module")
def figures(python, tmp_path_factory):
    """What the shipped and the newly trained weights do with the pictures that neither was trained on."""
    script = """
        import json, shutil, sys
        import main, train

        def accuracy(folder):
            digits = main.Digits()
            digits.data_dir = folder
            digits.load()
            _, _, pictures, truth = train.split()
            answers = digits.predict_batch([{"pixels": list(picture)} for picture in pictures])
            return sum(answer.value == digit for answer, digit in zip(answers, truth)) / len(truth)

        fresh = train.WEIGHTS.__class__(sys.argv[1])
        train.train(fresh / "digits.joblib")
        example = main.Digits()
        example.load()
        answer = example.predict(json.loads(sys.argv[2])["pixels"])
        print(json.dumps({
            "shipped": accuracy(train.WEIGHTS.parent), "fresh": accuracy(fresh),
            "example": answer.value, "confidence": answer.confidence,
        }))
    """
    from orchestrator.spec.resolve import model_config

    path = os.pathsep.join([str(DIGITS), str(MODELS.parent)])
    done = subprocess.run(
        [
            *(python, "-B", "-c", textwrap.dedent(script)),
            *(tmp_path_factory.mktemp("fresh"), json.dumps(model_config(str(DIGITS))["example"])),
        ],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        check=False,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.timeout(600)
def test_training_again_gives_as_good_a_model(figures):
    assert figures["shipped"] >= 0.96
    assert abs(figures["fresh"] - figures["shipped"]) <= 0.01


@pytest.mark.timeout(600)
def test_the_example_is_read_right_and_with_confidence(figures):
    assert figures["example"] == 6
    assert 0.9 < figures["confidence"] <= 1


def test_the_weights_are_small_enough_for_a_repository():
    assert (DIGITS / "data" / "digits.joblib").stat().st_size <= 300_000
