"""
From the answer of an endpoint to the tensors that a request asked for, for REST and gRPC alike.

A classifier answers `label` and `probabilities`, a regressor or a model of arrays `value`; ids
and the rest are parameters. An element of an array that is not finite is NaN in a tensor, null in
JSON.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import msgspec
import numpy as np

from clewline.errors import BadRequest, Fault, InvalidInput, NotSupported
from clewline.protocols.http.request_headers import checked_key, deadline_in
from clewline.protocols.oip.infer_request import InferOptions
from clewline.protocols.oip.model_metadata import label_datatype, output_tensors, value_datatype
from clewline.protocols.oip.tensor_data import BYTES, DTYPES, pack_strings
from clewline.serve.request.predict_request import PredictRequest, PredictResponse
from clewline.signature.field import Output, label_name
from clewline.signature.field_rules import printable_text
from clewline.signature.json_rows import NameSuggestions

LARGE_ROWS = 256
"""An answer of more rows is written on a thread; below, it takes under a millisecond."""


class OutputTensor(msgspec.Struct, gc=False):
    """An output: its elements row by row, of the type that its datatype has."""

    name: str
    datatype: str
    shape: list[int]
    elements: list[Any]

    def raw(self) -> bytes:
        """Return the elements as raw bytes."""
        if self.datatype == BYTES:
            return pack_strings([str(element).encode() for element in self.elements])
        if self.datatype == "FP64":  # a few of them: numpy takes three times as long
            return struct.pack(f"<{len(self.elements)}d", *self.elements)
        return np.array(self.elements, DTYPES[self.datatype]).tobytes()


class InferResponse(msgspec.Struct, gc=False):
    """An answer as the protocol gives it."""

    model_version: str
    parameters: dict[str, str]
    tensors: list[OutputTensor]


class _Prediction(msgspec.Struct, gc=False):
    id: str
    model: str = ""
    arm: str = ""
    label: Any = None
    value: Any = msgspec.UNSET  # a number, or nested lists of them
    probabilities: dict[str, float] | None = None
    set: msgspec.Raw = msgspec.Raw()
    interval: msgspec.Raw = msgspec.Raw()
    flags: list[dict[str, Any]] | None = None


_decode = msgspec.json.Decoder(list[_Prediction]).decode


def check_outputs(options: InferOptions, output: Output) -> None:
    """
    Accept a request that names only outputs which the endpoint has.

    Raises:
        InvalidInput: It names another; the message suggests the nearest.
        NotSupported: It asks for classification, or for shared memory.
    """
    if not options.outputs:
        return
    names = [tensor.name for tensor in output_tensors(output)]
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


def apply_parameters(predict_request: PredictRequest, options: InferOptions) -> None:
    """
    Add the idempotency key and the timeout among a request's parameters to what is asked.

    Raises:
        BadRequest: They are not right.
    """
    if not options.parameters:  # nearly always
        return
    parameters = options.parameters
    key = parameters.get("idempotency_key")
    if predict_request.key is None and key is not None:
        if not isinstance(key, str):
            raise BadRequest("idempotency_key is not a string.", "Send a string.")
        predict_request.key = checked_key(key)
    for name, unit_ms in (("timeout", 1e-3), ("timeout_ms", 1.0)):
        wait = parameters.get(name)
        if isinstance(wait, bool) or not isinstance(wait, int | float | str | None):
            raise BadRequest(f"{name} is not a number.", "Send a number above 0, or leave it out.")
        if wait:  # Triton's clients send 0 for none
            predict_request.deadline = min(predict_request.deadline, deadline_in(wait, unit_ms))


def infer_response(answer: PredictResponse, output: Output, options: InferOptions) -> InferResponse:
    """
    Turn an answer into the tensors that were asked for.

    Raises:
        Fault: A prediction is not what the output says.
    """
    rows = _decode(b"[" + b",".join(answer.predictions) + b"]")
    tensors = (_value_tensors if output.labels is None else _label_tensors)(rows, output)
    if options.outputs:
        by_name = {tensor.name: tensor for tensor in tensors}
        tensors = [by_name[wanted.name] for wanted in options.outputs if wanted.name in by_name]
    # What has no tensor stands in strings: parameters are scalars over gRPC.
    parameters = {"revision": answer.revision, "prediction_ids": ",".join([row.id for row in rows])}
    for key in ("model", "arm"):
        texts = [getattr(row, key) for row in rows]
        if key == "model" or any(texts):  # a string that all rows have stands once
            parameters[key] = texts[0] if len(set(texts)) == 1 else ",".join(texts)
    for key in ("set", "interval"):  # a JSON array of one for each row
        found = [bytes(getattr(row, key)) for row in rows]
        if all(found):
            parameters[f"{key}s"] = f"[{b','.join(found).decode()}]"
    flags = [{"row": number} | flag for number, row in enumerate(rows) for flag in row.flags or ()]
    if flags:
        parameters["flags"] = msgspec.json.encode(flags).decode()
    return InferResponse(answer.revision.rpartition("#")[2], parameters, tensors)


def _value_tensors(rows: list[_Prediction], output: Output) -> list[OutputTensor]:
    elements = [row.value for row in rows]
    if msgspec.UNSET in elements:
        raise Fault("A prediction has no value.", "The server's log has it.")
    datatype, shape = "FP64", [len(rows)]
    if output.task == "tensor":
        datatype, shape = value_datatype(output), [len(rows), *(output.shape or ())]
        for _ in output.shape or ():
            elements = [element for each in elements for element in each]
    numbers = [math.nan if each is None else each for each in elements]
    return [OutputTensor("value", datatype, shape, numbers)]


def _label_tensors(rows: list[_Prediction], output: Output) -> list[OutputTensor]:
    assert output.labels is not None
    labels, datatype = [row.label for row in rows], label_datatype(output.labels)
    if datatype == BYTES:
        labels = [label_name(label) for label in labels]
    tensors = [OutputTensor("label", datatype, [len(rows)], labels)]
    shares = [row.probabilities for row in rows]
    if None not in shares:
        names = [label_name(label) for label in output.labels]
        elements = [share[name] for share in shares if share for name in names]
        shape = [len(rows), len(names)]
        tensors.append(OutputTensor("probabilities", "FP64", shape, elements))
    return tensors
