"""What a worker answers to requests that are wrong, many, slow, or gone: the envelope, the queue, the limits."""

import json
import os
import threading
import time

import pytest

GATE = """
import asyncio, os, threading
def predict(name: str):
    with open("data/started", "a") as file:
        file.write(name + "\\n")
    while not os.path.exists("data/open"):
        threading.Event().wait(0.01)
    with open("data/ended", "a") as file:
        file.write(name + "\\n")
    return name
"""
DEADLINE = 15.0


def until(condition):
    """Wait for a state of the world that is sure to come; the deadline only ends a broken run."""
    deadline = time.monotonic() + DEADLINE
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        pause.wait(0.01)


class Gate:
    def __init__(self, worker):
        self.worker = worker
        self.data = worker.data
        self.answers = {}
        self.threads = []

    def begin(self, name):
        def call():
            self.answers[name] = self.worker.predict(name=name)

        self.threads.append(threading.Thread(target=call))
        self.threads[-1].start()

    def lines(self, name):
        path = self.data / name
        return path.read_text().split() if path.exists() else []

    def open(self):
        (self.data / "open").touch()
        for thread in self.threads:
            thread.join(DEADLINE)


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        ({"x": "a"}, "x: expected number, got string"),
        ({"x": None}, "x: expected number, got null"),
        ({"x": True}, "x: expected number, got boolean"),
        ({}, "x: missing, expected number"),
        ({"x": 1, "labell": "b"}, "labell: unknown parameter, known: x, label; did you mean label?"),
        ([1], "the body: expected an object of inputs, got array"),
        (b"{", "the body is not JSON"),
        (b'{"x": NaN}', "NaN is not JSON"),
        (b"\xff", "the body is not UTF-8"),
        (b"[" * 100_000, "the body is nested too deeply"),
        ({"x": 10**400}, "x: the number is too large"),
        (b'{"x": 1e999}', "x: the number is too large"),
    ],
)
def test_wrong_input_names_the_field(serve, inputs, problem):
    worker = serve("def predict(x: float, label: str = 'a'):\n    return x\n")
    answer = worker.call("POST", "/predict", inputs)
    assert answer.status == 400
    assert answer.json["error"]["code"] == "INVALID_REQUEST"
    assert problem in answer.json["message"]


def test_the_envelope_keeps_a_good_request_id_and_replaces_a_bad_one(serve):
    worker = serve("def predict(x=1):\n    return x\n")
    kept = worker.predict(headers={"X-Request-ID": 'a "quoted" id'})
    assert kept.headers["X-Request-ID"] == kept.json["request_id"] == 'a "quoted" id'
    for bad in ("x" * 129, "caf\u00e9", ""):
        made = worker.predict(headers={"X-Request-ID": bad})
        assert made.json["request_id"] == made.headers["X-Request-ID"] != bad
    assert set(kept.json) == {"success", "message", "data", "timestamp", "request_id"}


def test_unknown_paths_and_methods_are_refused(serve):
    worker = serve("def predict(x=1):\n    return x\n")
    assert worker.call("GET", "/nothing").json["error"]["code"] == "NOT_FOUND"
    wrong = worker.call("GET", "/predict")
    assert (wrong.status, wrong.headers["Allow"]) == (405, "POST")
    assert worker.call("GET", "/health?deep=1").json["data"] == {"status": "ready"}
    assert worker.call("POST", "/v1/chat/completions", {"messages": []}).json["error"]["code"] == "not_found"


@pytest.mark.parametrize("keyword", ["", "async "])
@pytest.mark.parametrize(
    "raised",
    ["ValueError('no')", "SystemExit(3)", "KeyboardInterrupt()", "StopIteration()", "asyncio.CancelledError()"],
)
def test_whatever_the_model_raises_is_an_answer_and_the_worker_serves_on(serve, keyword, raised):
    worker = serve(
        f"import asyncio\n{keyword}def predict(ok=False):\n    if not ok:\n        raise {raised}\n    return 1\n"
    )
    answer = worker.predict()
    assert (answer.status, answer.json["error"]["code"]) == (500, "PREDICTION_FAILED")
    assert worker.predict(ok=True).prediction == 1


