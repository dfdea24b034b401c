"""Numbers of an answer that are not finite: the same rule in every protocol and format."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clewline.client import Client
from clewline.project import Project
from clewline.protocols.oip.grpc_messages import GrpcInference, read_message, write_inference
from clewline.protocols.oip.infer_request import InferOptions
from clewline.protocols.oip.infer_response import infer_response
from clewline.serve import revision
from clewline.serve.endpoint_file import parse_endpoint
from clewline.serve.request.predict_request import PredictResponse
from clewline.signature.field import Output
from clewline.store.store import Store

BIG = {"age": 30, "hours": 3e38}  # float32 holds it, but not twice it


@pytest.fixture
def doubling(tmp_path: Path, shop: Callable[..., Project], up: Callable[..., Any]) -> Iterator[Any]:
    """A server of a model that answers its two numbers doubled, as one array of float32."""
    project = shop(tmp_path)
    with Store.open(project.store_root) as store:
        spec = parse_endpoint(b"endpoint: doubling\nmodel: vector@1\n", Path("doubling.yaml"))
        revision.apply(project, store, spec)
    return up(project)


def infer(server: Any, **parameters: Any) -> Any:
    inputs = [
        {"name": name, "shape": [1], "datatype": "FP64", "data": [value]}
        for name, value in BIG.items()
    ]
    body = msgspec.json.encode({"inputs": inputs, "parameters": parameters})
    return server.ask("POST", "/v2/models/doubling/infer", body)


def test_they_are_null_in_json_and_nan_in_raw_tensors(doubling):
    status, answer, _ = doubling.predict({"rows": [BIG]}, "doubling")
    assert (status, answer["predictions"][0]["value"]) == (200, [60.0, None])
    status, answer, _ = infer(doubling)
    assert (status, answer["outputs"][0]["data"]) == (200, [60.0, None])
    body = msgspec.json.encode({"inputs": [BIG]})
    headers = {"content-type": "application/json"}
    status, answer, _ = doubling.ask("POST", "/mlflow/doubling/invocations", body, **headers)
    assert (status, answer["predictions"]) == (200, [[60.0, None]])
    with Client(doubling.url) as client:
        assert client.predict("doubling", BIG)[0].value == [60.0, None]


def test_over_grpc_they_are_nan():
    output = Output(name="y", task="tensor", dtype="float64", shape=(2,))
    answer = PredictResponse("m#1", [b'{"id":"1","value":[null,1.5]}'], b"")
    tensors = infer_response(answer, output, InferOptions())
    asked = GrpcInference("m", "", b"", "", InferOptions(), is_raw=False)
    message = read_message("ModelInferResponse", write_inference("m", asked, tensors))
    assert math.isnan(message.outputs[0].contents.fp64_contents[0])
