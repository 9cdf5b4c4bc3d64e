"""The text that builds an environment image."""

from __future__ import annotations

import jinja2
import pytest

from orchestrator.image.dockerfile import dockerfile, install_script, render

BARE = """\
FROM python:3.11-slim
RUN python3 -m venv /opt/env
"""

WHOLE = """\
FROM python:3.11-slim
RUN python3 -m venv /opt/env
RUN --mount=type=bind,target=/run/build/context \\
    --mount=type=cache,id=model-sandbox-pip,target=/run/build/cache \\
    --mount=type=tmpfs,target=/run/build/work \\
    --mount=type=secret,id=ca.pem,target=/run/build/secrets/ca.pem \\
    --mount=type=secret,id=pip.conf,target=/run/build/secrets/pip.conf \\
    sh /run/build/context/install.sh
"""


def test_a_model_without_requirements_gets_an_empty_environment():
    assert dockerfile("python:3.11-slim", requirements=False, secrets=()) == BARE


def test_requirements_are_installed_with_cache_and_secrets_mounted():
    assert dockerfile("python:3.11-slim", requirements=True, secrets=("ca.pem", "pip.conf")) == WHOLE


def test_no_syntax_line_pulls_a_frontend():
    assert "syntax=" not in dockerfile("base", requirements=True, secrets=("pip.conf",))


def test_a_value_that_a_template_needs_and_does_not_get_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="requirements"):
        render("Dockerfile.j2", base="python:3.11-slim")


def test_the_script_installs_into_the_environment_only():
    script = install_script()
    assert "/opt/env/bin/python -m pip install" in script
    assert "{{" not in script
