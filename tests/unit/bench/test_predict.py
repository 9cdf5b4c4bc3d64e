"""The prediction benchmark's arithmetic, and that what it hands to peers is Python and JSON."""

from __future__ import annotations

import json
from math import isnan

import pytest

from tests.bench import predict
from tests.bench.predict import Measured, Scene
from tests.bench.recipes import MODELS, RECIPES

TOLD = """\
Running 1s test @ http://127.0.0.1:8080/predictions
  Latency Distribution
     50%  167.00us
     75%  201.00us
     90%  301.00us
     99%    1.20ms
  4000 requests in 1.00s, 0.86MB read
{refused}Requests/sec:   4000.00
"""


def test_a_refusal_is_no_answer() -> None:
    told = predict.parse(TOLD.format(refused="  Non-2xx or 3xx responses: 1000\n"), 0.5)
    assert (told.rate, told.failed, told.busy) == (3000.0, 1000, 0.5)
    assert predict.parse(TOLD.format(refused=""), 0.5).rate == 4000.0


def test_a_server_without_one_good_answer_is_no_division_by_zero() -> None:
    assert predict.times([_told(10.0)], [_told(0.0)]) == float("inf")


def test_the_ratio_is_of_rounds_not_of_medians() -> None:
    assert predict.times([_told(10), _told(40), _told(90)], [_told(10), _told(20), _told(30)]) == 2.0


def test_targets_are_told_as_reached_or_missed_beside_the_best_peer() -> None:
    scene = Scene("coroutine", 64)
    found = {(scene, "process"): [_told(12_000)], (scene, "cog"): [_told(1_000)], (scene, "fastapi"): [_told(5_000)]}
    absolute, beside, generator = predict.targets(found, [scene])
    assert absolute.endswith("12,000/s (wanted 10,000: reached)")
    assert beside.endswith("2.40 x fastapi, the best peer (wanted 3.0: missed)")
    assert generator == "wrk itself used at most 50% of a core"
    assert "| coroutine, 64 | cog | 1,000 | 1.00 ms | 0.20 | 0 |" in predict.table(found, [scene])


def test_a_load_generator_without_a_moment_to_spare_is_named() -> None:
    found = {(Scene("cpu", 1), "process"): [Measured(1.0, 0, 0.001, 0.97)]}
    assert "the load generator may be what was measured" in predict.targets(found, [])[-1]


def test_a_median_that_wrk_does_not_know_is_left_out() -> None:
    told = predict.parse(TOLD.replace("167.00us", "-nanus").format(refused=""), 0.1)
    assert isnan(told.median)
    scene = Scene("cpu", 256)
    assert "| cpu, 256 | cog | 4,000 |  | 1.00 | 0 |" in predict.table({(scene, "cog"): [told]}, [scene])


@pytest.mark.parametrize("name", RECIPES)
def test_what_a_peer_is_given_is_well_formed(name: str) -> None:
    recipe = RECIPES[name]
    for file, text in {**{f"{model}.py": text for model, text in MODELS.items()}, **recipe.files}.items():
        if file.endswith(".json"):
            json.loads(text)
        else:
            compile(text, file, "exec")
    assert "1.0" in str(json.loads(recipe.body))


def _told(rate: float) -> Measured:
    return Measured(rate, 0, 0.001, 0.5)
