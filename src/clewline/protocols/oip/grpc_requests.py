"""
Between the messages of gRPC and what the rest of the house reads and writes.

A request becomes what it would be over REST with raw tensors: JSON, and the
tensors behind it. That is what the log keeps, so a replay needs no protobuf.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from google.protobuf.message import DecodeError

from clewline.errors import MalformedInput
from clewline.protocols.oip.grpc_messages import CLASSES
from clewline.protocols.oip.infer_request import SIZE, Input, Output, Parameters
from clewline.protocols.oip.metadata import ModelMetadata, Options, Outcome, Tensor
from clewline.protocols.oip.tensor_data import BYTES, DTYPES, write_elements
from clewline.signature.field_rules import printable_text

CONTENTS: dict[str, str] = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}
"""Datatype → where its elements stand in typed contents; FP16 and BF16 have no such place."""

_encode = msgspec.json.encode


class Inference(msgspec.Struct):
    """A request as the endpoints are asked, and what its answer needs."""

    model: str
    version: str
    body: bytes
    detail: str
    options: Options
    is_raw: bool


def message(name: str, data: bytes) -> Any:
    """
    Read a message.

    Raises:
        MalformedInput: The bytes are none of this kind.
    """
    try:
        return CLASSES[name].FromString(data)
    except DecodeError as error:
        raise MalformedInput(
            f"The message is no {name}.", "Use the messages of the Open Inference Protocol."
        ) from error


def inference(data: bytes) -> Inference:
    """
    Read a request to infer.

    Raises:
        MalformedInput: It is none, or its contents are not one for each input, of its datatype.
    """
    request = message("ModelInferRequest", data)
    raws = list(request.raw_input_contents)
    inputs = request.inputs
    contents = raws if raws else [_raw_contents(tensor) for tensor in inputs]
    if raws and (len(raws) != len(inputs) or any(each.HasField("contents") for each in inputs)):
        raise MalformedInput(
            f"There are {len(raws)} raw contents for {len(inputs)} inputs, or typed ones beside.",
            "Send raw contents for every input, or typed ones.",
        )
    described = [
        Input(
            tensor.name,
            list(tensor.shape),
            tensor.datatype,
            parameters(tensor.parameters) | {SIZE: len(content)},
        )
        for tensor, content in zip(inputs, contents, strict=True)
    ]
    options = Options(request.id or None, parameters(request.parameters), _wanted(request))
    header = _encode(
        {
            "id": options.id,
            "parameters": options.parameters,
            "inputs": described,
            "outputs": options.outputs,
        }
        if options.id or options.parameters or options.outputs
        else {"inputs": described}
    )
    return Inference(
        request.model_name,
        request.model_version,
        b"".join([header, *contents]),
        str(len(header)),
        options,
        bool(raws),
    )


def parameters(found: Any) -> Parameters:
    """Read the parameters of a message; one without a value is left out."""
    read: Parameters = {}
    for name, parameter in found.items():
        choice = parameter.WhichOneof("parameter_choice")
        if choice is not None:
            read[name] = getattr(parameter, choice)
    return read


def answer(name: str, request: Inference, outcome: Outcome) -> bytes:
    """Write an answer; its tensors are raw when those of the request were, or one has to be."""
    is_raw = request.is_raw or any(each.datatype not in CONTENTS for each in outcome.tensors)
    response = CLASSES["ModelInferResponse"](
        model_name=name, model_version=outcome.model_version, id=request.options.id or ""
    )
    for key, value in outcome.parameters.items():
        response.parameters[key].string_param = value
    for tensor in outcome.tensors:
        made = response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if is_raw:
            response.raw_output_contents.append(tensor.raw())
        else:
            getattr(made.contents, CONTENTS[tensor.datatype]).extend(_typed(tensor))
    return bytes(response.SerializeToString())


def metadata(found: ModelMetadata) -> bytes:
    """Write the metadata of a model."""
    response = CLASSES["ModelMetadataResponse"](
        name=found.name, versions=found.versions, platform=found.platform
    )
    for tensors, field in ((found.inputs, response.inputs), (found.outputs, response.outputs)):
        for each in tensors:
            field.add(name=each.name, datatype=each.datatype, shape=each.shape)
    return bytes(response.SerializeToString())


def _wanted(request: Any) -> list[Output] | None:
    return [Output(each.name, parameters(each.parameters)) for each in request.outputs] or None


def _typed(tensor: Tensor) -> list[Any]:
    if tensor.datatype == BYTES:
        return [str(element).encode() for element in tensor.elements]
    return tensor.elements


def _raw_contents(tensor: Any) -> bytes:
    """
    Give typed contents as raw bytes.

    Raises:
        MalformedInput: They stand in another place than their datatype has, or do not fit it.
    """
    place = CONTENTS.get(tensor.datatype)
    named = {field.name for field, _ in tensor.contents.ListFields()}
    if place is None or not named <= {place}:
        said = ", ".join(sorted(named)) or "no contents"
        raise _not_typed(tensor, f"has {said} for {printable_text(tensor.datatype)!r}")
    elements = getattr(tensor.contents, place)
    if tensor.datatype == BYTES:
        return write_elements(elements)
    try:
        # As a list: out of protobuf's own kind of array numpy would wrap what does not fit.
        return np.array(list(elements), DTYPES[tensor.datatype]).tobytes()
    except OverflowError as error:
        raise _not_typed(tensor, f"has elements that {tensor.datatype} does not hold") from error


def _not_typed(tensor: Any, what: str) -> MalformedInput:
    return MalformedInput(
        f"The input {printable_text(tensor.name)!r} {what}.",
        "Send its elements where its datatype has them, or raw.",
    )
