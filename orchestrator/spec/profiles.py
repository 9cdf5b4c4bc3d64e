"""Which models are wanted, by Compose's rules for profiles. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.errors import SpecError, near
from orchestrator.spec.models import ModelSpec
from orchestrator.spec.problems import Problem


def wanted(
    models: Mapping[str, ModelSpec], profiles: Sequence[str], named: Sequence[str]
) -> tuple[list[str], list[Problem]]:
    """The models to run, in file order, and what stands in their way.

    1. Where none is named, each model without profiles, or with one of `profiles` ("*" is all of them), is wanted.
    2. Where some are named, these alone are wanted; each activates its own profiles for what it depends on.
    3. A dependency of a wanted model is wanted if it has no profiles or an active one, and a problem otherwise,
       unless it is not `required`.

    Raises SpecError("unknown-model", "unknown-profile").
    """
    _check(models, profiles, named)
    active = set(profiles)
    everything = "*" in active
    active |= {profile for name in named for profile in models[name].profiles}
    runs = {name for name, model in models.items() if not model.profiles or everything or active & set(model.profiles)}
    found = set(named) or set(runs)
    problems: list[Problem] = []
    pending = sorted(found)
    while pending:
        name = pending.pop()
        for other, dependency in models[name].depends_on.items():
            if other in found:
                continue
            if other in runs:
                found.add(other)
                pending.append(other)
            elif dependency.required:
                problems.append(_inactive(name, other, models[other]))
    return [name for name in models if name in found], problems


def _inactive(name: str, other: str, model: ModelSpec) -> Problem:
    return Problem(
        ("models", name, "depends_on", other),
        "unknown-profile",
        f"{other} belongs to {_list(model.profiles)}, and none of these profiles is active",
        f"add --profile {model.profiles[0]}, or give both models a profile in common",
    )


def _check(models: Mapping[str, ModelSpec], profiles: Sequence[str], named: Sequence[str]) -> None:
    for name in named:
        if name not in models:
            hint = near(name, models) or (f"the models are {', '.join(models)}" if models else "add it under `models:`")
            raise SpecError("unknown-model", f"there is no model {name!r}", hint=hint)
    known = sorted({profile for model in models.values() for profile in model.profiles})
    for profile in profiles:
        if profile != "*" and profile not in known:
            hint = near(profile, known) or (
                f"the profiles are {', '.join(known)}" if known else "no model has a profile"
            )
            raise SpecError("unknown-profile", f"no model has the profile {profile!r}", hint=hint)


def _list(profiles: Sequence[str]) -> str:
    return f"the profile {profiles[0]}" if len(profiles) == 1 else f"the profiles {', '.join(profiles)}"
