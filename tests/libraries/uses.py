"""What a model does with each library: a `main.py` that uses it in earnest and checks what came of it.

`predict(use)` answers with the number of threads of its process, and what the thread pools in it are set to.
"""

from __future__ import annotations

from dataclasses import dataclass

# Beside each main.py: what any process can say of its threads, whichever library made them.
POOLS = '''
import ctypes
import os
import re
import sys

NAMES = re.compile(r"openblas|libgomp|libomp|libiomp|mkl_rt")
ASKED = ("openblas_get_num_threads", "openblas_get_num_threads64_", "scipy_openblas_get_num_threads",
         "scipy_openblas_get_num_threads64_", "omp_get_max_threads", "MKL_Get_Max_Threads")


def state():
    """{"threads": in this process, "pools": {what was asked: its answer}}."""
    with open("/proc/self/maps") as file:
        paths = {line.split(None, 5)[5].strip() for line in file if len(line.split(None, 5)) == 6}
    pools = {}
    for path in sorted(path for path in paths if path.startswith("/") and NAMES.search(os.path.basename(path))):
        library = ctypes.CDLL(path)
        for name in ASKED:
            if hasattr(library, name):
                key = os.path.basename(path).split("-")[0].split(".")[0] + ":" + name
                pools[key] = max(pools.get(key, 0), getattr(library, name)())
    if "torch" in sys.modules:
        pools["torch"] = sys.modules["torch"].get_num_threads()
    return {"threads": len(os.listdir("/proc/self/task")), "pools": pools}
'''

PREDICT = """
import pools

def predict(use: bool) -> dict:
    if use:
        used()
    return pools.state()
"""

NUMPY = """
import numpy as np

def used():
    a = np.random.rand(400, 400)
    assert np.allclose(a @ np.linalg.inv(a), np.eye(400), atol=1e-4)
"""

SCIKIT_LEARN = """
import numpy as np
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression

def used():
    x = np.random.rand(600, 8)
    y = (x[:, 0] > 0.5).astype(int)
    assert LogisticRegression().fit(x, y).score(x, y) > 0.8
    assert len(set(KMeans(3, n_init=1).fit(x).labels_)) == 3
"""

PANDAS = """
import io
import numpy as np
import pandas as pd

def used():
    text = "k,v\\n" + "".join(f"{n % 7},{n}\\n" for n in range(20_000))
    frame = pd.read_csv(io.StringIO(text))
    assert frame.groupby("k").v.sum().sum() == sum(range(20_000))
    assert frame.merge(frame, on="v").shape == (20_000, 3)
    a = np.random.rand(200, 200)
    pd.DataFrame(a).dot(a)
"""

ONNXRUNTIME = '''
import numpy as np
import onnxruntime


def number(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(at, value):
    """One field of a protocol buffer: a number, or bytes."""
    if isinstance(value, int):
        return number(at << 3) + number(value)
    return number(at << 3 | 2) + number(len(value)) + value


def tensor(name):
    shape = b"".join(field(1, field(1, 64)) for _ in range(2))
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, shape)))


def model():
    """y = x @ x, 64 by 64."""
    node = field(1, b"x") + field(1, b"x") + field(2, b"y") + field(4, b"MatMul")
    graph = field(1, node) + field(2, b"g") + field(11, tensor(b"x")) + field(12, tensor(b"y"))
    return field(1, 8) + field(7, graph) + field(8, field(1, b"") + field(2, 13))


def load():
    global session
    session = onnxruntime.InferenceSession(model(), providers=["CPUExecutionProvider"])


def used():
    x = np.random.rand(64, 64).astype(np.float32)
    [y] = session.run(None, {"x": x})
    assert np.allclose(y, x @ x, atol=1e-2)
'''

PYDANTIC = """
from datetime import datetime
from typing import List
from pydantic import BaseModel, ValidationError

class Item(BaseModel):
    at: datetime
    values: List[float]

def used():
    for n in range(200):
        found = Item.model_validate_json('{"at": "2026-11-20T12:00:00Z", "values": [1, 2.5, %d]}' % n)
        assert found.values[-1] == n
    try:
        Item(at="no", values=[])
    except ValidationError:
        return
    raise AssertionError("what is no date was taken for one")
"""

AIOHTTP = """
import os
import tempfile
import aiohttp
from aiohttp import web
import pools

async def answer(request):
    return web.json_response({"got": (await request.json())["x"]})

async def used():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "s")
        app = web.Application()
        app.add_routes([web.post("/", answer)])
        runner = web.AppRunner(app)
        await runner.setup()
        await web.UnixSite(runner, path).start()
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as session:
            for n in range(20):
                async with session.post("http://x/", json={"x": n}) as response:
                    assert (await response.json())["got"] == n
        await runner.cleanup()

async def predict(use: bool) -> dict:
    if use:
        await used()
    return pools.state()
"""

GRPCIO = """
import concurrent.futures
import os
import tempfile
import grpc

def handler():
    method = grpc.unary_unary_rpc_method_handler(lambda request, _: request[::-1])
    return grpc.method_handlers_generic_handler("Echo", {"Back": method})

def used():
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(1) as threads:
        server = grpc.server(threads)
        server.add_generic_rpc_handlers([handler()])
        address = "unix:" + os.path.join(folder, "s")
        assert server.add_insecure_port(address)
        server.start()
        with grpc.insecure_channel(address) as channel:
            call = channel.unary_unary("/Echo/Back")
            for n in range(20):
                assert call(b"abc%d" % n, timeout=10) == (b"abc%d" % n)[::-1]
        server.stop(None).wait(10)
"""

TORCH = """
import torch

def used():
    net = torch.nn.Sequential(torch.nn.Linear(256, 256), torch.nn.ReLU(), torch.nn.Linear(256, 1))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    x = torch.rand(512, 256)
    for _ in range(3):
        loss = net(x).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.isfinite(loss)
"""


@dataclass(frozen=True, slots=True)
class Library:
    """name: what it is installed as. module: what is preloaded. use: see the top. needs: further requirements."""

    name: str
    module: str
    use: str
    needs: tuple[str, ...] = ()

    @property
    def main(self) -> str:
        """The model's main.py; it imports `pools`, which is POOLS."""
        return self.use if "def predict" in self.use else self.use + PREDICT


QUICK = (
    Library("numpy", "numpy", NUMPY),
    Library("scikit-learn", "sklearn", SCIKIT_LEARN),
    Library("pydantic", "pydantic", PYDANTIC),
    Library("aiohttp", "aiohttp", AIOHTTP),
)
LARGE = (
    Library("pandas", "pandas", PANDAS),
    Library("onnxruntime", "onnxruntime", ONNXRUNTIME, ("numpy",)),
    Library("grpcio", "grpc", GRPCIO),
    Library("torch", "torch", TORCH),
)
