"""The Open Inference Protocol, tensor by tensor: JSON and binary, in both directions."""

import json
import struct
import sys
import sysconfig

import pytest

TYPED = """
from typing import Any, List, Optional

import sandbox

def predict(x: float, n: int = 1, flag: bool = False, name: str = "", grid: Optional[List[List[float]]] = None,
            extra: Optional[dict] = None, anything: Any = None):
    return {"x": x, "n": n, "flag": flag, "name": name, "grid": grid or [], "extra": extra, "anything": anything}
"""
ARRAYS = f"""
import sys
import sysconfig
sys.path.append({sysconfig.get_path("purelib")!r})
import numpy as np
from numpy.typing import NDArray

def predict(a: NDArray[np.float32], b: np.ndarray = None) -> NDArray[np.float32]:
    return dict(a=a * 2, kind=str(a.dtype), b=b, shape=list(a.shape))
"""


def tensor(name, datatype, shape, data, **more):
    return {"name": name, "datatype": datatype, "shape": shape, "data": data, **more}


def infer(worker, *inputs, binary=b"", **more):
    head = json.dumps({"inputs": list(inputs), **more}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))} if binary else {}
    return worker.call("POST", "/v2/infer", head + binary, headers)


def outputs(answer):
    assert answer.status == 200, answer.body
    return {each["name"]: each for each in answer.json["outputs"]}


@pytest.fixture
def typed(serve):
    return serve(TYPED)


def test_metadata_has_a_tensor_for_each_parameter(typed):
    told = typed.call("GET", "/v2").json
    assert (told["name"], told["platform"], told["versions"]) == ("probe", "python", [])
    assert {each["name"]: (each["datatype"], each["shape"]) for each in told["inputs"]} == {
        "x": ("FP64", [1]),
        "n": ("INT64", [1]),
        "flag": ("BOOL", [1]),
        "name": ("BYTES", [1]),
        "grid": ("FP64", [-1, -1]),
        "extra": ("BYTES", [1]),
        "anything": ("BYTES", [-1]),
    }
    assert told["outputs"] == [{"name": "prediction", "datatype": "BYTES", "shape": [-1]}]


def test_each_datatype_reaches_its_parameter_and_comes_back(typed):
    came = outputs(
        infer(
            typed,
            tensor("x", "FP32", [1], [0.5]),
            tensor("n", "UINT8", [1], [7]),
            tensor("flag", "BOOL", [1, 1], [[True]]),
            tensor("name", "BYTES", [1], ["Zoë"]),
            tensor("grid", "FP64", [2, 3], [1, 2, 3, 4, 5, 6]),
            tensor("extra", "BYTES", [1], ['{"deep": [1, null]}']),
            tensor("anything", "INT32", [2], [1, 2]),
            id="q1",
        )
    )
    assert (came["x"]["datatype"], came["x"]["shape"], came["x"]["data"]) == ("FP64", [1], [0.5])
    assert (came["n"]["datatype"], came["n"]["data"]) == ("INT64", [7])
    assert (came["flag"]["datatype"], came["flag"]["data"]) == ("BOOL", [True])
    assert (came["name"]["datatype"], came["name"]["data"]) == ("BYTES", ["Zoë"])
    assert (came["grid"]["shape"], came["grid"]["data"]) == ([2, 3], [1, 2, 3, 4, 5, 6])
    assert (came["extra"]["datatype"], json.loads(came["extra"]["data"][0])) == ("BYTES", {"deep": [1, None]})
    assert (came["anything"]["datatype"], came["anything"]["shape"]) == ("INT64", [2])


def test_nested_data_and_a_leading_one_mean_the_same(typed):
    one = outputs(infer(typed, tensor("x", "FP64", [1], [1]), tensor("grid", "FP64", [2, 2], [[1, 2], [3, 4]])))
    two = outputs(infer(typed, tensor("x", "FP64", [1, 1], [[1]]), tensor("grid", "FP64", [1, 2, 2], [1, 2, 3, 4])))
    assert one == two


