"""Every example is a model directory that works, and shows what it says it shows."""

import ast
import re

import pytest

from orchestrator.control.filters import ignored_name
from orchestrator.spec.resolve import model_config
from sandbox.discovery import METHODS
from tests.examples.conftest import MODELS

NAMES = sorted(each.name for each in MODELS.iterdir() if not ignored_name(each.name))


def test_the_examples_are_those_that_are_documented():
    assert NAMES == ["chat", "digits", "embed", "hello"]


@pytest.mark.parametrize("name", NAMES)
def test_an_example_defines_a_model_and_an_example_call(name):
    tree = ast.parse((MODELS / name / "main.py").read_text())
    found = {each.name for each in ast.walk(tree) if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert found & set(METHODS)
    config = model_config(str(MODELS / name))
    assert config["description"]
    assert config["example"]


@pytest.mark.parametrize("name", NAMES)
def test_an_example_pins_its_requirements_exactly(name):
    path = MODELS / name / "requirements.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[\d.]+", line)] == []


def test_hello_answers_its_own_example(imported):
    assert imported("hello").predict(**model_config(str(MODELS / "hello"))["example"]) == 12.0


@pytest.fixture
def chat(imported, placed):
    model = placed(imported("chat").Chat(), "chat")
    model.load()
    return model


async def said(chat, *turns):
    return [piece async for piece in chat.on_chat_messages([{"role": role, "content": text} for role, text in turns])]


@pytest.mark.parametrize(
    ("question", "fact"),
    [
        ("What happens when I save a broken main.py?", "the last good code keeps answering"),
        ("How do I stop it all?", "`sandbox down` stops every model"),
        ("Where do I put my weights?", "into the folder data beside main.py"),
        ("Can a model use the network?", "runs without a network unless"),
        ("may two models pin different versions of numpy", "Two models may pin different versions"),
        ("limit memory and cpus", "limits for memory, cpus"),
    ],
)
async def test_chat_finds_the_passage_that_answers(chat, question, fact):
    assert fact in " ".join("".join(await said(chat, ("user", question))).split())


async def test_chat_streams_word_by_word_and_answers_the_last_question(chat):
    pieces = await said(chat, ("user", "weights?"), ("assistant", "…"), ("user", "How do I stop a sandbox?"))
    assert len(pieces) > 20
    assert all(len(piece.split()) == 1 for piece in pieces)
    assert "sandbox down" in "".join(pieces)


async def test_chat_says_when_it_knows_nothing(chat):
    assert "says nothing about that" in "".join(await said(chat, ("user", "Best pizza in Naples?")))
    assert "says nothing about that" in "".join(await said(chat))


async def test_chat_takes_its_parameters_from_the_config(chat):
    chat.config = {"parameters": {"passages": 1}}
    chat.load()
    assert "\n\n" not in chat.answer("What happens when I save a broken main.py?")
