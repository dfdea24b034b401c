"""
One-row inference requests that look like those before, read in one go.

Callers send the same tensors again and again. For JSON, msgspec gets a type of names, datatypes,
shapes and values, so that it checks all of them while it reads; for a header before raw data,
the key is its very bytes. What is not exactly like it, or not plainly right, is left to the
reader of any request. Worth its lines: such a request takes half the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta

from clewline.protocols.oip.infer_request import ParsedInferRequest
from clewline.protocols.oip.tensor_reader import UNSURE, TensorReader

HEADERS = 512
"""Headers of one signature that are remembered …"""
HEADER_BYTES = 4096
"""… none longer than this."""
MISSES = 32
"""After so many requests in a row that look otherwise, the next is taken as the usual one;
each time twice as many, since a type takes as long to make as many requests to read."""
FIELDS = 500
"""No type is made for more fields."""

Readers = list[tuple[int, TensorReader]]
"""The place of each field's tensor in the request, in the order of a row."""
RowReader = Callable[[bytes], list[Any] | None]


class OneRowReader:
    """Remembers how the requests of one signature look."""

    def __init__(self) -> None:
        self._headers: dict[bytes, RowReader] = {}
        self._read_json: RowReader | None = None
        self._misses = self._patience = 0

    def read(self, body: bytes, json_bytes: int | None) -> list[Any] | None:
        """Return the values of the row in its order; None if the request does not look usual."""
        if json_bytes is not None:
            read = self._headers.get(body[:json_bytes]) if json_bytes <= HEADER_BYTES else None
            return None if read is None else read(body)
        if self._read_json is not None and (values := self._read_json(body)) is not None:
            self._misses = 0
            return values
        self._misses += 1
        return None

    def learn(self, readers: Readers, parsed: ParsedInferRequest, json_bytes: int | None) -> None:
        """Remember how a one-row request looks that has a tensor for each field."""
        if any(reader.is_tensor for _, reader in readers):
            return
        if json_bytes is None:
            if self._misses >= self._patience and len(readers) <= FIELDS:
                self._misses, self._patience = 0, max(MISSES, 2 * self._patience)
                self._read_json = _json_reader(readers, parsed)
        elif json_bytes <= HEADER_BYTES and None not in parsed.spans:
            if len(self._headers) >= HEADERS:
                self._headers.clear()
            self._headers[parsed.body[:json_bytes]] = _raw_reader(readers, parsed)


def _raw_reader(readers: Readers, parsed: ParsedInferRequest) -> RowReader:
    """Make the reader of bodies with the same header."""
    end = len(parsed.body)
    spans = [(reader.raw_one, parsed.spans[place]) for place, reader in readers]
    fields = [(raw_one, *span) for raw_one, span in spans if span is not None]

    def read(body: bytes) -> list[Any] | None:
        if len(body) != end:
            return None
        values = [raw_one(body, start, end) for raw_one, start, end in fields]
        for value in values:
            if value is UNSURE:
                return None
        return values

    return read


def _json_reader(readers: Readers, parsed: ParsedInferRequest) -> RowReader | None:
    """Make the reader of JSON that looks like this; None if no type can hold all its rules."""
    inputs, types = parsed.request.inputs, []
    by_place = dict(readers)
    for place, each in enumerate(inputs):
        element = _element_type(by_place[place])
        if element is None or each.parameters or each.data is UNSET:
            return None
        one: Any = Literal[1]
        fields = [
            ("name", Literal[each.name]),
            ("shape", tuple[one] if len(each.shape) == 1 else tuple[one, one]),
            ("datatype", Literal[each.datatype]),
            ("data", tuple[element]),  # type: ignore[valid-type]
        ]
        types.append(msgspec.defstruct("UsualInput", fields, gc=False, forbid_unknown_fields=True))
    request = msgspec.defstruct(
        "UsualRequest",
        [("inputs", tuple[tuple(types)]), ("id", str | None, None)],  # type: ignore[misc]
        gc=False,
        forbid_unknown_fields=True,
    )
    decode: Callable[[bytes], Any] = msgspec.json.Decoder(request).decode
    keys = 1 + 4 * len(inputs)  # msgspec takes a repeated one without a word
    order = [place for place, _ in readers]
    has_whole = any(reader.plain == "whole" for _, reader in readers)

    def read(body: bytes) -> list[Any] | None:
        count = body.count(b'":')
        if count - keys not in (0, 1) or (has_whole and b"-0" in body):
            return None  # an integer has no -0.0
        try:
            found = decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if count != keys + (found.id is not None):
            return None
        tensors = found.inputs
        return [tensors[place].data[0] for place in order]

    return read


def _element_type(reader: TensorReader) -> Any:
    """Return the type of an element that holds the whole rule of its field; None if none does."""
    low, high = reader.limits
    match reader.plain:
        case "text" if reader.levels != ():
            element: Any = str if reader.levels is None else Literal[reader.levels]
        case "float":
            element = Annotated[float, Meta(ge=low, le=high)]
        case "whole":
            element = Annotated[float, Meta(ge=low, le=high, multiple_of=1.0)]
        case _:
            return None
    return element | None if reader.field.nullable else element