def test_the_answer_has_the_id_and_the_names_that_were_asked_for(typed):
    answer = infer(typed, tensor("x", "FP64", [1], [1]), id="seven", outputs=[{"name": "n"}]).json
    assert (answer["id"], answer["model_name"]) == ("seven", "probe")
    assert [each["name"] for each in answer["outputs"]] == ["n"]


def test_binary_tensors_in_both_directions(typed):
    parts = [struct.pack("<f", 0.25), struct.pack("<h", -3), b"\x01", struct.pack("<I", 3) + "añ".encode()]
    kinds = [("x", "FP32"), ("n", "INT16"), ("flag", "BOOL"), ("name", "BYTES")]
    inputs = [
        {"name": name, "datatype": kind, "shape": [1], "parameters": {"binary_data_size": len(part)}}
        for (name, kind), part in zip(kinds, parts, strict=True)
    ]
    answer = infer(typed, *inputs, binary=b"".join(parts), parameters={"binary_data_output": True})
    assert answer.headers["Content-Type"] == "application/octet-stream"
    length = int(answer.headers["Inference-Header-Content-Length"])
    head, raw = json.loads(answer.body[:length]), answer.body[length:]
    came = {}
    for each in head["outputs"]:
        size = each["parameters"]["binary_data_size"]
        came[each["name"]], raw = (each["datatype"], raw[:size]), raw[size:]
    assert raw == b""
    assert came["x"] == ("FP64", struct.pack("<d", 0.25))
    assert came["n"] == ("INT64", struct.pack("<q", -3))
    assert came["flag"] == ("BOOL", b"\x01")
    assert came["name"] == ("BYTES", struct.pack("<I", 3) + "añ".encode())


def test_one_output_as_bytes_and_another_as_json(typed):
    wanted = [{"name": "n", "parameters": {"binary_data": True}}, {"name": "x"}]
    answer = infer(typed, tensor("x", "FP64", [1], [1.5]), outputs=wanted)
    length = int(answer.headers["Inference-Header-Content-Length"])
    n, x = json.loads(answer.body[:length])["outputs"]
    assert (n["parameters"], x["data"]) == ({"binary_data_size": 8}, [1.5])
    assert answer.body[length:] == struct.pack("<q", 1)


@pytest.mark.parametrize(("kind", "code"), [("FP16", "<3e"), ("UINT64", "<3Q"), ("INT8", "<3b")])
def test_numbers_of_every_width(typed, kind, code):
    raw = struct.pack(code, 1, 2, 3)
    given = {"name": "anything", "datatype": kind, "shape": [3], "parameters": {"binary_data_size": len(raw)}}
    came = outputs(infer(typed, tensor("x", "FP64", [1], [1]), given, binary=raw))
    assert came["anything"]["data"] == [1, 2, 3]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (tensor("x", "FP64", [2], [1, 2]), "its shape is [2], and the parameter takes [1]"),
        (tensor("x", "FP64", [2], [1]), "its shape [2] holds 2 elements and its data has 1"),
        (tensor("x", "FP128", [1], [1]), "the datatype 'FP128' is not known"),
        (tensor("x", {}, [1], [1]), "the datatype {} is not known"),
        (tensor("x", "INT8", [1], [300]), "300 is no INT8"),
        (tensor("x", "BOOL", [1], ["yes"]), "'yes' is no BOOL"),
        (tensor("x", "BYTES", [1], ["1"]), "x: expected number, got string"),
        (tensor("x", "FP64", [-1], []), "inputs[0].shape: expected an array of sizes"),
        (tensor("why", "FP64", [1], [1]), "why: unknown parameter"),
        ({"name": "x", "datatype": "FP64", "shape": [1]}, "neither data nor parameters.binary_data_size"),
        ({"datatype": "FP64"}, "inputs[0]: expected an object with a name"),
        (tensor("extra", "BYTES", [1], ["{"]), "the parameter takes BYTES that hold JSON"),
    ],
)
def test_a_bad_tensor_is_refused_by_name(typed, given, said):
    answer = infer(typed, given)
    assert answer.status == 400
    assert list(answer.json) == ["error"]
    assert said in answer.json["error"]


