"""Which models are wanted: Compose's rules."""

from __future__ import annotations

import pytest

from orchestrator.errors import SpecError

TEXT = """
models:
  plain: model_dirs/hello
  dev: {path: model_dirs/hello, profiles: [dev]}
  both: {path: model_dirs/hello, profiles: [dev, test]}
  leaf: {path: model_dirs/hello, profiles: [deep]}
  trunk: {path: model_dirs/hello, profiles: [deep, top], depends_on: [leaf, plain]}
"""


@pytest.mark.parametrize(
    ("profiles", "models", "wanted"),
    [
        ([], [], ["plain"]),
        (["dev"], [], ["plain", "dev", "both"]),
        (["test"], [], ["plain", "both"]),
        (["*"], [], ["plain", "dev", "both", "leaf", "trunk"]),
        ([], ["dev"], ["dev"]),
        (["deep"], ["dev"], ["dev"]),
        ([], ["trunk"], ["plain", "leaf", "trunk"]),
        ([], ["plain"], ["plain"]),
        (["deep"], [], ["plain", "leaf", "trunk"]),
    ],
)
def test_profiles_and_names_choose_models_as_in_compose(folder, profiles, models, wanted) -> None:
    assert list(folder.resolve(TEXT, profiles=profiles, models=models).models) == wanted


def test_a_dependency_whose_profile_is_not_active_is_an_error(folder) -> None:
    with pytest.raises(SpecError) as caught:
        folder.resolve(TEXT, profiles=["top"])
    assert (caught.value.reference, caught.value.at) == ("unknown-profile", "sandbox.yaml:7")
    assert caught.value.hint == "add --profile deep, or give both models a profile in common"


@pytest.mark.parametrize(
    ("arguments", "reference", "hint"),
    [
        ({"models": ["plian"]}, "unknown-model", "did you mean plain?"),
        ({"models": ["zzz"]}, "unknown-model", "the models are plain, dev, both, leaf, trunk"),
        ({"profiles": ["dve"]}, "unknown-profile", "did you mean dev?"),
        ({"profiles": ["zzz"]}, "unknown-profile", "the profiles are deep, dev, test, top"),
    ],
)
def test_a_name_that_does_not_exist_is_refused(folder, arguments, reference: str, hint: str) -> None:
    with pytest.raises(SpecError) as caught:
        folder.resolve(TEXT, **arguments)
    assert (caught.value.reference, caught.value.hint) == (reference, hint)


def test_a_model_that_is_not_wanted_may_be_missing(folder) -> None:
    assert list(folder.resolve("models: {a: model_dirs/hello, b: {path: gone, profiles: [p]}}").models) == ["a"]