def test_input_over_its_maximum_is_refused(serve):
    worker = serve("def predict(x):\n    return len(x)\n", serving={"max_input": 12})
    assert worker.call("POST", "/predict", b'  {"x"  :   "\\u00e9234" }  ').prediction == 4
    assert worker.predict(x="12345").json["error"]["code"] == "INPUT_TOO_LONG"
    batch = worker.call("POST", "/predict/batch", {"inputs": [{"x": "1234"}, {"x": "12345"}]}).json["data"]
    assert batch["predictions"][0] == 4
    assert batch["predictions"][1]["error"]["code"] == "INPUT_TOO_LONG"


@pytest.mark.parametrize("keyword", ["", "async "])
def test_a_failing_item_of_a_batch_fails_alone(serve, keyword):
    worker = serve(f"{keyword}def predict(x: int):\n    return 10 // x\n", serving={"concurrency": 2})
    answer = worker.call("POST", "/predict/batch", {"inputs": [{"x": 1}, {"x": 0}, {"x": "a"}, {"x": 5}]})
    data = answer.json["data"]
    assert data["total"] == 4
    assert (data["predictions"][0], data["predictions"][3]) == (10, 2)
    assert data["predictions"][1]["error"]["code"] == "PREDICTION_FAILED"
    assert data["predictions"][2]["error"]["details"] == "inputs[2].x: expected integer, got string"


def test_predict_batch_gets_the_valid_items_in_one_call(serve):
    code = "import sandbox\nclass M(sandbox.Model):\n    def predict(self, x: int): raise AssertionError\n    def predict_batch(self, inputs: list):\n        return [ValueError('odd') if item['x'] % 2 else [item['x'], len(inputs)] for item in inputs]\n"
    worker = serve(code)
    data = worker.call("POST", "/predict/batch", {"inputs": [{"x": 2}, {"x": "a"}, {"x": 3}, {"x": 4}]}).json["data"]
    assert (data["predictions"][0], data["predictions"][3]) == ([2, 3], [4, 3])
    assert data["predictions"][1]["error"]["code"] == "INVALID_REQUEST"
    assert data["predictions"][2]["error"]["details"]["message"] == "odd"


def test_a_batch_over_its_maximum_or_of_the_wrong_form_is_refused(serve):
    worker = serve("def predict(x):\n    return x\n", serving={"max_batch": 2})
    over = worker.call("POST", "/predict/batch", {"inputs": [{"x": 1}] * 3})
    assert (over.status, over.json["error"]["code"]) == (413, "PAYLOAD_TOO_LARGE")
    assert worker.call("POST", "/predict/batch", {"x": 1}).status == 400
    assert worker.call("POST", "/predict/batch", {"inputs": []}).json["data"]["predictions"] == []


def test_a_predict_batch_that_returns_too_few_results_fails(serve):
    worker = serve("def predict_batch(inputs):\n    return [1]\n")
    answer = worker.call("POST", "/predict/batch", {"inputs": [{}, {}]})
    assert "returned 1 results" in answer.json["message"]


def test_calls_beyond_concurrency_wait_and_beyond_the_queue_are_refused(serve):
    worker = serve(GATE, serving={"concurrency": 1, "queue_size": 1})
    gate = Gate(worker)
    gate.begin("first")
    until(lambda: gate.lines("started") == ["first"])
    connection = worker.connect()
    with connection, connection.makefile("rb") as file:
        connection.sendall(b"GET /health HTTP/1.1\r\n\r\n")
        read_answer(file)  # it is accepted by now
        connection.sendall(post({"name": "second"}))
        worker.call("GET", "/health")  # what came before it has been read by now
        refused = worker.predict(name="third")
        assert (refused.status, refused.json["error"]["code"]) == (429, "QUEUE_FULL")
        assert refused.headers["Retry-After"] == "1"
        gate.open()
        head = read_answer(file)
    assert head.startswith(b"HTTP/1.1 200")
    waited = next(line for line in head.split(b"\r\n") if line.startswith(b"X-Sandbox-Queue-Seconds: "))
    assert float(waited.split()[1]) > 0
    assert gate.answers["first"].headers["X-Sandbox-Queue-Seconds"] == "0.000000"
    assert gate.lines("started") == ["first", "second"]


