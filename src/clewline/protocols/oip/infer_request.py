"""
The JSON of an inference request: one quick msgspec pass, and an exact one where that is not sure.

Raw tensors may follow the JSON, one for each input that says `binary_data_size`, in the order
of the inputs.

Source: Open Inference Protocol v2 and its extension for binary tensor data.
"""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import UNSET, Meta

from clewline.errors import BodyTooLarge, MalformedInput
from clewline.serve.formats.body_format import require_few_values
from clewline.serve.formats.columns import first_repeated
from clewline.signature.json_rows import JsonObject, parse_exactly

SHAPE = 'Send {"inputs": [{"name": …, "shape": […], "datatype": …, "data": […]}, …]}.'
SIZE = "binary_data_size"
MOST_INPUTS = 16_384
"""Inputs of one request: as many as a CSV may have columns."""
MOST_KEYS = 8 * MOST_INPUTS
"""Keys of one request: four for each input, and as many for its parameters."""
MOST_PARAMETERS = 1024
"""Parameters of a request, an input or an output."""
Parameters = dict[str, Any]


class InferInput(msgspec.Struct, gc=False):
    """One input tensor; its data is here, or raw behind the JSON."""

    name: str
    shape: list[Annotated[int, Meta(ge=0)]]
    datatype: str
    parameters: Parameters | None = None
    data: Any = UNSET


class RequestedOutput(msgspec.Struct, gc=False):
    """One output tensor that a request names."""

    name: str
    parameters: Parameters | None = None


class InferOptions(msgspec.Struct, gc=False, kw_only=True):
    """What a request asks for beside its rows."""

    id: str | None = None
    parameters: Parameters | None = None
    outputs: list[RequestedOutput] | None = None


class InferRequest(InferOptions, gc=False, kw_only=True):
    """An inference request."""

    inputs: list[InferInput]


class ParsedInferRequest(NamedTuple):
    """A request, its body, and the part of the body that holds the raw data of each input."""

    request: InferRequest
    body: bytes
    spans: list[tuple[int, int] | None]  # None for an input with JSON data


_decode = msgspec.json.Decoder(InferRequest).decode
_decode_options = msgspec.json.Decoder(InferOptions).decode


def decode_quickly(body: bytes, json_bytes: int | None) -> ParsedInferRequest | None:
    """
    Read a request in one pass; return None if that refuses it or cannot be sure.

    Args:
        body: The JSON, and raw data behind it.
        json_bytes: The length of the JSON; None if the whole body is JSON.

    Raises:
        BodyTooLarge: It has more values, keys, inputs or parameters than one request may have.
        MalformedInput: The raw data is more or less than the inputs say.
    """
    text = _json_part(body, json_bytes)
    try:
        request = _decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    # msgspec keeps the last of repeated keys without a word, so the keys are counted. A colon
    # that stands apart from its key is not counted.
    inputs = request.inputs
    raws = [each.data for each in inputs].count(UNSET)
    colons = text.count(b'":')
    if colons != _count_keys(request) + 4 * len(inputs) - raws or (
        text.count(b":") != colons
        and any(colon in text for colon in (b" :", b"\t:", b"\n:", b"\r:"))
    ):
        return None
    if not raws and json_bytes is None:
        return ParsedInferRequest(_checked(request), body, [None] * len(inputs))
    return ParsedInferRequest(_checked(request), body, raw_spans(inputs, len(text), len(body)))


def decode_exactly(body: bytes, json_bytes: int | None) -> ParsedInferRequest:
    """
    Read a request key by key; otherwise as `decode_quickly`.

    Numbers in its data are as `clewline.signature.json_rows.parse_exactly` returns them.

    Raises:
        BodyTooLarge: As `decode_quickly`.
        MalformedInput: It is no inference request; says where.
    """
    text = _json_part(body, json_bytes)
    try:
        request = msgspec.convert(_plain(parse_exactly(text)), InferRequest)
    except msgspec.ValidationError as error:
        raise MalformedInput(f"The body is not an inference request: {error}.", SHAPE) from error
    return ParsedInferRequest(
        _checked(request), body, raw_spans(request.inputs, len(text), len(body))
    )


