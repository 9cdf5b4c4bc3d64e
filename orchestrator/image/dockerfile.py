"""The text of what builds an environment image. It renders templates; it builds nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jinja2

# Where a build finds what is mounted for it: context, secrets, cache, local package folders.
BUILD_FOLDER = "/run/build"

_templates = jinja2.Environment(
    loader=jinja2.PackageLoader("orchestrator", "templates"),
    undefined=jinja2.StrictUndefined,
    autoescape=False,  # noqa: S701 (these are Dockerfiles and shell scripts, not HTML)
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def render(template: str, **values: Any) -> str:
    """A template of ours, filled in. A name that the template uses and `values` lacks raises jinja2.UndefinedError."""
    return _templates.get_template(template).render(build=BUILD_FOLDER, **values)


def dockerfile(base: str, *, requirements: bool, secrets: Sequence[str]) -> str:
    """The Dockerfile of an environment image. base: a base image's name or id. secrets: ids to be mounted.

    There is no `# syntax=` line: it would pull a frontend image.
    """
    return render("Dockerfile.j2", base=base, requirements=requirements, secrets=tuple(secrets))


def install_script() -> str:
    """The shell script that installs `requirements.txt` of the context, in either builder."""
    return render("install.sh.j2")