@pytest.mark.parametrize(
    ("size", "raw", "said"),
    [
        (9, b"\0" * 8, "9 is not within the binary data"),
        (4, b"\0" * 4, "takes 8 bytes and got 4"),
        (8, b"\0" * 12, "4 bytes of binary data belong to no input"),
        (-1, b"\0", "-1 is not within the binary data"),
    ],
)
def test_binary_data_that_is_not_what_it_says_is_refused(typed, size, raw, said):
    given = {"name": "x", "datatype": "FP64", "shape": [1], "parameters": {"binary_data_size": size}}
    answer = infer(typed, given, binary=raw)
    assert (answer.status, said in answer.json["error"]) == (400, True), answer.body


@pytest.mark.parametrize("given", ["99999", "-1", "1e2", "²", ""])
def test_a_header_length_that_is_none_is_refused(typed, given):
    headers = {"Inference-Header-Content-Length": given.encode("utf-8").decode("latin-1")}
    answer = typed.call("POST", "/v2/infer", b'{"inputs": []}', headers)
    assert answer.status == 400


def test_a_model_that_raises_is_told_in_the_standards_form(serve):
    worker = serve("def predict(x: float):\n    raise ValueError('no luck')\n")
    answer = infer(worker, tensor("x", "FP64", [1], [1]))
    assert (answer.status, answer.json) == (500, {"error": "the model raised ValueError: no luck"})


def test_a_list_of_texts(serve):
    worker = serve("from typing import List\n\ndef predict(words: List[str]):\n    return [w.upper() for w in words]\n")
    came = outputs(infer(worker, tensor("words", "BYTES", [2], ["a", "b"])))
    assert came["prediction"] == tensor("prediction", "BYTES", [2], ["A", "B"])


def test_extras_of_a_prediction_are_parameters_of_the_answer(serve):
    worker = serve("import sandbox\n\ndef predict(x: int):\n    return sandbox.Prediction(x, confidence=0.5)\n")
    answer = infer(worker, tensor("x", "INT64", [1], [3])).json
    assert (answer["parameters"], answer["outputs"][0]["data"]) == ({"confidence": 0.5}, [3])


def test_predict_batch_alone_is_enough(serve):
    worker = serve("def predict_batch(inputs):\n    return [each['x'] + 1 for each in inputs]\n")
    assert outputs(infer(worker, tensor("x", "INT64", [1], [3])))["prediction"]["data"] == [4]


@pytest.mark.parametrize("python", [sys.executable], ids=["the tests' own, which has numpy"])
def test_numpy_annotations_keep_their_dtype_both_ways(serve):
    arrays = serve(ARRAYS)
    raw = struct.pack("<4f", 1, 2, 3, 4)
    given = {"name": "a", "datatype": "FP32", "shape": [2, 2], "parameters": {"binary_data_size": len(raw)}}
    came = outputs(infer(arrays, given, tensor("b", "INT16", [3], [1, 2, 3]), binary=raw))
    assert came["a"] == tensor("a", "FP32", [2, 2], [2, 4, 6, 8])
    assert (came["kind"]["data"], came["shape"]["data"]) == (["float32"], [2, 2])
    told = arrays.call("GET", "/v2").json
    assert [(each["datatype"], each["shape"]) for each in told["inputs"]] == [("FP32", [-1]), ("FP64", [-1])]
    assert arrays.predict(a=[[1, 2]]).prediction["a"] == [[2, 4]]
    assert arrays.call("POST", "/predict", {"a": [[1], [1, 2]]}).status == 400
