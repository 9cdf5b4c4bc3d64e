"""The model contract of docs/models.md, line by line, in real workers on each Python."""

import json

import pytest

FUNCTION = "def predict(x: float) -> float:\n    return 2 * x + 1\n"

MODEL = '''
import sandbox

class Digits(sandbox.Model):
    """Adds an offset."""
    def load(self):
        self.offset = int((self.data_dir / "offset").read_text())
    def predict(self, x: int) -> int:
        return x + self.offset
'''

COMMUNITY = """
import json
from app.models.base import AnythingBaseModel

class Talker(AnythingBaseModel):
    def __init__(self):
        super().__init__()
        self.vocabulary = json.loads((self.data_dir / "words.json").read_text())
        self.context["greeting"] = "hello"

    async def on_chat_start(self):
        self.context["started"] = self.context.get("started", 0) + 1

    async def on_chat_end(self):
        print("ended", self.context["started"], flush=True)

    async def on_chat_messages(self, messages, callback=None):
        words = [self.context["greeting"], " ", messages[-1]["content"], " ", str(self.context["started"]), self.vocabulary[0]]
        if callback is None:
            return "".join(words)
        for word in words:
            await callback(word)
"""


def ask(worker, text="you", **more):
    return worker.call("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": text}], **more})


def said(answer):
    assert answer.status == 200, answer.body
    return answer.json["choices"][0]["message"]["content"]


def test_a_function_is_a_model(serve):
    assert serve(FUNCTION).predict(x=5.5).prediction == 12.0


@pytest.mark.parametrize(
    "code",
    [
        "async def predict(x: int):\n    return x + 1\n",
        "class Plain:\n    def predict(self, x):\n        return x + 1\n",
        "class Plain:\n    async def predict(self, x):\n        return x + 1\n",
        "import functools\ndef add(n, x):\n    return x + n\npredict = functools.partial(add, 1)\n",
        "import helper\npredict = helper.predict\n",
        "from helper import Base\nclass Mine(Base):\n    pass\n",
        "def predict_batch(inputs):\n    return [item['x'] + 1 for item in inputs]\n",
        "async def predict(**inputs):\n    return inputs['x'] + 1\n",
        "def predict(x, /, y=1):\n    return x + y\n",
        "class Slots:\n    __slots__ = ()\n    def predict(self, x):\n        return x + 1\n",
        "import sandbox\nasync def noop(): pass\nclass M(sandbox.Model):\n    async def load(self):\n        await noop()\n        self.n = 1\n    def predict(self, x):\n        return x + self.n\n",
        "n = 0\nasync def load():\n    global n\n    n = 1\ndef predict(x):\n    return x + n\n",
    ],
)
def test_each_form_of_a_model_answers(serve, code):
    helper = "import sandbox\ndef predict(x):\n    return x + 1\nclass Base(sandbox.Model):\n    def predict(self, x):\n        return x + 1\n"
    assert serve({"main.py": code, "helper.py": helper}).predict(x=1).prediction == 2


def test_a_model_class_loads_from_its_data_and_is_described_by_its_docstring(serve):
    worker = serve({"main.py": MODEL, "data/offset": "40"}, config={"version": 3, "tasks": ["sum"]})
    assert worker.predict(x=2).prediction == 42
    info = worker.ready["info"]
    assert info["description"] == "Adds an offset."
    assert (info["version"], info["tasks"]) == ("3", ["sum"])
    assert worker.call("GET", "/info").json["data"] == info


def test_a_model_knows_its_surroundings_before_its_own_init_runs(serve):
    code = (
        "import os, sandbox\n"
        "class M(sandbox.Model):\n"
        "    def __init__(self):\n"
        "        self.seen = [self.config['parameters']['k'], str(self.model_dir), str(self.data_dir), self.preloaded]\n"
        "        self.logger.info('logged %s', 1)\n"
        "    def predict(self):\n"
        "        import main\n"
        "        return [*self.seen, os.getcwd(), __file__, main.__name__, open('data/x').read()]\n"
    )
    worker = serve({"main.py": code, "data/x": "content"}, config={"parameters": {"k": 7}})
    tree = worker.assignment["tree"]
    assert worker.predict().prediction == [7, tree, tree + "/data", None, tree, tree + "/main.py", "main", "content"]
    assert "INFO logged 1" in worker.output


