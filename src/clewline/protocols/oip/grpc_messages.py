"""
The messages of the Open Inference Protocol over gRPC, made from a description in Python.

Names and numbers of the fields are the protocol's; nothing is generated into
files, so no compiler of protobuf is needed and any version of its library will do.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"

Fields = dict[str, tuple[int, str]]
"""Name → number and type; `*` before a type for many, `map` for parameters, else a message."""

_PARAMETER: Fields = {
    "bool_param": (1, "bool"),
    "int64_param": (2, "int64"),
    "string_param": (3, "string"),
    "double_param": (4, "double"),
    "uint64_param": (5, "uint64"),
}
_NAMED: Fields = {"name": (1, "string"), "version": (2, "string")}
_TENSOR: Fields = {
    "name": (1, "string"),
    "datatype": (2, "string"),
    "shape": (3, "*int64"),
    "parameters": (4, "map"),
    "contents": (5, "InferTensorContents"),
}
_DESCRIBED: Fields = {"name": (1, "string"), "datatype": (2, "string"), "shape": (3, "*int64")}
_MOVE: Fields = {"repository_name": (1, "string"), "model_name": (2, "string")}

MESSAGES: dict[str, Fields] = {
    "ServerLiveRequest": {},
    "ServerLiveResponse": {"live": (1, "bool")},
    "ServerReadyRequest": {},
    "ServerReadyResponse": {"ready": (1, "bool")},
    "ModelReadyRequest": _NAMED,
    "ModelReadyResponse": {"ready": (1, "bool")},
    "ServerMetadataRequest": {},
    "ServerMetadataResponse": {
        "name": (1, "string"),
        "version": (2, "string"),
        "extensions": (3, "*string"),
    },
    "ModelMetadataRequest": _NAMED,
    "ModelMetadataResponse.TensorMetadata": _DESCRIBED,
    "ModelMetadataResponse": {
        "name": (1, "string"),
        "versions": (2, "*string"),
        "platform": (3, "string"),
        "inputs": (4, "*ModelMetadataResponse.TensorMetadata"),
        "outputs": (5, "*ModelMetadataResponse.TensorMetadata"),
    },
    "InferTensorContents": {
        "bool_contents": (1, "*bool"),
        "int_contents": (2, "*int32"),
        "int64_contents": (3, "*int64"),
        "uint_contents": (4, "*uint32"),
        "uint64_contents": (5, "*uint64"),
        "fp32_contents": (6, "*float"),
        "fp64_contents": (7, "*double"),
        "bytes_contents": (8, "*bytes"),
    },
    "ModelInferRequest.InferInputTensor": _TENSOR,
    "ModelInferRequest.InferRequestedOutputTensor": {
        "name": (1, "string"),
        "parameters": (2, "map"),
    },
    "ModelInferRequest": {
        "model_name": (1, "string"),
        "model_version": (2, "string"),
        "id": (3, "string"),
        "parameters": (4, "map"),
        "inputs": (5, "*ModelInferRequest.InferInputTensor"),
        "outputs": (6, "*ModelInferRequest.InferRequestedOutputTensor"),
        "raw_input_contents": (7, "*bytes"),
    },
    "ModelInferResponse.InferOutputTensor": _TENSOR,
    "ModelInferResponse": {
        "model_name": (1, "string"),
        "model_version": (2, "string"),
        "id": (3, "string"),
        "parameters": (4, "map"),
        "outputs": (5, "*ModelInferResponse.InferOutputTensor"),
        "raw_output_contents": (6, "*bytes"),
    },
    "RepositoryIndexRequest": {"repository_name": (1, "string"), "ready": (2, "bool")},
    "RepositoryIndexResponse.ModelIndex": {
        "name": (1, "string"),
        "version": (2, "string"),
        "state": (3, "string"),
        "reason": (4, "string"),
    },
    "RepositoryIndexResponse": {"models": (1, "*RepositoryIndexResponse.ModelIndex")},
    "RepositoryModelLoadRequest": _MOVE | {"parameters": (3, "map")},
    "RepositoryModelLoadResponse": {},
    "RepositoryModelUnloadRequest": _MOVE | {"parameters": (3, "map")},
    "RepositoryModelUnloadResponse": {},
}
"""Message → its fields; one with a dot in its name stands inside another."""

_Type = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _Type.TYPE_BOOL,
    "int32": _Type.TYPE_INT32,
    "int64": _Type.TYPE_INT64,
    "uint32": _Type.TYPE_UINT32,
    "uint64": _Type.TYPE_UINT64,
    "float": _Type.TYPE_FLOAT,
    "double": _Type.TYPE_DOUBLE,
    "string": _Type.TYPE_STRING,
    "bytes": _Type.TYPE_BYTES,
}


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="clewline/open_inference.proto", package=PACKAGE, syntax="proto3"
    )
    parameter = file.message_type.add(name="InferParameter")
    parameter.oneof_decl.add(name="parameter_choice")
    for name, (number, kind) in _PARAMETER.items():
        _add(parameter, name, number, kind).oneof_index = 0
    made: dict[str, descriptor_pb2.DescriptorProto] = {}
    for path in sorted(MESSAGES, key=lambda path: path.count(".")):
        outer, _, name = path.rpartition(".")
        made[path] = (made[outer].nested_type if outer else file.message_type).add(name=name)
        for field, (number, kind) in MESSAGES[path].items():
            if kind == "map":
                _add_map(made[path], path, field, number)
            else:
                _add(made[path], field, number, kind)
    return file


def _add(
    message: descriptor_pb2.DescriptorProto, name: str, number: int, kind: str
) -> descriptor_pb2.FieldDescriptorProto:
    label = _Type.LABEL_REPEATED if kind.startswith("*") else _Type.LABEL_OPTIONAL
    kind = kind.removeprefix("*")
    field = message.field.add(name=name, number=number, label=label)
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type = _Type.TYPE_MESSAGE
        field.type_name = f".{PACKAGE}.{kind}"
    return field


def _add_map(message: descriptor_pb2.DescriptorProto, path: str, name: str, number: int) -> None:
    """A map is many entries of key and value, as protobuf itself has it."""
    entry = message.nested_type.add(name=f"{name.capitalize()}Entry")
    entry.options.map_entry = True
    _add(entry, "key", 1, "string")
    _add(entry, "value", 2, "InferParameter")
    _add(message, name, number, f"*{path}.{entry.name}")


def _classes() -> dict[str, Any]:
    # A pool of its own: another library may have the same names in the common one.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(_file())
    return {
        path: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{path}"))
        for path in (*MESSAGES, "InferParameter")
    }


CLASSES: dict[str, Any] = _classes()
"""Message → its class."""
