"""The models of the prediction benchmark, and how each peer serves them. It starts nothing and measures nothing.

Every peer calls the same functions; its files are what its documentation leads one to write, its access log off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

_PLAIN = "(x: float) -> float:\n"
_ANSWER = "    return x + 1.0\n"

# By the name of a module. Five milliseconds are of this thread's own CPU time, so that waiting for others is not work.
MODELS = {
    "coroutine": f"async def predict{_PLAIN}{_ANSWER}",
    "function": f"def predict{_PLAIN}{_ANSWER}",
    "cpu": "import time\n\n\n"
    f"def predict{_PLAIN}    end = time.thread_time() + 0.005\n    while time.thread_time() < end:\n        pass\n{_ANSWER}",
    "wait": f"import asyncio\n\n\nasync def predict{_PLAIN}    await asyncio.sleep(0.005)\n{_ANSWER}",
}
ASYNC = ("coroutine", "wait")

# Ours alone: what batching costs a lone caller.
BATCHES = "def predict_batch(inputs: list) -> list:\n    return [each['x'] + 1.0 for each in inputs]\n"


@dataclass(frozen=True, slots=True)
class Recipe:
    """packages: to be installed. files: by name. words: the command, after its environment's folder for programs.

    path, body: how `{model}` is asked for one prediction. alone: whether one server can have only one model.
    `{port}` and, where it is alone, `{model}` are put into words; ports beside it are free as well.
    """

    packages: tuple[str, ...]
    files: Mapping[str, str]
    words: tuple[str, ...]
    path: str = "/{model}"
    body: str = '{"x": 1.0}'
    environ: Mapping[str, str] = field(default_factory=dict)
    alone: bool = False


def _each(text_of_async: str, text_of_sync: str) -> str:
    """Both texts for the models that each is of."""
    return "\n\n".join((text_of_async if name in ASYNC else text_of_sync).replace("NAME", name) for name in MODELS)


_IMPORTS = f"import {', '.join(MODELS)}\n"

_FASTAPI = f"""\
import pydantic
from fastapi import FastAPI

{_IMPORTS}
app = FastAPI()


class Inputs(pydantic.BaseModel):
    x: float


""" + _each(
    """\
@app.post("/NAME")
async def answer_NAME(inputs: Inputs):
    return {"prediction": await NAME.predict(inputs.x)}
""",
    """\
@app.post("/NAME")
def answer_NAME(inputs: Inputs):
    return {"prediction": NAME.predict(inputs.x)}
""",
)

_LITSERVE = f"""\
import sys

import litserve

{_IMPORTS}

""" + _each(
    """\
class Of_NAME(litserve.LitAPI):
    def setup(self, device):
        pass

    async def decode_request(self, request):
        return request["x"]

    async def predict(self, x):
        return await NAME.predict(x)

    async def encode_response(self, output):
        return {"prediction": output}
""",
    """\
class Of_NAME(litserve.LitAPI):
    def setup(self, device):
        pass

    def decode_request(self, request):
        return request["x"]

    def predict(self, x):
        return NAME.predict(x)

    def encode_response(self, output):
        return {"prediction": output}
""",
)
_LITSERVE += f"""

if __name__ == "__main__":
    apis = [{", ".join(f'Of_{name}(api_path="/{name}", enable_async={name in ASYNC})' for name in MODELS)}]
    server = litserve.LitServer(apis, accelerator="cpu", workers_per_device=1, timeout=60)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="error", generate_client_file=False)
"""

_BENTOML = f"""\
import bentoml

{_IMPORTS}

@bentoml.service(workers=1, logging={{"access": {{"enabled": False}}}}, traffic={{"max_concurrency": 1024}})
class Answers:
""" + _each(
    """\
    @bentoml.api(route="/NAME")
    async def answer_NAME(self, x: float) -> dict:
        return {"prediction": await NAME.predict(x)}
""",
    """\
    @bentoml.api(route="/NAME")
    def answer_NAME(self, x: float) -> dict:
        return {"prediction": NAME.predict(x)}
""",
)

_MLSERVER = f"""\
from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput

{_IMPORTS}

class Answers(MLModel):
    async def load(self):
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        value = await self.answer(payload.inputs[0].data[0])
        output = ResponseOutput(name="prediction", shape=[1], datatype="FP64", data=[value])
        return InferenceResponse(model_name=self.name, outputs=[output])


""" + _each(
    """\
class Of_NAME(Answers):
    async def answer(self, x):
        return await NAME.predict(x)
""",
    """\
class Of_NAME(Answers):
    async def answer(self, x):
        return NAME.predict(x)
""",
)

_COG = {
    f"cog_{name}.py": f"""\
from cog import BasePredictor

import {name}


class Predictor(BasePredictor):
    {"async " if name in ASYNC else ""}def predict(self, x: float) -> float:
        return {"await " if name in ASYNC else ""}{name}.predict(x)
"""
    for name in MODELS
}

_MLSERVER_SETTINGS = '{"host": "127.0.0.1", "parallel_workers": 0, "debug": false, "metrics_endpoint": null}'

RECIPES = {
    "fastapi": Recipe(
        ("fastapi", "uvicorn[standard]"),
        {"app.py": _FASTAPI},
        ("python", "-m", "uvicorn", "app:app", "--port", "{port}", "--log-level", "error"),
    ),
    "mlserver": Recipe(
        ("mlserver",),
        {
            "answers.py": _MLSERVER,
            "settings.json": _MLSERVER_SETTINGS,
            **{
                f"{name}_settings/model-settings.json": f'{{"name": "{name}", "implementation": "answers.Of_{name}"}}'
                for name in MODELS
            },
        },
        ("mlserver", "start", "."),
        path="/v2/models/{model}/infer",
        body='{"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [1.0]}]}',
        environ={
            "MLSERVER_HTTP_PORT": "{port}",
            "MLSERVER_GRPC_PORT": "{second}",
            "MLSERVER_LOGGING_SETTINGS": "",
        },
    ),
    "litserve": Recipe(("litserve",), {"server.py": _LITSERVE}, ("python", "server.py", "{port}")),
    "bentoml": Recipe(
        ("bentoml",),
        {"service.py": _BENTOML},
        ("python", "-m", "bentoml", "serve", "service:Answers", "--port", "{port}"),
        environ={"BENTOML_DO_NOT_TRACK": "True"},
    ),
    "cog": Recipe(
        ("cog",),
        _COG,
        ("python", "-m", "cog.server.http", "--host", "127.0.0.1"),
        path="/predictions",
        body='{"input": {"x": 1.0}}',
        environ={"PORT": "{port}", "COG_PREDICT_TYPE_STUB": "cog_{model}.py:Predictor", "COG_LOG_LEVEL": "error"},
        alone=True,
    ),
}
COG_AT_ONCE = {"COG_MAX_CONCURRENCY": "256"}  # which a predictor that is no coroutine refuses
