"""
The gRPC messages of the Open Inference Protocol, and what they become.

The classes are made from `open_inference.proto` when this module is imported. Nothing is
generated into files, so no protobuf compiler is needed and any version of its library will do.

A request becomes what it would be over REST with raw tensors: JSON, and the tensors behind it.
The log keeps that, so a replay needs no protobuf.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.message import DecodeError

from clewline.errors import BodyTooLarge, MalformedInput
from clewline.protocols.oip.infer_request import (
    MOST_INPUTS,
    SIZE,
    InferInput,
    InferOptions,
    Parameters,
    RequestedOutput,
    too_many_inputs,
)
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
MOST_PARAMETERS = 1024
"""Parameters of one request or tensor."""
MOST_ELEMENTS = 4 << 20
"""Elements of one tensor in typed contents; raw contents hold more."""

_encode = msgspec.json.encode


def _message_classes() -> dict[str, Any]:
    """Make the class of each message; one inside another has a dot in its name."""
    file = _parse(Path(__file__).with_name("open_inference.proto").read_text("utf-8"))
    # A pool of its own: another library may have the same names in the common one.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = [
        f"{outer.name}.{each.name}" if each is not outer else outer.name
        for outer in file.message_type
        for each in (outer, *outer.nested_type)
        if not each.options.map_entry
    ]
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
        for name in names
    }


def _parse(text: str) -> descriptor_pb2.FileDescriptorProto:
    """Read the proto language as far as `open_inference.proto` uses it, a line at a time."""
    file = descriptor_pb2.FileDescriptorProto(
        name="clewline/open_inference.proto", package=PACKAGE, syntax="proto3"
    )
    open_messages: list[descriptor_pb2.DescriptorProto] = []
    choices: list[str] = []
    for line in text.splitlines():
        if found := re.match(r"\s*message (\w+) \{(\})?", line):
            inside = open_messages[-1].nested_type if open_messages else file.message_type
            message = inside.add(name=found[1])
            if not found[2]:
                open_messages.append(message)
        elif found := re.match(r"\s*oneof (\w+) \{", line):
            choices.append(open_messages[-1].oneof_decl.add(name=found[1]).name)
        elif found := re.match(r"\s*map<string, (\w+)> (\w+) = (\d+);", line):
            # A map is many entries of key and value.
            message, path = open_messages[-1], ".".join(each.name for each in open_messages)
            entry = message.nested_type.add(name=f"{found[2].capitalize()}Entry")
            entry.options.map_entry = True
            _add_field(entry, "string", "key", 1)
            _add_field(entry, found[1], "value", 2)
            _add_field(message, f"{path}.{entry.name}", found[2], int(found[3]), repeated=True)
        elif found := re.match(r"\s*(repeated )?([\w.]+) (\w+) = (\d+);", line):
            number, repeated = int(found[4]), bool(found[1])
            field = _add_field(open_messages[-1], found[2], found[3], number, repeated=repeated)
            if choices:
                field.oneof_index = 0
        elif line.strip() == "}":
            _ = choices.pop() if choices else open_messages.pop()
    return file


def _add_field(
    message: descriptor_pb2.DescriptorProto,
    kind: str,
    name: str,
    number: int,
    *,
    repeated: bool = False,
) -> descriptor_pb2.FieldDescriptorProto:
    field_type = descriptor_pb2.FieldDescriptorProto
    label = field_type.LABEL_REPEATED if repeated else field_type.LABEL_OPTIONAL
    field = message.field.add(name=name, number=number, label=label)
    if kind[0].islower():
        field.type = field_type.Type.Value(f"TYPE_{kind.upper()}")
    else:
        field.type, field.type_name = field_type.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
    return field


CLASSES: dict[str, Any] = _message_classes()
"""Message → its class."""


class ReceivedInference(msgspec.Struct):
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
            f"The message is no {name}.", "Use the messages of the Open Inference Protocol."
        ) from error


def write_message(name: str, content: Any) -> bytes:
    """Write a struct or a dictionary as a message; what the message does not have is left out."""
    message = CLASSES[name]()
    json_format.ParseDict(msgspec.to_builtins(content), message, ignore_unknown_fields=True)
    return bytes(message.SerializeToString())


def read_inference(data: bytes) -> ReceivedInference:
    """
    Read a request to infer.

    Raises:
        MalformedInput: It is none, or its contents are not one for each input, of its datatype.
        BodyTooLarge: It has more inputs, parameters or typed elements than one request may have.
    """
    request = read_message("ModelInferRequest", data)
    inputs, raws = request.inputs, list(request.raw_input_contents)
    if len(inputs) > MOST_INPUTS:
        raise too_many_inputs(len(inputs))
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
            _read_parameters(tensor.parameters) | {SIZE: len(content)},
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
    asked: dict[str, Any] = {"inputs": described}
    if options.id or options.parameters or options.outputs:
        asked = {"id": options.id, "parameters": options.parameters, **asked}
        asked["outputs"] = options.outputs
    header = _encode(asked)
    body, detail = b"".join([header, *contents]), str(len(header))
    name, version = request.model_name, request.model_version
    return ReceivedInference(name, version, body, detail, options, bool(raws))


def write_inference(name: str, request: ReceivedInference, answer: InferResponse) -> bytes:
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


def _read_parameters(found: Any) -> Parameters:
    """Read the parameters of a message; one without a value is left out."""
    if len(found) > MOST_PARAMETERS:
        raise BodyTooLarge(f"There are more than {MOST_PARAMETERS} parameters.", "Send fewer.")
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
