"""
The Open Inference Protocol v2, as REST and gRPC share it: an endpoint as a model of tensors.

    signature ─► inputs and outputs of the metadata
    prediction ─► `label` and `probabilities`, or `value`; ids and the rest as parameters

The version of a model is the number of the endpoint's live revision.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from clewline import __version__
from clewline.errors import BadRequest, Fault, InvalidInput, NotFound, NotSupported
from clewline.protocols.oip.body_format import MATRIX, takes_matrix
from clewline.protocols.oip.infer_request import Output as Wanted
from clewline.protocols.oip.infer_request import Parameters
from clewline.protocols.oip.tensor_data import BYTES, DTYPES, Described, write_elements
from clewline.protocols.oip.tensor_reader import datatype_of
from clewline.protocols.request_headers import checked_key, deadline_in
from clewline.serve.answer_writer import label_name
from clewline.serve.endpoint_server import EndpointServer, ServedEndpoint, ServedRevision
from clewline.serve.predict_request import PredictRequest
from clewline.serve.predict_response import PredictResponse
from clewline.signature.field import Field, Output, Signature
from clewline.signature.field_rules import printable_text
from clewline.signature.json_rows import NameSuggestions

SERVER = "clewline"
EXTENSIONS = ("binary_tensor_data", "model_repository", "parameters")
PLATFORM = "clewline"
LARGE_BYTES = 128 << 10
"""A request over this is read on a thread …"""
LARGE_ROWS = 256
"""… and an answer of more rows is written on one: both take under a millisecond below."""
_KINDS = {"datetime": "datetime", "category": "str", "text": "str"}


class ServerMetadata(msgspec.Struct):
    """What a server says of itself."""

    name: str = SERVER
    version: str = __version__
    extensions: tuple[str, ...] = EXTENSIONS


class ModelMetadata(msgspec.Struct):
    """What a server says of an endpoint; the parameters name the one tensor for all fields."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[Described]
    outputs: list[Described]
    parameters: dict[str, Any]


class Listed(msgspec.Struct):
    """An endpoint in the index of the repository."""

    name: str
    version: str
    state: str  # READY, LOADING or UNAVAILABLE
    reason: str


class Options(msgspec.Struct, gc=False):
    """What a request asks for beside its rows."""

    id: str | None = None
    parameters: Parameters | None = None
    outputs: list[Wanted] | None = None


class Tensor(msgspec.Struct, gc=False):
    """An output: its elements row by row, of the type that its datatype has."""

    name: str
    datatype: str
    shape: list[int]
    elements: list[Any]

    def raw(self) -> bytes:
        """Give the elements as raw bytes."""
        if self.datatype == BYTES:
            return write_elements([str(element).encode() for element in self.elements])
        if self.datatype == "FP64":  # a few of them: numpy takes three times as long
            return struct.pack(f"<{len(self.elements)}d", *self.elements)
        return np.array(self.elements, DTYPES[self.datatype]).tobytes()


class Outcome(msgspec.Struct, gc=False):
    """An answer as the protocol gives it."""

    model_version: str
    parameters: dict[str, str]
    tensors: list[Tensor]


class _Prediction(msgspec.Struct, gc=False):
    id: str
    model: str = ""
    arm: str = ""
    label: Any = None
    value: Any = None  # a number, or nested lists of them
    probabilities: dict[str, float] | None = None
    flags: list[dict[str, Any]] | None = None


_decode = msgspec.json.Decoder(list[_Prediction]).decode


def metadata(serving: ServedRevision, name: str) -> ModelMetadata:
    """Describe an endpoint that is loaded."""
    signature, revision = serving.loaded.signature, serving.loaded.revision
    return ModelMetadata(
        name,
        [str(revision.number)],
        PLATFORM,
        [_described(field) for field in signature.fields],
        output_tensors(signature.output),
        _ways(signature),
    )