def decode_options(body: bytes, json_bytes: int | None) -> InferOptions:
    """
    Read what a request asks for beside its rows.

    Raises:
        BodyTooLarge, MalformedInput: As `decode_exactly`.
    """
    try:
        return _decode_options(_json_part(body, json_bytes))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return decode_exactly(body, json_bytes).request


def json_length(detail: str, body: bytes) -> int:
    """
    Read the length of the JSON before raw data.

    Raises:
        MalformedInput: It is no length, or longer than the body.
    """
    if not (detail.isascii() and detail.isdigit() and len(detail) < 12) or int(detail) > len(body):
        raise MalformedInput(
            f"Inference-Header-Content-Length is {detail[:50]!r} in a body of {len(body)} bytes.",
            "Send the length of the JSON that stands before the raw data.",
        )
    return int(detail)


def raw_spans(inputs: Sequence[InferInput], start: int, end: int) -> list[tuple[int, int] | None]:
    """
    Find the part of the body that holds the raw data of each input.

    Raises:
        MalformedInput: An input has two kinds of data or none, or there is more or less of it.
    """
    found: list[tuple[int, int] | None] = []
    place = start
    for each in inputs:
        size = each.parameters.get(SIZE) if each.parameters else None
        if type(size) is int and size >= 0 and each.data is UNSET:
            found.append((place, place + size))
            place += size
        elif size is None and each.data is not UNSET:
            found.append(None)
        elif size is None:
            raise MalformedInput(f"The input {each.name[:200]!r} has no data.", SHAPE)
        else:
            raise MalformedInput(
                f"The input {each.name[:200]!r} has data beside {SIZE}, or {SIZE} is not a length.",
                f"Send data, or {SIZE} and so many bytes behind the JSON.",
            )
    if place != end:
        raise MalformedInput(
            f"{end - start} bytes follow the JSON, and the inputs name {place - start}.",
            f"{SIZE} of the inputs, in their order, must add up to what follows.",
        )
    return found


def too_many_inputs(count: int) -> BodyTooLarge:
    """Return the error for a request of more than `MOST_INPUTS` inputs."""
    return BodyTooLarge(
        f"The request has {count} inputs, and may have {MOST_INPUTS}.", "Send fewer inputs."
    )


def _json_part(body: bytes, json_bytes: int | None) -> bytes:
    text = body if json_bytes is None else body[:json_bytes]
    require_few_values(text)
    if len(text) > 4 * MOST_KEYS and (keys := _count_quoted_keys(text)) > MOST_KEYS:
        raise BodyTooLarge(f"The JSON has {keys} keys; the limit is {MOST_KEYS}.", "Send fewer.")
    return text


def _count_quoted_keys(text: bytes) -> int:
    """Count the quotes before a colon; within a string each stands behind a backslash."""
    close = text.translate(None, b" \t\r\n")
    return close.count(b'":') - close.count(b'\\":')


def _checked(request: InferRequest) -> InferRequest:
    if len(request.inputs) > MOST_INPUTS:
        raise too_many_inputs(len(request.inputs))
    for each in (request, *request.inputs, *(request.outputs or ())):
        require_few_parameters(each.parameters)
    return request


def require_few_parameters(parameters: Sized | None) -> None:
    """Raise BodyTooLarge if there are more than `MOST_PARAMETERS`."""
    if parameters is not None and len(parameters) > MOST_PARAMETERS:
        raise BodyTooLarge(f"There are more than {MOST_PARAMETERS} parameters.", "Send fewer.")


def _count_keys(request: InferRequest) -> int:
    """Count the keys around the tensors if none is repeated and none unknown."""
    outputs = request.outputs or ()
    count = 1 + (request.id is not None) + (request.outputs is not None) + len(outputs)
    for each in (request, *request.inputs, *outputs):
        if each.parameters is not None:
            count += 1 + len(each.parameters)
    return count


def _plain(value: Any) -> Any:
    """
    Turn parsed objects into dictionaries.

    Raises:
        MalformedInput: A key stands in one object twice.
    """
    if isinstance(value, JsonObject):
        if (twice := first_repeated(key for key, _ in value)) is not None:
            raise MalformedInput(f"The key {twice[:200]!r} stands twice in one object.", SHAPE)
        return {key: _plain(item) for key, item in value}
    if isinstance(value, list):
        return [_plain(item) if isinstance(item, list | tuple) else item for item in value]
    return value
