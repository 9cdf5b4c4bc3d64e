"""What an installer's output says."""

from __future__ import annotations

from orchestrator.image.installer import Transcript


def transcript(*lines: str) -> tuple[Transcript, list[str]]:
    told: list[str] = []
    made = Transcript(lambda progress: told.append(progress.message))
    for line in lines:
        made.line(line)
    return made, told


def test_steps_are_told_in_few_words():
    _, told = transcript(
        "Looking in indexes: https://user:secret@x.example/simple",
        "Collecting six==1.16.0",
        "  Downloading https://x.example/files/six-1.16.0-py2.py3-none-any.whl (11 kB)",
        "  Building wheel for thing (pyproject.toml): started",
        "Installing collected packages: a, b, c, d, e, f, g, h",
    )
    assert told == [
        "collecting six==1.16.0",
        "downloading six-1.16.0-py2.py3-none-any.whl",
        "building thing",
        "installing a, b, c, d, e, f and 2 more",
    ]


def test_a_failure_is_in_the_installer_s_own_words():
    made, _ = transcript(
        "Collecting nope",
        "ERROR: Could not find a version that satisfies the requirement nope (from versions: none)",
        "ERROR: No matching distribution found for nope",
    )
    made.aside("ERROR: process did not complete successfully: exit code: 1")
    error = made.failure("hello")
    assert (
        error.message == "models.hello: its requirements cannot be installed: No matching distribution found for nope"
    )
    assert error.log[-1] == "ERROR: No matching distribution found for nope"
    assert error.hint


def test_the_builder_s_words_count_where_the_installer_said_nothing():
    made, _ = transcript()
    made.aside("ERROR: no space left on device")
    assert "no space left on device" in made.failure("hello").message


def test_settings_are_not_repeated():
    made, _ = transcript("Looking in indexes: https://user:secret@x.example/simple", "ERROR: nope")
    assert "secret" not in str(made.failure("hello").log)
