"""How the user's code is imported: never from bytecode, under its author's own path, with failures told in their terms."""

import pytest


def test_tracebacks_show_the_authors_path_and_the_snapshots_line(serve):
    files = {
        "main.py": "import helper\ndef predict():\n    return helper.fail()\n",
        "helper.py": "def fail():\n    raise ValueError('broken')  # here\n",
    }
    answer = serve(files, serving={"debug": True}).predict()
    details = answer.json["error"]["details"]
    assert (details["type"], details["message"]) == ("ValueError", "broken")
    assert (details["file"], details["line"]) == ("helper.py", 2)
    assert 'File "/home/author/models/probe/main.py", line 3, in predict' in details["traceback"]
    assert "raise ValueError('broken')  # here" in details["traceback"]
    assert "/sandbox/" not in details["traceback"]


def test_a_traceback_shows_the_lines_that_ran_not_those_saved_since(serve, tmp_path):
    (tmp_path / "main.py").write_text("# newer\n" * 5)
    code = "def predict():\n    raise ValueError('old line')\n"
    worker = serve(code, source=str(tmp_path), serving={"debug": True})
    assert "raise ValueError('old line')" in worker.predict().json["error"]["details"]["traceback"]


def test_a_traceback_goes_to_the_log_and_to_the_client_only_with_debug(serve):
    worker = serve("def predict():\n    raise ValueError('broken')\n")
    answer = worker.predict(headers={"X-Request-ID": "abc-1"})
    assert "traceback" not in answer.json["error"]["details"]
    assert "request abc-1 failed" in worker.output
    assert "main.py" in worker.output


def test_inspect_reads_the_source_that_runs(serve):
    code = "import inspect\ndef predict():\n    return inspect.getsource(predict)\n"
    assert serve(code).predict().prediction == code[len("import inspect\n") :]


def test_bytecode_of_the_users_files_is_neither_read_nor_written(serve, tmp_path):
    files = {"main.py": "import helper\ndef predict():\n    return helper.N\n", "helper.py": "N = 1\n"}
    worker = serve({**files, "helper.pyc": "not bytecode", "__pycache__/keep": ""})
    assert worker.predict().prediction == 1
    cached = list((tmp_path / "replica-1").rglob("*.pyc"))
    assert [path.name for path in cached] == ["helper.pyc"]


def test_packages_and_relative_imports_of_the_directory_work(serve):
    files = {
        "main.py": "from pkg import inner\nimport pkg.sub.deep as deep\ndef predict():\n    return [inner.N, deep.N]\n",
        "pkg/__init__.py": "",
        "pkg/inner.py": "from .sub import deep\nN = deep.N + 1\n",
        "pkg/sub/deep.py": "N = 1\n",
    }
    assert serve(files).predict().prediction == [2, 1]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"main.py": "x = 1\ndef predict(:\n    pass\n"}, ("import", "SyntaxError", "main.py", 2)),
        ({"main.py": "import nowhere_at_all\n"}, ("import", "ModuleNotFoundError", "main.py", 1)),
        ({"main.py": "import helper\n", "helper.py": "\n\n1 / 0\n"}, ("import", "ZeroDivisionError", "helper.py", 3)),
        ({"main.py": "import helper\n", "helper.py": "def f(:\n"}, ("import", "SyntaxError", "helper.py", 1)),
        ({"main.py": "import sys\nsys.exit(3)\n"}, ("import", "SystemExit", "main.py", 2)),
        (
            {"main.py": "def load():\n    raise OSError('weights')\ndef predict(): pass\n"},
            ("load", "OSError", "main.py", 2),
        ),
        (
            {"main.py": "async def load():\n    raise OSError('weights')\ndef predict(): pass\n"},
            ("load", "OSError", "main.py", 2),
        ),
        (
            {"main.py": "class M:\n    def __init__(self, x):\n        pass\n    def predict(self): pass\n"},
            ("load", "TypeError", None, None),
        ),
    ],
)
def test_a_model_that_does_not_load_says_where(refuse, files, expected):
    failed = refuse(files)
    error = failed["error"]
    assert (failed["phase"], error["type"], error["file"], error["line"]) == expected
    assert "sandbox/loader" not in error["traceback"]
    if (file := expected[2]) is not None:
        assert f"/home/author/models/probe/{file}" in error["traceback"]


def test_each_phase_is_told_with_its_time(boot):
    worker = boot("def predict(x: int = 1):\n    return x\n", config={"example": {"x": 2}}, warmup=True)
    phases = [worker.next_message() for _ in range(3)]
    assert [message["phase"] for message in phases] == ["import", "load", "warmup"]
    assert worker.next_message()["phases"] == {message["phase"]: message["seconds"] for message in phases}


def test_a_failing_warmup_rejects_the_generation(refuse):
    failed = refuse("def predict(x: int):\n    return x\n", config={"example": {"y": 2}}, warmup=True)
    assert failed["phase"] == "warmup"
    assert "example" in failed["error"]["message"]


def test_third_party_imports_are_named_even_where_they_were_loaded_before(serve, tmp_path):
    site = tmp_path / "site-packages"
    for name in ("big", "small", "namesake"):
        (site / name).mkdir(parents=True)
        (site / name / "__init__.py").write_text("import json\nN = 'installed'\n")
    (site / "big" / "part.py").write_text("")
    main = "import sys, json\nsys.path.append(%r)\nimport big.part\nfrom big import part, N\ndef load():\n    import small\ndef predict():\n    return N\n"
    worker = serve(main % str(site))
    assert worker.ready["imports"] == ["big", "small", "big.part"]  # the shallow first


def test_an_async_load_shares_its_loop_with_the_calls(serve):
    code = "import asyncio\nasync def load():\n    global loop\n    loop = asyncio.get_running_loop()\nasync def predict():\n    return loop is asyncio.get_running_loop()\n"
    assert serve(code).predict().prediction is True


def test_a_sync_load_may_run_a_loop_of_its_own(serve):
    code = "import asyncio\nasync def fetch():\n    return 5\ndef load():\n    global n\n    n = asyncio.run(fetch())\nasync def predict():\n    await asyncio.sleep(0)\n    return n\n"
    assert serve(code).predict().prediction == 5
