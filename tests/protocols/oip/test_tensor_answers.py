"""Models that answer with arrays answer the Open Inference Protocol with a tensor of their type."""

from __future__ import annotations

import numpy as np
import pytest

from clewline.protocols import openapi
from clewline.protocols.oip.metadata import Options, outcome, output_tensors
from clewline.serve.predict_response import PredictResponse
from clewline.signature.field import Output

OUTPUT = Output(name="e", task="tensor", dtype="float32", shape=(2, 2))


def test_an_array_a_row_is_one_tensor_of_all_rows() -> None:
    rows = [
        b'{"id":"1","model":"m@1","value":[[1.5,2],[3,null]]}',
        b'{"id":"2","model":"m@1","value":[[5,6],[7,8]]}',
    ]
    (tensor,) = outcome(PredictResponse("m#1", rows, b""), OUTPUT, Options()).tensors
    assert (tensor.name, tensor.datatype, tensor.shape) == ("value", "FP32", [2, 2, 2])
    found = np.frombuffer(tensor.raw(), np.float32)
    np.testing.assert_array_equal(found, [1.5, 2, 3, np.nan, 5, 6, 7, 8])


def test_the_metadata_tell_the_type_and_the_shape() -> None:
    (described,) = output_tensors(OUTPUT)
    assert (described.datatype, described.shape) == ("FP32", [-1, 2, 2])


def test_a_classifier_of_labels_alone_is_described_without_probabilities() -> None:
    output = Output(name="e", task="binary", labels=("a", "b"), has_probabilities=False)
    (described,) = output_tensors(output)
    assert (described.name, described.datatype) == ("label", "BYTES")
    (tensor,) = outcome(
        PredictResponse("m#1", [b'{"id":"1","label":"b"}'], b""), output, Options()
    ).tensors
    assert (tensor.name, tensor.elements) == ("label", ["b"])
    schema = openapi.prediction(output)
    assert "probabilities" not in schema["properties"]
    assert "label" in schema["required"]


def test_what_typed_contents_cannot_hold_is_answered_raw() -> None:
    wire = pytest.importorskip("clewline.protocols.oip.grpc_requests")
    half = Output(name="e", task="tensor", dtype="float16", shape=(2,))
    found = outcome(PredictResponse("m#1", [b'{"id":"1","value":[1.5,2]}'], b""), half, Options())
    asked = wire.Inference("m", "", b"", "", Options(), is_raw=False)
    said = wire.message("ModelInferResponse", wire.answer("m", asked, found))
    assert said.outputs[0].datatype == "FP16"
    assert said.raw_output_contents[0] == np.array([1.5, 2], np.float16).tobytes()
