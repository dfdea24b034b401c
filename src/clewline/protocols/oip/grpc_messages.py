"""
The gRPC messages of the Open Inference Protocol, and what they become.

protobuf makes the classes from `open_inference.textproto` when this module is imported. No code
is generated into files, so no compiler is needed and any version of the library will do.

A request becomes what it would be over REST with raw tensors: JSON, and the tensors behind it.
The log keeps that, so a replay needs no protobuf.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    json_format,
    message_factory,
    text_format,
)
from google.protobuf.message import DecodeError

from clewline.errors import BodyTooLarge, MalformedInput
from clewline.protocols.oip import infer_request
from clewline.protocols.oip.infer_request import InferInput, InferOptions, RequestedOutput
from clewline.protocols.oip.infer_response import InferResponse
from clewline.protocols.oip.tensor_data import BYTES, DTYPES, pack_strings
from clewline.signature.field_rules import printable_text

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"
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
MOST_ELEMENTS = 4 << 20
"""Elements of one tensor in typed contents; raw contents hold more."""

_encode = msgspec.json.encode


def _message_classes() -> dict[str, Any]:
    """Make the class of each message; one inside another has a dot in its name."""
    text = Path(__file__).with_name("open_inference.textproto").read_text("utf-8")
    file = text_format.Parse(text, descriptor_pb2.FileDescriptorProto())
    # A pool of its own: another library may have the same names in the common one.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = [outer.name for outer in file.message_type]
    for outer in file.message_type:
        names += [f"{outer.name}.{e.name}" for e in outer.nested_type if not e.options.map_entry]
    found = {name: pool.FindMessageTypeByName(f"{PACKAGE}.{name}") for name in names}
    return {name: message_factory.GetMessageClass(each) for name, each in found.items()}


CLASSES: dict[str, Any] = _message_classes()
"""Message → its class."""


class GrpcInference(msgspec.Struct):
    """A request as the endpoints are asked, and what its answer needs."""

    model: str
    version: str
    body: bytes
    detail: str
    options: InferOptions
    is_raw: bool


def read_message(name: str, data: bytes) -> Any:
    """
    Read a message.

    Raises:
        MalformedInput: The bytes are no message of this kind.
    """
    try:
        return CLASSES[name].FromString(data)
    except DecodeError as error:
        raise MalformedInput(
            f"The message is not a {name}.", "Use the messages of the Open Inference Protocol."
        ) from error


def write_message(name: str, content: Any) -> bytes:
    """Write a struct or a dictionary as a message; what the message does not have is left out."""
    message = CLASSES[name]()
    json_format.ParseDict(msgspec.to_builtins(content), message, ignore_unknown_fields=True)
    return bytes(message.SerializeToString())


def read_inference(data: bytes) -> GrpcInference:
    """
    Read a request to infer.

    Raises:
        MalformedInput: It is none, or its contents are not one for each input, of its datatype.
        BodyTooLarge: It has more inputs, parameters or typed elements than one request may have.
    """
    request = read_message("ModelInferRequest", data)
    inputs, raws = request.inputs, list(request.raw_input_contents)
    if len(inputs) > infer_request.MOST_INPUTS:
        raise infer_request.too_many_inputs(len(inputs))
    if raws and (len(raws) != len(inputs) or any(each.HasField("contents") for each in inputs)):
        raise MalformedInput(
            f"There are {len(raws)} raw contents for {len(inputs)} inputs, or typed ones beside.",
            "Send raw contents for every input, or typed ones.",
        )
    contents = raws or list(map(_raw_contents, inputs))
    described = [
        InferInput(
            tensor.name,
            list(tensor.shape),
            tensor.datatype,
            _read_parameters(tensor.parameters) | {infer_request.SIZE: len(content)},
        )
        for tensor, content in zip(inputs, contents, strict=True)
    ]
    outputs = [
        RequestedOutput(each.name, _read_parameters(each.parameters)) for each in request.outputs
    ]
    options = InferOptions(
        id=request.id or None,
        parameters=_read_parameters(request.parameters),
        outputs=outputs or None,
    )
    content: dict[str, Any] = {"inputs": described}
    if options.id or options.parameters or options.outputs:
        content = {"id": options.id, "parameters": options.parameters, **content}
        content["outputs"] = options.outputs
    header = _encode(content)
    body, detail = b"".join([header, *contents]), str(len(header))
    name, version = request.model_name, request.model_version
    return GrpcInference(name, version, body, detail, options, bool(raws))


def write_inference(name: str, request: GrpcInference, answer: InferResponse) -> bytes:
    """Write an answer; its tensors are raw when those of the request were, or one has to be."""
    is_raw = request.is_raw or any(each.datatype not in CONTENTS for each in answer.tensors)
    message = CLASSES["ModelInferResponse"](
        model_name=name, model_version=answer.model_version, id=request.options.id or ""
    )
    for key, value in answer.parameters.items():
        message.parameters[key].string_param = value
    for tensor in answer.tensors:
        output = message.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if is_raw:
            message.raw_output_contents.append(tensor.raw())
            continue
        elements = tensor.elements
        if tensor.datatype == BYTES:
            elements = [str(element).encode() for element in elements]
        getattr(output.contents, CONTENTS[tensor.datatype]).extend(elements)
    return bytes(message.SerializeToString())


def _read_parameters(found: Any) -> dict[str, Any]:
    """Read the parameters of a message; one without a value is left out."""
    infer_request.require_few_parameters(found)
    chosen = {name: each.WhichOneof("parameter_choice") for name, each in found.items()}
    return {name: getattr(found[name], choice) for name, choice in chosen.items() if choice}


def _raw_contents(tensor: Any) -> bytes:
    """Return typed contents as raw bytes; raises as `read_inference`."""

    def refused(what: str) -> MalformedInput:
        return MalformedInput(
            f"The input {printable_text(tensor.name)!r} {what}.",
            "Send its elements where its datatype has them, or raw.",
        )

    place = CONTENTS.get(tensor.datatype)
    named = {field.name for field, _ in tensor.contents.ListFields()}
    if place is None or not named <= {place}:
        found = ", ".join(sorted(named)) or "no contents"
        raise refused(f"has {found} for {printable_text(tensor.datatype)!r}")
    elements = getattr(tensor.contents, place)
    if len(elements) > MOST_ELEMENTS:
        raise BodyTooLarge(
            f"The input {printable_text(tensor.name)!r} has more than {MOST_ELEMENTS} elements.",
            "Send raw contents, or fewer rows at once.",
        )
    if tensor.datatype == BYTES:
        return pack_strings(elements)
    try:
        # As a list: out of protobuf's own kind of array numpy would wrap what does not fit.
        return np.array(list(elements), DTYPES[tensor.datatype]).tobytes()
    except OverflowError as error:
        raise refused(f"has elements that {tensor.datatype} does not hold") from error
