"""
The elements of a tensor in the Open Inference Protocol: datatypes, JSON data and raw bytes.

Raw data is little-endian, row by row, without padding. A raw element of BYTES is its length
in four bytes and then itself.

Source: Open Inference Protocol v2 and its extension for binary tensor data.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

BYTES = "BYTES"
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("u1"),  # 0 and 1; other bytes are refused, which `?` would take for true
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
"""Datatype → numpy's type of its raw bytes; BYTES has no fixed size."""
DATATYPES = (*DTYPES, BYTES)
FLOATS = ("FP16", "FP32", "FP64")
INTEGERS = tuple(name for name in DTYPES if "INT" in name)

_length_at = struct.Struct("<I").unpack_from
# Not numpy's own letters: its `l` has 8 bytes where that of `struct` has 4.
_STRUCTS = {
    name: struct.Struct(f"<{letter}") for name, letter in zip(DTYPES, "BBHIQbhiqefd", strict=True)
}


class TensorMismatch(Exception):
    """Data is not what the datatype and the shape of its tensor say."""

    def __init__(self, found: Any, expected: str) -> None:
        super().__init__(found, expected)
        self.found, self.expected = found, expected


def datatype_of_dtype(dtype: str) -> str:
    """
    Return the datatype of a numpy dtype.

    >>> datatype_of_dtype("float32"), datatype_of_dtype("bool")
    ('FP32', 'BOOL')
    """
    if dtype == "bool":
        return "BOOL"
    return next(name for name in DTYPES if name != "BOOL" and DTYPES[name] == np.dtype(dtype))


def flat_elements(data: Any, shape: Sequence[int]) -> list[Any]:
    """
    Return the elements of JSON data row by row, whether it is flat or nested as its shape says.

    Raises:
        TensorMismatch: The data is neither.
    """
    if not isinstance(data, list):
        raise TensorMismatch(data, "an array")
    if not any(isinstance(element, list) for element in data):
        if len(data) != (size := prod(shape)):
            found = f"{len(data)} elements"
            raise TensorMismatch(found, f"{size} elements for the shape {list(shape)}")
        return data
    nested, level = f"nested as the shape {list(shape)} says", [data]
    for length in shape:
        for each in level:
            if not isinstance(each, list) or len(each) != length:
                found = f"an array of {len(each)}" if isinstance(each, list) else each
                raise TensorMismatch(found, nested)
        level = [item for each in level for item in each]
    if any(isinstance(item, list) for item in level):
        raise TensorMismatch("deeper arrays", nested)
    return level


def raw_array(body: bytes, span: tuple[int, int], datatype: str, size: int) -> NDArray[Any]:
    """
    Return the raw numbers or booleans in a part of a body, shape (size,).

    Raises:
        TensorMismatch: The part has more or fewer bytes than they take.
    """
    (start, end), dtype = span, DTYPES[datatype]
    if end - start != (wanted := size * dtype.itemsize):
        expected = f"{wanted} bytes for {size} elements of {datatype}"
        raise TensorMismatch(f"{end - start} bytes", expected)
    return np.frombuffer(body, dtype, size, start)


def values_of(elements: list[Any] | NDArray[Any], datatype: str) -> list[Any]:
    """Return raw elements as Python values; a boolean other than 0 and 1 stays a number."""
    if isinstance(elements, list):
        return elements
    values: list[Any] = elements.tolist()
    if datatype == "BOOL":
        return [bool(value) if value <= 1 else value for value in values]
    return values


def raw_strings(body: bytes, span: tuple[int, int], size: int) -> list[bytes]:
    """
    Return the raw elements of BYTES in a part of a body.

    Raises:
        TensorMismatch: Their lengths and their number do not fill the part.
    """
    (place, end), elements = span, list[bytes]()
    while len(elements) < size and place + 4 <= end:
        first = place + 4
        place = first + _length_at(body, place)[0]
        elements.append(body[first:place])
    if place != end or len(elements) != size:
        found = f"{end - span[0]} bytes, which do not hold them"
        raise TensorMismatch(found, f"{size} elements, each after its size")
    return elements


def pack_strings(elements: Sequence[bytes]) -> bytes:
    """Write elements of BYTES raw."""
    return b"".join([part for each in elements for part in (struct.pack("<I", len(each)), each)])


def one_element_reader(
    datatype: str, then: Callable[[Any], Any], otherwise: Any
) -> Callable[[bytes, int, int], Any]:
    """
    Make the reader of a single raw element between two places of a body.

    Args:
        datatype: The datatype of the element; BYTES is read as UTF-8.
        then: Called with the value; the reader returns its result.
        otherwise: What the reader returns if the bytes are not exactly one such element.
    """
    if datatype == BYTES:

        def read(body: bytes, start: int, end: int) -> Any:
            first = start + 4
            if first > end or _length_at(body, start)[0] != end - first:
                return otherwise
            try:
                return then(body[first:end].decode())
            except UnicodeDecodeError:
                return otherwise

    else:
        form, is_bool = _STRUCTS[datatype], datatype == "BOOL"
        unpack, size = form.unpack_from, form.size

        def read(body: bytes, start: int, end: int) -> Any:
            if end - start != size:
                return otherwise
            (value,) = unpack(body, start)
            if is_bool:
                return then(value == 1) if value <= 1 else otherwise
            return then(value)

    return read


def element_caster(datatype: str) -> Callable[[Any], Any]:
    """
    Make the function from a JSON element to what a numeric datatype or BOOL holds for it.

    It returns a `TensorMismatch` for other elements. An integer stays exact; a number with a
    fraction is rounded to the floats of the datatype, as it would be if it came raw.
    """
    if datatype == "BOOL":
        expected = "true or false"
        return lambda value: value if type(value) is bool else TensorMismatch(value, expected)
    if datatype in FLOATS:
        return _float_caster(datatype)
    limits = np.iinfo(DTYPES[datatype])
    low, high = int(limits.min), int(limits.max)
    expected = f"an integer in [{low}, {high}], as {datatype} has"

    def cast(value: Any) -> Any:
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is not int or not low <= value <= high:
            return TensorMismatch(value, expected)
        return value

    return cast


def _float_caster(datatype: str) -> Callable[[Any], Any]:
    form = _STRUCTS[datatype]

    def cast(value: Any) -> Any:
        if type(value) not in (int, float):
            return TensorMismatch(value, "a number")
        if datatype == "FP64":
            return value
        try:
            rounded = form.unpack(form.pack(value))[0]
        except (OverflowError, struct.error):
            return TensorMismatch(value, f"a number that {datatype} holds")
        if type(value) is int and rounded != value:
            return TensorMismatch(value, f"an integer that {datatype} holds without rounding it")
        return rounded

    return cast
