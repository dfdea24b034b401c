"""Models that answer with arrays answer the Open Inference Protocol with a tensor of their type."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from clewline.errors import Fault
from clewline.protocols.oip.infer_request import InferOptions
from clewline.protocols.oip.infer_response import infer_response
from clewline.protocols.oip.model_metadata import output_tensors
from clewline.protocols.rest import openapi
from clewline.serve.request.predict_request import PredictResponse
from clewline.signature.field import Output

OUTPUT = Output(name="e", task="tensor", dtype="float32", shape=(2, 2))


def test_an_array_a_row_is_one_tensor_of_all_rows() -> None:
    rows = [
        b'{"id":"1","model":"m@1","value":[[1.5,2],[3,null]]}',
        b'{"id":"2","model":"m@1","value":[[5,6],[7,8]]}',
    ]
    (tensor,) = infer_response(PredictResponse("m#1", rows, b""), OUTPUT, InferOptions()).tensors
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
    (tensor,) = infer_response(
        PredictResponse("m#1", [b'{"id":"1","label":"b"}'], b""), output, InferOptions()
    ).tensors
    assert (tensor.name, tensor.elements) == ("label", ["b"])
    schema = openapi.prediction(output)
    assert "probabilities" not in schema["properties"]
    assert "label" in schema["required"]


def test_what_typed_contents_cannot_hold_is_answered_raw() -> None:
    messages = pytest.importorskip("clewline.protocols.oip.grpc_messages")
    half = Output(name="e", task="tensor", dtype="float16", shape=(2,))
    found = infer_response(
        PredictResponse("m#1", [b'{"id":"1","value":[1.5,2]}'], b""), half, InferOptions()
    )
    asked = messages.GrpcInference("m", "", b"", "", InferOptions(), is_raw=False)
    said = messages.read_message("ModelInferResponse", messages.write_inference("m", asked, found))
    assert said.outputs[0].datatype == "FP16"
    assert said.raw_output_contents[0] == np.array([1.5, 2], np.float16).tobytes()


def test_an_element_that_is_not_finite_is_nan_in_a_tensor_and_null_in_json() -> None:
    output = Output(name="e", task="tensor", dtype="float64", shape=(2,))
    row = b'{"id":"1","value":[null,null]}'
    (value,) = infer_response(PredictResponse("m#1", [row], b""), output, InferOptions()).tensors
    assert msgspec.json.encode(value.elements) == b"[null,null]"
    assert np.isnan(np.frombuffer(value.raw())).all()
    with pytest.raises(Fault, match="no value"):
        infer_response(PredictResponse("m#1", [b'{"id":"1"}'], b""), output, InferOptions())
