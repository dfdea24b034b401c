"""
The JSON of an inference request: one quick msgspec pass, and an exact one where that is not sure.

After the JSON may follow raw tensors, one for each input that says
`binary_data_size`, in the order of the inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import UNSET, Meta

from clewline.errors import MalformedInput
from clewline.signature import json_rows
from clewline.signature.json_rows import JsonObject

SHAPE = 'Send {"inputs": [{"name": …, "shape": […], "datatype": …, "data": […]}, …]}.'
SIZE = "binary_data_size"
Parameters = dict[str, Any]


class Input(msgspec.Struct, gc=False):
    """One input tensor; its data is here, or raw behind the JSON."""

    name: str
    shape: list[Annotated[int, Meta(ge=0)]]
    datatype: str
    parameters: Parameters | None = None
    data: Any = UNSET


class Output(msgspec.Struct, gc=False):
    """One output tensor that is asked for."""

    name: str
    parameters: Parameters | None = None


class Request(msgspec.Struct, gc=False):
    """An inference request."""

    inputs: list[Input]
    id: str | None = None
    parameters: Parameters | None = None
    outputs: list[Output] | None = None


class Whole(NamedTuple):
    """A request, and for each input where its raw data lies in the body; None where it has none."""

    request: Request
    body: bytes
    places: list[tuple[int, int] | None]


_decode = msgspec.json.Decoder(Request).decode


def quick(body: bytes, header_bytes: int | None) -> Whole | None:
    """
    Read a request in one pass; None when that refuses or cannot be sure.

    Args:
        body: The JSON, and raw data behind it.
        header_bytes: The length of the JSON; None when it is all of the body.
    """
    header = body if header_bytes is None else body[:header_bytes]
    try:
        request = _decode(header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    # msgspec keeps the last of repeated keys without a word, so the keys are counted.
    inputs = request.inputs
    datas = [each.data for each in inputs]
    raws = datas.count(UNSET)
    if header.count(b'":') != _keys(request) + 4 * len(inputs) - raws or _has_far_colons(header):
        return None
    if not raws and header_bytes is None:
        return Whole(request, body, [None] * len(inputs))
    return Whole(request, body, places(inputs, len(header), len(body)))


def exact(body: bytes, header_bytes: int | None) -> Whole:
    """
    Read a request key by key; otherwise as `quick`.

    Numbers in its data are as `clewline.signature.json_rows.parse_exactly` gives them.

    Raises:
        MalformedInput: It is not what a request is; says where.
    """
    header = body if header_bytes is None else body[:header_bytes]
    document = _plain(json_rows.parse_exactly(header))
    try:
        request = msgspec.convert(document, Request)
    except msgspec.ValidationError as error:
        raise MalformedInput(f"The body is no inference request: {error}.", SHAPE) from error
    return Whole(request, body, places(request.inputs, len(header), len(body)))


def header_length(detail: str, body: bytes) -> int:
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


def places(inputs: Sequence[Input], start: int, end: int) -> list[tuple[int, int] | None]:
    """
    Find where the raw data of each input lies.

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
        else:
            raise _no_data(each.name, size)
    if place != end:
        raise MalformedInput(
            f"{end - start} bytes follow the JSON, and the inputs name {place - start}.",
            f"{SIZE} of the inputs, in their order, must add up to what follows.",
        )
    return found


def _no_data(name: str, size: Any) -> MalformedInput:
    if size is None:
        return MalformedInput(f"The input {name[:200]!r} has no data.", SHAPE)
    return MalformedInput(
        f"The input {name[:200]!r} has data beside {SIZE}, or that is no length.",
        f"Send data, or {SIZE} and so many bytes behind the JSON.",
    )


def _keys(request: Request) -> int:
    """Count the keys around the tensors when none is repeated and none unknown."""
    count = 1 + (request.id is not None)
    for each in request.inputs:
        if each.parameters is not None:
            count += 1 + len(each.parameters)
    if request.parameters is not None:
        count += 1 + len(request.parameters)
    for output in request.outputs or ():
        count += 1 if output.parameters is None else 2 + len(output.parameters)
    return count + (request.outputs is not None)


def _has_far_colons(header: bytes) -> bool:
    """Tell whether a colon may stand behind its key with space between, which is not counted."""
    if header.count(b":") == header.count(b'":'):
        return False
    return any(colon in header for colon in (b" :", b"\t:", b"\n:", b"\r:"))


def _plain(value: Any) -> Any:
    """
    Turn parsed objects into dictionaries.

    Raises:
        MalformedInput: A key stands in one twice.
    """
    if isinstance(value, JsonObject):
        plain = {key: _plain(item) for key, item in value}
        if len(plain) < len(value):
            keys = [key for key, _ in value]
            twice = next(key for key in plain if keys.count(key) > 1)
            raise MalformedInput(f"The key {twice[:200]!r} stands twice in one object.", SHAPE)
        return plain
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
