"""
An endpoint as a model of the Open Inference Protocol, for REST and gRPC alike.

The inputs and outputs of the metadata follow from the endpoint's signature. The version of a
model is the number of the endpoint's live revision.

Source: Open Inference Protocol v2, and Triton's extension for model repositories.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, TypeVar

import msgspec

from clewline.errors import NotFound, NotSupported
from clewline.protocols.http.shared_answer import LARGE, SharedAnswer
from clewline.protocols.oip.body_format import MATRIX, takes_matrix
from clewline.protocols.oip.tensor_data import BYTES
from clewline.protocols.oip.tensor_reader import datatype_of
from clewline.serve.endpoint_server import EndpointServer
from clewline.serve.served_endpoint import ServedEndpoint, ServedRevision
from clewline.signature.field import Field, Output
from clewline.signature.field_rules import printable_text
from clewline.version import __version__

T = TypeVar("T")
NAME = "clewline"
SERVER_METADATA = {
    "name": NAME,
    "version": __version__,
    "extensions": ["binary_tensor_data", "model_repository", "parameters"],
}


class TensorMetadata(msgspec.Struct, omit_defaults=True):
    """A tensor as metadata describes it; -1 stands for the number of rows."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] = {}


def describe_model(serving: ServedRevision, name: str) -> dict[str, Any]:
    """Describe an endpoint that is loaded; the parameters name the one tensor for all fields."""
    signature, revision = serving.loaded.signature, serving.loaded.revision
    parameters: dict[str, Any] = {"content_type": "pd"}
    if takes_matrix(signature):
        shape = [-1, len(signature.fields)]
        parameters["or_one_input"] = TensorMetadata(MATRIX, "FP64", shape, {"content_type": "np"})
    return {
        "name": name,
        "versions": [str(revision.number)],
        "platform": NAME,
        "inputs": [_input_tensor(field) for field in signature.fields],
        "outputs": output_tensors(signature.output),
        "parameters": parameters,
    }


def output_tensors(output: Output) -> list[TensorMetadata]:
    """Describe what an endpoint answers."""
    if output.task == "tensor":
        return [TensorMetadata("value", value_datatype(output), [-1, *(output.shape or ())])]
    if output.labels is None:
        return [TensorMetadata("value", "FP64", [-1])]
    label = TensorMetadata("label", label_datatype(output.labels), [-1])
    if not output.has_probabilities:
        return [label]
    order = {"labels": msgspec.json.encode(output.labels).decode()}
    return [label, TensorMetadata("probabilities", "FP64", [-1, len(output.labels)], order)]


def value_datatype(output: Output) -> str:
    """Return the datatype of answers that are arrays."""
    return datatype_of(Field(name=output.name, kind="tensor", dtype=output.dtype, shape=()))


def label_datatype(labels: Sequence[Any]) -> str:
    """
    Return the datatype that holds labels of these types.

    >>> label_datatype([0, 1]), label_datatype(["no", "yes"]), label_datatype([False, True])
    ('INT64', 'BYTES', 'BOOL')
    """
    types = set(map(type, labels))
    if types == {bool}:
        return "BOOL"
    if types == {int} and all(-(2**63) <= label < 2**63 for label in labels):
        return "INT64"
    return "FP64" if types <= {int, float} else BYTES


def list_models(endpoints: EndpointServer, *, ready: bool) -> list[dict[str, str]]:
    """List the endpoints, or only those that answer, with states and reasons; on any thread."""
    found = []
    states = {"ready": "READY", "cold": "READY", "loading": "LOADING"}
    for endpoint in sorted(endpoints.endpoints.values(), key=attrgetter("name")):
        name, now, trouble = endpoint.name, endpoint.state, endpoint.trouble
        state = states.get(now, "UNAVAILABLE")
        reason: str = "" if now == "ready" else now
        if now == "failed" and trouble is not None:
            reason = str(trouble)
        if state == "READY" or not ready:
            version = live_version(endpoint)
            found.append({"name": name, "version": version, "state": state, "reason": reason})
    return found


def is_ready(endpoint: ServedEndpoint) -> bool:
    """Return whether an endpoint answers; a cold one does, after it is loaded."""
    return endpoint.state in ("ready", "cold")


def live_version(endpoint: ServedEndpoint) -> str:
    """Return the number of the revision that answers, or that would."""
    if (serving := endpoint.serving) is not None:
        return str(serving.loaded.revision.number)
    return str(endpoint.wanted)


def shared_lists(
    endpoints: EndpointServer, write: Callable[[list[dict[str, str]]], T]
) -> dict[bool, SharedAnswer[T]]:
    """Write `list_models` for all who ask, by whether only those are listed that answer."""

    def takes_long() -> bool:
        return len(endpoints.endpoints) > LARGE

    def make(ready: bool) -> T:
        return write(list_models(endpoints, ready=ready))

    return {
        ready: SharedAnswer(endpoints.threads, partial(make, ready), takes_long)
        for ready in (False, True)
    }


def check_version(endpoint: ServedEndpoint, version: str) -> None:
    """
    Accept a request that names no version, or the live one.

    Raises:
        NotFound: It names another; the message names the live one.
    """
    if version and version != (live := live_version(endpoint)):
        raise NotFound(
            f"{endpoint.name} has no version {printable_text(version)} here; "
            f"the live one is {live}.",
            "Name that, or none.",
        )


def check_load_parameters(parameters: Any) -> None:
    """
    Accept a request to load or unload, unless it brings a model along.

    Raises:
        NotSupported: It does.
    """
    for name in parameters if isinstance(parameters, dict) else ():
        if name == "config" or name.startswith("file:"):
            raise NotSupported(
                f"A request to load cannot bring a model's {name}.",
                "`clewline endpoints apply` makes a revision; load answers with it.",
            )


def _input_tensor(field: Field) -> TensorMetadata:
    shape = [-1, *(field.shape or ())] if field.kind == "tensor" else [-1]
    kinds = {"datetime": "datetime", "category": "str", "text": "str"}
    parameters = {"content_type": kinds.get(field.kind, "np"), "nullable": field.nullable}
    return TensorMetadata(field.name, datatype_of(field), shape, parameters)