def output_tensors(output: Output) -> list[Described]:
    """Describe what an endpoint answers."""
    if output.task == "tensor":
        return [Described("value", _datatype(output), [-1, *(output.shape or ())])]
    if output.labels is None:
        return [Described("value", "FP64", [-1])]
    label = Described("label", label_datatype(output.labels), [-1])
    if not output.has_probabilities:
        return [label]
    order = {"labels": msgspec.json.encode(output.labels).decode()}
    return [label, Described("probabilities", "FP64", [-1, len(output.labels)], order)]


def label_datatype(labels: Sequence[Any]) -> str:
    """
    Name the datatype that labels of these types have.

    >>> label_datatype([0, 1]), label_datatype(["no", "yes"]), label_datatype([False, True])
    ('INT64', 'BYTES', 'BOOL')
    """
    types = set(map(type, labels))
    if types == {bool}:
        return "BOOL"
    if types == {int} and all(-(2**63) <= label < 2**63 for label in labels):
        return "INT64"
    return "FP64" if types <= {int, float} else BYTES


def index(endpoints: EndpointServer, *, ready: bool) -> list[Listed]:
    """List the endpoints, or only those that answer."""
    listed = [_listed(endpoint) for _, endpoint in sorted(endpoints.endpoints.items())]
    return [each for each in listed if each.state == "READY"] if ready else listed


def is_ready(endpoint: ServedEndpoint) -> bool:
    """Tell whether an endpoint answers; a cold one does, after it is loaded."""
    return endpoint.state in ("ready", "cold")


def check_version(endpoint: ServedEndpoint, version: str) -> None:
    """
    Let a request pass that names no version, or the live one.

    Raises:
        NotFound: It names another; names the live one.
    """
    if not version:
        return
    live = live_version(endpoint)
    if version != live:
        raise NotFound(
            f"{endpoint.name} has no version {printable_text(version)} here; "
            f"the live one is {live}.",
            "Name that, or none.",
        )


def live_version(endpoint: ServedEndpoint) -> str:
    """Give the number of the revision that answers, or that would."""
    if endpoint.serving is not None:
        return str(endpoint.serving.loaded.revision.number)
    return str(endpoint.wanted)


def check_outputs(options: Options, output: Output) -> None:
    """
    Let a request pass whose outputs there are.

    Raises:
        InvalidInput: It asks for another; names the nearest.
        NotSupported: It asks for classification, or for shared memory.
    """
    if not options.outputs:
        return
    names = [described.name for described in output_tensors(output)]
    for wanted in options.outputs:
        if wanted.name not in names:
            hint = NameSuggestions(names).hint(wanted.name)
            raise InvalidInput(
                f"There is no output {printable_text(wanted.name)!r}{hint}",
                f"The outputs are {', '.join(names)}.",
            )
        for parameter in wanted.parameters or ():
            if parameter == "classification" or parameter.startswith("shared_memory"):
                raise NotSupported(
                    f"The parameter {parameter} of an output is not supported.", "Leave it out."
                )


def complete(ask: PredictRequest, parameters: Parameters | None) -> None:
    """
    Add what the parameters of a request say to what is asked: its key and its time.

    Raises:
        BadRequest: They are not right.
    """
    if not parameters:
        return
    key = parameters.get("idempotency_key")
    if ask.key is None and key is not None:
        if not isinstance(key, str):
            raise BadRequest("idempotency_key is no text.", "Send a text.")
        ask.key = checked_key(key)
    for name, unit_ms in (("timeout", 1e-3), ("timeout_ms", 1.0)):
        wait = parameters.get(name)
        if isinstance(wait, bool) or not isinstance(wait, int | float | str | None):
            raise BadRequest(f"{name} is no number.", "Send a number above 0, or leave it out.")
        if wait:  # Triton's clients send 0 for none
            ask.deadline = min(ask.deadline, deadline_in(wait, unit_ms))


def outcome(answer: PredictResponse, output: Output, options: Options) -> Outcome:
    """
    Turn an answer into the tensors that were asked for.

    Raises:
        Fault: A prediction is not what the output says.
    """
    rows = _decode(b"[" + b",".join(answer.predictions) + b"]")
    tensors = _tensors(rows, output)
    if options.outputs:
        by_name = {tensor.name: tensor for tensor in tensors}
        tensors = [by_name[wanted.name] for wanted in options.outputs if wanted.name in by_name]
    version = answer.revision.rpartition("#")[2]
    return Outcome(version, _parameters(answer.revision, rows), tensors)