def test_a_model_can_be_made_by_hand_in_its_authors_own_tests(serve):
    code = "import sandbox\nclass M(sandbox.Model):\n    def predict(self):\n        other = M()\n        return [other.config, str(other.model_dir)]\n"
    worker = serve(code, config={"k": 1})
    assert worker.predict().prediction == [{}, worker.assignment["tree"]]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("(1, 2)", [1, 2]),
        ("Point(1, Point(2, 3))", {"x": 1, "y": {"x": 2, "y": 3}}),
        ("Item()", 4),
        ("Array()", [[1, 2]]),
        ("Dumps()", {"k": 1}),
        ("Colour.RED", "red"),
        ("{1: 2}", {"1": 2}),
        ("'\\ud800'", "\ud800"),
        ("{'confidence': 1, 'details': 2}", {"confidence": 1, "details": 2}),
        ("iter_items()", [1, 2]),
        ("None", None),
    ],
)
def test_results_become_json(serve, expression, expected):
    code = f"""
import dataclasses, enum
@dataclasses.dataclass
class Point:
    x: object
    y: object
class Item:
    def item(self): return 4
class Array:
    def tolist(self): return [[1, 2]]
class Dumps:
    def model_dump(self): return {{"k": 1}}
class Colour(enum.Enum):
    RED = "red"
def iter_items():
    yield 1
    yield 2
def predict():
    return {expression}
"""
    answer = serve(code).predict()
    assert answer.prediction == expected
    assert "confidence" not in answer.json["data"]


@pytest.mark.parametrize("expression", ["float('nan')", "[float('inf')]", "object()", "{1, 2}", "{(1, 2): 3}"])
def test_a_result_that_json_cannot_carry_is_a_failed_prediction(serve, expression):
    answer = serve(f"def predict():\n    return {expression}\n").predict()
    assert (answer.status, answer.json["error"]["code"]) == (500, "PREDICTION_FAILED")


def test_a_prediction_sets_the_extras(serve):
    worker = serve(
        "import sandbox\ndef predict():\n    return sandbox.Prediction(7, confidence=0.5, details={'k': 1})\n"
    )
    data = worker.predict().json["data"]
    assert (data["prediction"], data["confidence"], data["details"]) == (7, 0.5, {"k": 1})


@pytest.mark.parametrize("keyword", ["", "async "])
def test_a_generator_streams_where_the_client_accepts_it_and_is_a_list_elsewhere(serve, keyword):
    worker = serve(f"{keyword}def predict(n: int):\n    for i in range(n):\n        yield {{'i': i}}\n")
    assert worker.predict(n=2).prediction == [{"i": 0}, {"i": 1}]
    streamed = worker.predict(n=2, headers={"Accept": "text/event-stream"})
    assert streamed.headers["Content-Type"].startswith("text/event-stream")
    assert [json.loads(event) for event in streamed.events][:2] == [{"i": 0}, {"i": 1}]
    assert b"event: end\n" in streamed.body


@pytest.mark.parametrize("keyword", ["", "async "])
def test_a_generator_that_fails_midway_says_so_in_the_stream(serve, keyword):
    worker = serve(f"{keyword}def predict():\n    yield 1\n    raise KeyError('gone')\n")
    streamed = worker.predict(headers={"Accept": "text/event-stream"})
    assert b"event: error\n" in streamed.body
    assert json.loads(streamed.events[1])["code"] == "PREDICTION_FAILED"
    assert b"event: end\n" not in streamed.body
    assert worker.predict().status == 500


def test_the_community_format_runs_unchanged(serve):
    files = {"main.py": COMMUNITY, "vocab_data/words.json": '["!"]', "data/words.json": '["wrong"]'}
    worker = serve(files)
    assert worker.ready["info"]["chat"] is True
    assert said(ask(worker)) == "hello you 1!"
    # A request's context is its own: the second one starts from what __init__ left.
    assert said(ask(worker)) == "hello you 1!"
    streamed = ask(worker, stream=True)
    deltas = [json.loads(e)["choices"][0]["delta"] for e in streamed.events if e != "[DONE]"]
    assert "".join(delta.get("content", "") for delta in deltas) == "hello you 1!"
    assert len(deltas) > 5
    assert worker.output.count("ended 1") == 3


def test_the_community_base_works_without_an_init_and_as_a_generator(serve):
    code = (
        "from app.models.base import AnythingBaseModel\n"
        "class T(AnythingBaseModel):\n"
        "    async def on_chat_messages(self, messages):\n"
        "        yield str(self.data_dir.name)\n"
        "        yield str(self.context)\n"
        "        yield str(hasattr(self, 'on_chat_stop') and hasattr(self, 'on_chat_resume'))\n"
    )
    assert said(ask(serve(code))) == "data{}True"


