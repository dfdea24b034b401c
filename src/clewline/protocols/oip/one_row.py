"""
Inference requests of one row that look like those before, read in one go.

Callers send the same tensors again and again. Of JSON the looks become a type,
so that msgspec checks names, datatypes, shapes and values while it reads; of a
header before raw data they are its very bytes. What is not exactly like it, or
not plainly right, is left to the readers of any request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta

from clewline.protocols.oip.infer_request import Whole
from clewline.protocols.oip.tensor_data import BYTES, FLOATS
from clewline.protocols.oip.tensor_reader import UNSURE, Column

HEADERS = 512
"""Headers of one signature that are remembered …"""
HEADER_BYTES = 4096
"""… none longer than this."""
MISSES = 32
"""After so many requests in a row that look otherwise, the next is taken for the usual one;
each time twice as many, since a type takes as long to make as many requests to read."""
FIELDS = 500
"""Of more fields no type is made."""

Columns = list[tuple[int, Column]]
"""The place of each field's tensor in the request, in the order of a row."""
Values = list[Any]


class Usual:
    """Remembers how the requests of one signature look."""

    def __init__(self) -> None:
        self._headers: dict[bytes, _Header] = {}
        self._read_json: Callable[[bytes], Values | None] | None = None
        self._misses = self._patience = 0

    def read(self, body: bytes, header_bytes: int | None) -> Values | None:
        """Give the values of the row, in its order; None where a request does not look usual."""
        if header_bytes is None:
            return self._of_json(body)
        if header_bytes > HEADER_BYTES:
            return None
        header = self._headers.get(body[:header_bytes])
        return None if header is None else header.read(body)

    def learn(self, columns: Columns, whole: Whole, header_bytes: int | None) -> None:
        """Remember how a request of one row looks that was read; every field has its tensor."""
        if header_bytes is not None:
            self._learn_header(columns, whole, header_bytes)
        elif self._misses >= self._patience and len(columns) <= FIELDS:
            self._misses, self._patience = 0, max(MISSES, 2 * self._patience)
            self._read_json = _json_reader(columns, whole)

    def _of_json(self, body: bytes) -> Values | None:
        if self._read_json is not None and (values := self._read_json(body)) is not None:
            self._misses = 0
            return values
        self._misses += 1
        return None

    def _learn_header(self, columns: Columns, whole: Whole, header_bytes: int) -> None:
        if header_bytes > HEADER_BYTES or None in whole.places:
            return
        if len(self._headers) >= HEADERS:
            self._headers.clear()
        header = whole.body[:header_bytes]
        self._headers[header] = _Header(columns, whole)


class _Header:
    """Where the raw data of each field lies behind a header."""

    __slots__ = ("_end", "_fields")

    def __init__(self, columns: Columns, whole: Whole) -> None:
        self._end = len(whole.body)
        places = [(column.raw_one, whole.places[place]) for place, column in columns]
        self._fields = [(raw_one, *place) for raw_one, place in places if place is not None]

    def read(self, body: bytes) -> Values | None:
        if len(body) != self._end:
            return None
        values = [raw_one(body, start, end) for raw_one, start, end in self._fields]
        for value in values:
            if value is UNSURE:
                return None
        return values


def _json_reader(columns: Columns, whole: Whole) -> Callable[[bytes], Values | None] | None:
    """Make the reader of JSON that looks like this; None where no type can say it all."""
    inputs = whole.request.inputs
    by_place = dict(columns)
    if any(each.parameters or each.data is UNSET for each in inputs):
        return None
    types = [_types(by_place[place], each.shape) for place, each in enumerate(inputs)]
    if None in types:
        return None
    named = [
        _input(each.name, each.datatype, *kinds)
        for each, kinds in zip(inputs, types, strict=True)
        if kinds is not None
    ]
    request = msgspec.defstruct(
        "UsualRequest",
        [("inputs", tuple[tuple(named)])],  # type: ignore[misc]
        gc=False,
        forbid_unknown_fields=True,
    )
    decode: Callable[[bytes], Any] = msgspec.json.Decoder(request).decode
    keys = 1 + 4 * len(inputs)  # a repeated one is taken by msgspec without a word
    order = [place for place, _ in columns]
    has_whole = any(_is_whole(column) for _, column in columns)

    def read(body: bytes) -> Values | None:
        if body.count(b'":') != keys:
            return None
        if has_whole and b"-0" in body:  # -0.0, which as an integer has no sign
            return None
        try:
            found = decode(body).inputs
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return [found[place].data[0] for place in order]

    return read


def _input(name: str, datatype: str, shape: Any, data: Any) -> Any:
    return msgspec.defstruct(
        "UsualInput",
        [
            ("name", Literal[name]),
            ("shape", shape),
            ("datatype", Literal[datatype]),
            ("data", data),
        ],
        gc=False,
        forbid_unknown_fields=True,
    )


def _types(column: Column, shape: list[int]) -> tuple[Any, Any] | None:
    """Give the types of a tensor's shape and data where they say all that the field's rule says."""
    element = _element(column)
    if element is None:
        return None
    one = Literal[1]
    shapes = tuple[one] if len(shape) == 1 else tuple[one, one]
    data = element | None if column.field.nullable else element
    return shapes, tuple[data]  # type: ignore[valid-type]


def _element(column: Column) -> Any:
    kind = column.field.kind
    if column.datatype == BYTES:
        if not column.plain_text or kind == "datetime":
            return None
        levels = column.levels
        return str if levels is None else Literal[levels] if levels else None
    if kind not in ("number", "integer"):
        return None
    low, high = column.limits
    if column.datatype == "FP64" and kind == "number":
        return Annotated[float, Meta(ge=low, le=high)]
    if not _is_whole(column):
        return None
    return Annotated[float, Meta(ge=low, le=high, multiple_of=1.0)]


def _is_whole(column: Column) -> bool:
    return column.datatype not in (*FLOATS, BYTES, "BOOL")