def is_binary(options: Options, name: str) -> bool:
    """Tell whether an output is wanted raw: by itself, or as all are."""
    for wanted in options.outputs or ():
        if wanted.name == name and wanted.parameters and "binary_data" in wanted.parameters:
            return bool(wanted.parameters["binary_data"])
    return bool(options.parameters and options.parameters.get("binary_data_output"))


def _tensors(rows: list[_Prediction], output: Output) -> list[Tensor]:
    count = len(rows)
    if output.labels is None:
        values = [row.value for row in rows]
        if None in values:
            raise Fault("A prediction has no value.", "The server's log has it.")
        if output.task == "tensor":
            return [_tensor(values, output)]
        return [Tensor("value", "FP64", [count], values)]
    labels = [row.label for row in rows]
    datatype = label_datatype(output.labels)
    if datatype == BYTES:
        labels = [label_name(label) for label in labels]
    tensors = [Tensor("label", datatype, [count], labels)]
    shares = [row.probabilities for row in rows]
    if None not in shares:
        names = [label_name(label) for label in output.labels]
        elements = [share.get(name, math.nan) for share in shares if share for name in names]
        tensors.append(Tensor("probabilities", "FP64", [count, len(names)], elements))
    return tensors


def _datatype(output: Output) -> str:
    return datatype_of(Field(name=output.name, kind="tensor", dtype=output.dtype, shape=()))


def _tensor(values: list[Any], output: Output) -> Tensor:
    """Flatten answers that are arrays; null stands for what JSON cannot say, not a number."""
    for _ in output.shape or ():
        values = [element for value in values for element in value]
    elements = [math.nan if element is None else element for element in values]
    count = math.prod(output.shape or ()) or 1
    shape = [len(elements) // count, *(output.shape or ())]
    return Tensor("value", _datatype(output), shape, elements)


def _parameters(revision: str, rows: list[_Prediction]) -> dict[str, str]:
    """Say as texts what has no tensor: parameters are scalars over gRPC."""
    if len(rows) == 1 and rows[0].flags is None and not rows[0].arm:
        return {"revision": revision, "prediction_ids": rows[0].id, "model": rows[0].model}
    said = {
        "revision": revision,
        "prediction_ids": ",".join([row.id for row in rows]),
        "model": _once([row.model for row in rows]),
    }
    if any(row.arm for row in rows):
        said["arm"] = _once([row.arm for row in rows])
    flags = [{"row": number} | flag for number, row in enumerate(rows) for flag in row.flags or ()]
    if flags:
        said["flags"] = msgspec.json.encode(flags).decode()
    return said


def _once(texts: list[str]) -> str:
    """Join texts by commas, one a row; a text that all rows have stands once."""
    return texts[0] if len(set(texts)) == 1 else ",".join(texts)


def _described(field: Field) -> Described:
    shape = [-1, *(field.shape or ())] if field.kind == "tensor" else [-1]
    return Described(
        field.name,
        datatype_of(field),
        shape,
        {"content_type": _KINDS.get(field.kind, "np"), "nullable": field.nullable},
    )


def _ways(signature: Signature) -> dict[str, Any]:
    """Name the ways to send rows: a column an input, or all in one tensor."""
    if not takes_matrix(signature):
        return {"content_type": "pd"}
    matrix = Described(MATRIX, "FP64", [-1, len(signature.fields)], {"content_type": "np"})
    return {"content_type": "pd", "or_one_input": matrix}


def _listed(endpoint: ServedEndpoint) -> Listed:
    state = endpoint.state
    shown = {"ready": "READY", "cold": "READY", "loading": "LOADING"}.get(state, "UNAVAILABLE")
    reason: str = "" if state == "ready" else state
    if state == "failed" and endpoint.trouble is not None:
        reason = str(endpoint.trouble)
    return Listed(endpoint.name, live_version(endpoint), shown, reason)