def post(inputs):
    body = json.dumps(inputs).encode()
    return b"POST /predict HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def read_answer(file):
    """The head of the next answer; its body is read and dropped."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += file.readline()
    file.read(int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0]))
    return head


def test_waiting_longer_than_the_queue_timeout_is_refused(serve):
    worker = serve(GATE, serving={"concurrency": 1, "queue_timeout": 0.05})
    gate = Gate(worker)
    gate.begin("first")
    until(lambda: gate.lines("started") == ["first"])
    refused = worker.predict(name="second")
    assert (refused.status, refused.json["error"]["code"]) == (503, "QUEUE_TIMEOUT")
    assert refused.headers["Retry-After"] == "1"
    gate.open()
    assert gate.lines("started") == ["first"]


def test_configure_is_live(serve):
    worker = serve(GATE, serving={"concurrency": 1})
    gate = Gate(worker)
    gate.begin("first")
    until(lambda: gate.lines("started") == ["first"])
    gate.begin("second")
    worker.tell("configure", serving={"concurrency": 2})
    until(lambda: sorted(gate.lines("started")) == ["first", "second"])
    gate.open()


def test_a_leaving_client_cancels_an_async_call_at_once(serve):
    code = "import asyncio\nasync def predict(name: str):\n    open('data/started', 'w').close()\n    try:\n        await asyncio.Event().wait()\n    finally:\n        open('data/' + name, 'w').close()\n"
    worker = serve(code, serving={"concurrency": 1})
    data = worker.data
    leave(worker, (data / "started").exists)
    until((data / "x").exists)


def test_the_slot_of_a_sync_call_whose_client_left_is_the_threads_until_it_ends(serve):
    worker = serve(GATE, serving={"concurrency": 1, "queue_timeout": 0.05})
    gate = Gate(worker)
    leave(worker, lambda: gate.lines("started") == ["x"])
    assert worker.predict(name="second").status == 503
    gate.open()
    until(lambda: gate.lines("ended") == ["x"])
    worker.tell("configure", serving={"queue_timeout": 10})
    assert worker.predict(name="third").prediction == "third"


def leave(worker, started):
    """Call, and hang up once it runs."""
    connection = worker.connect()
    body = b'{"name": "x"}'
    connection.sendall(b"POST /predict HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    until(started)
    connection.close()


@pytest.mark.parametrize("keyword", ["", "async "])
def test_a_client_that_leaves_a_stream_ends_the_generator(serve, keyword):
    code = f"{keyword}def predict():\n    try:\n        while True:\n            yield 'x' * 10000\n    finally:\n        open('data/closed', 'w').close()\n"
    worker = serve(code)
    connection = worker.connect()
    connection.sendall(b"POST /predict HTTP/1.1\r\nAccept: text/event-stream\r\nContent-Length: 0\r\n\r\n")
    assert connection.recv(100)
    connection.close()
    until((worker.data / "closed").exists)


@pytest.mark.parametrize("keyword", ["", "async "])
def test_a_slow_reader_holds_the_generator_back(serve, keyword):
    code = f"import os\nn = 0\n{keyword}def predict(total: int):\n    global n\n    for i in range(total):\n        n = i\n        yield 'x' * 10000\nasync def embed(texts):\n    return [[n] for t in texts]\n"
    worker = serve(code)
    body = b'{"total": 5000}'
    connection = worker.connect()
    connection.sendall(
        b"POST /predict HTTP/1.1\r\nAccept: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )
    seen = []

    def stands_still():
        seen.append(worker.call("POST", "/v1/embeddings", {"input": "n"}).json["data"][0]["embedding"][0])
        return len(seen) > 20 and seen[-1] == seen[-20] > 0

    until(stands_still)
    assert seen[-1] < 1000
    received = b""
    while not received.endswith(b"0\r\n\r\n"):
        piece = connection.recv(1 << 20)
        assert piece
        received = received[-10:] + piece
    connection.close()


def test_requests_in_a_row_and_pipelined_are_answered_in_order(serve):
    worker = serve("import asyncio\nasync def predict(x: int):\n    await asyncio.sleep(0)\n    return x\n")
    connection = worker.connect()
    requests = [
        b'POST /predict HTTP/1.1\r\nContent-Length: %d\r\n\r\n{"x": %d}' % (len(str(i)) + 7, i) for i in range(50)
    ]
    connection.sendall(b"".join(requests))
    received = b""
    while received.count(b'"success"') < 50:
        received += connection.recv(65536)
    connection.close()
    assert [json.loads(line)["data"]["prediction"] for line in received.split(b"\n") if line.startswith(b"{")] == list(
        range(50)
    )


def test_a_malformed_request_gets_400_and_a_close(serve):
    connection = serve("def predict(x=1):\n    return x\n").connect()
    connection.sendall(b"POST /predict HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n1")
    with connection, connection.makefile("rb") as file:
        assert file.read().startswith(b"HTTP/1.1 400")


def test_a_large_upload_may_ask_before_it_sends(serve):
    connection = serve("def predict(x: str):\n    return len(x)\n").connect()
    with connection, connection.makefile("rb") as file:
        body = json.dumps({"x": "x" * 300_000}).encode()
        connection.sendall(
            b"POST /predict HTTP/1.1\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
            % len(body)
        )
        assert file.readline() == b"HTTP/1.1 100 Continue\r\n"
        connection.sendall(body)
        assert b'"prediction":300000' in file.read()


def test_threads_see_the_context_of_their_own_request_only(serve):
    code = "import sandbox, threading\nbarrier = threading.Barrier(2)\nclass M(sandbox.Model):\n    def predict(self, x: int):\n        self.set_context('x', x)\n        barrier.wait(10)\n        return self.get_context('x')\n"
    worker = serve(code)
    answers = {}
    threads = [threading.Thread(target=lambda n=n: answers.update({n: worker.predict(x=n).prediction})) for n in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert answers == {1: 1, 2: 2}


def test_a_childs_copies_of_the_sockets_are_closed(serve):
    code = "import os\ndef predict():\n    pid = os.fork()\n    if pid == 0:\n        import signal\n        signal.pause()\n    return pid\n"
    worker = serve(code)
    connection = worker.connect()
    with connection, connection.makefile("rb") as file:
        connection.sendall(b"POST /predict HTTP/1.1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        # The end of the file: with a copy in the child it would never come.
        assert b'"prediction"' in file.read()
    worker.tell("drain")
    assert worker.until("drained")["cut"] == 0
    assert worker.next_message() == {}
    assert not os.path.exists(worker.socket_path)


def test_a_child_ended_by_sigterm_dies_of_it_and_ends_nobody_else(serve):
    code = """
import os, signal
def predict():
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    os.kill(pid, signal.SIGTERM)
    return os.WTERMSIG(os.waitpid(pid, 0)[1])
"""
    worker = serve(code)
    assert [worker.predict().prediction for _ in range(3)] == [15, 15, 15]


def test_calls_that_got_no_thread_leave_nothing_behind_once_there_are_threads_again(serve):
    code = """
import threading
def load():
    threading.stack_size(1 << 47)  # no machine has it
async def chat(messages):
    threading.stack_size(0)
    return "threads again"
ran = []
def predict():
    ran.append(1)
    return len(ran)
"""
    worker = serve(code, serving={"concurrency": 2, "queue_size": 0})
    for _ in range(3):
        answer = worker.predict()
        assert (answer.status, answer.json["error"]["code"]) == (500, "PREDICTION_FAILED")
    worker.call("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]})
    assert worker.predict().prediction == 1
