def test_hello(serve):
    worker = serve("def predict(x: float) -> float:\n    return 2 * x + 1\n")
    print(worker.ready)
    answer = worker.predict(x=5.5)
    print(answer.body, answer.headers)
    assert answer.prediction == 12.0
    assert worker.predict(y=1).status == 400
    worker.tell("drain")
    assert worker.until("drained") == {"type": "drained", "cut": 0}
    assert worker.wait() == 0
