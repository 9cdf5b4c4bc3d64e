"""What Compose has too means the same here: each case's outcome was recorded from `docker compose config`.

`python -m tests.unit.spec.compose` records anew.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import SpecError
from orchestrator.plan.types import Desired
from orchestrator.spec import load, resolve
from orchestrator.spec.interpolate import interpolate
from tests.unit.spec.compose import case as compose
from tests.unit.spec.compose import peer
from tests.unit.spec.compose.case import ERROR, Case, Text

DOCS = Path(__file__).parents[3] / "docs/configuration.md"
CASES = compose.cases()
TEXTS = compose.texts()
EXPECTED = compose.recorded()


def ours(case: Case, root: Path) -> Any:
    for name, text in compose.our_files(case):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    named = [str(root / compose.as_ours(name)) for name in case.named]
    try:
        project = load.load(
            named[0] if named else str(root / "sandbox.yaml"), case.environ, named[1:] if named else None
        )
        for model in project.spec.models.values():
            (Path(project.directory) / model.path).mkdir(parents=True, exist_ok=True)
            for volume in model.volumes:
                if volume.type == "bind":
                    (Path(project.directory) / volume.source).mkdir(parents=True, exist_ok=True)
        desired = resolve.resolve(
            project, profiles=case.profiles, runtime="process", interpreter=lambda _kind, python: python
        )
    except SpecError:
        return ERROR
    return as_compared(project, desired, root)


def as_compared(project: load.Project, desired: Desired, root: Path) -> dict[str, Any]:
    found = {}
    for name, model in sorted(desired.models.items()):
        spec = project.spec.models[name]
        limits: Mapping[str, Any] = {
            "cpus": model.limits.cpus,
            "memory": model.limits.memory,
            "pids": spec.deploy.resources.limits.pids or spec.resources.pids,
        }
        volumes = [
            ["bind", mount.source.replace(str(root), "{root}"), mount.target, "ro" if mount.read_only else "rw"]
            for mount in model.mounts
        ]
        volumes += [["tmpfs", "", volume.target, "rw"] for volume in spec.volumes if volume.type == "tmpfs"]
        found[name] = peer.spoken(
            {
                "path": Path(model.path).name,
                "environment": dict(model.environment),
                "volumes": volumes,
                "tmpfs": sorted(spec.tmpfs),
                "depends_on": {
                    other: [each.condition, each.required, each.restart] for other, each in spec.depends_on.items()
                },
                "replicas": model.replicas,
                "limits": {key: float(value) for key, value in limits.items() if value is not None},
                "profiles": sorted(model.profiles),
                "stop_grace_period": model.stop_grace if "stop_grace_period" in spec.model_fields_set else None,
                "restart": spec.restart if "restart" in spec.model_fields_set else None,
                "secrets": sorted([secret.name, secret.path] for secret in model.secrets),
            }
        )
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_files_come_to_what_compose_makes_of_them(case: Case, tmp_path: Path) -> None:
    expected = case.ours if case.differs else EXPECTED[case.name]
    assert ours(case, tmp_path.resolve()) == expected


@pytest.mark.parametrize("case", TEXTS, ids=lambda case: case.name)
def test_a_value_comes_to_what_compose_makes_of_it(case: Text) -> None:
    expected = case.ours if case.differs else EXPECTED[case.name]
    if expected == ERROR:
        with pytest.raises(SpecError):
            interpolate(case.text, case.environ)
    else:
        assert interpolate(case.text, case.environ).text == expected


def test_compose_still_says_what_was_recorded() -> None:
    reason = peer.missing()
    if reason is not None:
        if os.environ.get("SANDBOX_REQUIRE_DOCKER") == "1":
            pytest.fail(f"SANDBOX_REQUIRE_DOCKER=1 and {reason}", pytrace=False)
        pytest.skip(reason)
    refused = [text for text in TEXTS if EXPECTED[text.name] == ERROR]
    taken = [text for text in TEXTS if EXPECTED[text.name] != ERROR]
    with ThreadPoolExecutor(4) as pool:
        found = dict(zip((each.name for each in CASES), pool.map(peer.config, CASES), strict=True))
        singly = pool.map(lambda text: peer.values([text])[0], refused)
        found |= dict(zip((each.name for each in refused), singly, strict=True))
        for _, group in groupby(taken, key=lambda text: sorted(text.environ.items())):
            together = list(group)
            found |= dict(zip((each.name for each in together), peer.values(together), strict=True))
    changed = {name: (EXPECTED[name], value) for name, value in found.items() if EXPECTED[name] != value}
    assert changed == {}


def test_nothing_is_recorded_that_is_no_case() -> None:
    assert set(EXPECTED) == {each.name for each in [*CASES, *TEXTS]}
    assert len(EXPECTED) >= 150


def test_each_difference_is_a_row_of_the_documentation_and_each_row_has_its_case() -> None:
    table = DOCS.read_text(encoding="utf-8").partition("## Where Compose and we differ")[2]
    rows = set(re.findall(r"^\| ([^|]+?) \|", table, flags=re.MULTILINE)) - {"what"}
    differing = {each.differs for each in [*CASES, *TEXTS] if each.differs}
    assert differing == rows


def test_where_a_case_says_that_we_differ_we_do() -> None:
    same = [each.name for each in [*CASES, *TEXTS] if each.differs and each.ours == EXPECTED[each.name]]
    assert same == []