def test_a_directory_with_an_app_package_of_its_own_keeps_it(serve):
    files = {
        "main.py": "from app.models.base import Thing\ndef predict():\n    return Thing.name\n",
        "app/__init__.py": "",
        "app/models/__init__.py": "",
        "app/models/base.py": "class Thing:\n    name = 'mine'\n",
    }
    assert serve(files).predict().prediction == "mine"


@pytest.mark.parametrize(
    "code",
    [
        "def chat(messages):\n    return 'a ' + messages[0]['content']\n",
        "async def chat(messages):\n    return 'a ' + messages[0]['content']\n",
        "def chat(messages):\n    yield 'a '\n    yield messages[0]['content']\n",
        "async def chat(messages):\n    yield 'a '\n    yield messages[0]['content']\n",
        "def chat(messages, callback=None):\n    if callback is None: return 'a ' + messages[0]['content']\n    callback('a ')\n    callback(messages[0]['content'])\n",
        "class C:\n    def chat(self, messages):\n        return 'a ' + messages[0]['content']\n",
        "async def parts(text):\n    yield 'a '\n    yield text\nasync def chat(messages):\n    return parts(messages[0]['content'])\n",
    ],
)
def test_each_form_of_a_chat_answers_whole_and_streamed(serve, code):
    worker = serve(code)
    assert said(ask(worker)) == "a you"
    deltas = [json.loads(e)["choices"][0]["delta"] for e in ask(worker, stream=True).events if e != "[DONE]"]
    assert "".join(delta.get("content", "") for delta in deltas) == "a you"


def test_the_hooks_surround_each_chat_request_and_share_its_context(serve):
    code = (
        "import sandbox\n"
        "class C(sandbox.Model):\n"
        "    async def on_chat_start(self):\n"
        "        self.set_context('n', 1)\n"
        "    async def on_chat_messages(self, messages):\n"
        "        self.set_context('n', self.get_context('n') + 1)\n"
        "        if messages[0]['content'] == 'fail':\n"
        "            raise ValueError('no')\n"
        "        return str(self.get_context())\n"
        "    def on_chat_end(self):\n"
        "        print('end', self.get_context('n'), flush=True)\n"
        "        self.clear_context()\n"
    )
    worker = serve(code)
    assert said(ask(worker)) == "{'n': 2}"
    assert ask(worker, "fail").status == 500
    assert worker.output.count("end 2") == 2


def test_chat_parameters_that_the_signature_names_are_passed(serve):
    worker = serve(
        "def chat(messages, temperature: float = 1.0, max_tokens=None):\n    return f'{temperature} {max_tokens}'\n"
    )
    assert said(ask(worker)) == "1.0 None"
    assert said(ask(worker, temperature=0, max_completion_tokens=5, top_p=1, user="u")) == "0.0 5"
    refused = ask(worker, temperature="hot")
    assert refused.status == 400
    assert refused.json["error"]["param"] == "temperature"


def test_entry_chooses_among_several_candidates(serve, refuse):
    code = "import sandbox\nclass A(sandbox.Model):\n    def predict(self): return 'A'\nclass B(sandbox.Model):\n    def predict(self): return 'B'\n"
    error = refuse(code)["error"]
    assert error["type"] == "ManyModelsError"
    assert "A, B" in error["message"]
    assert "entry: main:A" in error["message"]
    assert serve(code, entry="main:B").predict().prediction == "B"
    assert serve(code, config={"entry": "main:A"}).predict().prediction == "A"
    assert "Digits" in refuse(code, entry="main:Digits")["error"]["message"]


def test_a_base_class_of_the_model_is_no_second_candidate(serve):
    code = "import sandbox\nclass Base(sandbox.Model):\n    def predict(self): return 1\nclass Real(Base):\n    pass\nclass Net:\n    def predict(self): return 2\n"
    assert serve(code).predict().prediction == 1


@pytest.mark.parametrize(
    ("code", "kind", "phrase"),
    [
        ("x = 1\n", "NoModelError", "expected a function predict"),
        ("def forecast(x):\n    return x\n", "NoModelError", "it has function forecast"),
        ("import sandbox\nclass M(sandbox.Model):\n    pass\n", "NoModelError", "class M has none of the methods"),
        (
            "def predict(x):\n    return x\nimport sandbox\nclass M(sandbox.Model):\n    def predict(self): pass\n",
            "ManyModelsError",
            "the function predict, M",
        ),
    ],
)
def test_a_main_without_exactly_one_model_is_refused_with_what_is_expected(refuse, code, kind, phrase):
    failed = refuse(code)
    assert failed["phase"] == "import"
    assert failed["error"]["type"] == kind
    assert phrase in failed["error"]["message"]


def test_a_directory_without_main_is_refused(refuse):
    assert refuse({"other.py": ""})["error"]["type"] == "NoMainError"
