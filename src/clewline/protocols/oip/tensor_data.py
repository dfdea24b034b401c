"""
Tensors as the Open Inference Protocol says them: datatypes, JSON data, raw bytes.

Raw data is little-endian, row by row, without padding; an element of BYTES is
its length in four bytes and then itself.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

BYTES = "BYTES"
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("u1"),  # 0 and 1; another byte is refused, which `?` would take for true
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
"""Datatype → how numpy reads its raw bytes; BYTES beside them has no fixed size."""
DATATYPES = (*DTYPES, BYTES)
FLOATS = ("FP16", "FP32", "FP64")
NUMBERS = tuple(name for name in DTYPES if name != "BOOL")

_OF_DTYPE = {np.dtype(dtype): name for name, dtype in DTYPES.items() if name != "BOOL"}
_LENGTH = struct.Struct("<I")
_length_at = _LENGTH.unpack_from
# Not numpy's own letters: its `l` has 8 bytes where that of `struct` has 4.
_LETTERS = dict(zip(DTYPES, "BBHIQbhiqefd", strict=True))
_STRUCTS = {name: struct.Struct(f"<{letter}") for name, letter in _LETTERS.items()}


class Misfit(Exception):
    """Data that is not what its tensor's datatype and shape say; says what was expected."""

    def __init__(self, found: Any, expected: str) -> None:
        super().__init__(found, expected)
        self.found, self.expected = found, expected


def datatype_of(dtype: str) -> str:
    """
    Name the datatype of a numpy dtype.

    >>> datatype_of("float32"), datatype_of("bool")
    ('FP32', 'BOOL')
    """
    return "BOOL" if dtype == "bool" else _OF_DTYPE[np.dtype(dtype)]


def size_of(shape: Sequence[int]) -> int:
    """Count the elements of a shape."""
    return prod(shape)


def flat(data: Any, shape: Sequence[int]) -> list[Any]:
    """
    Give the elements of JSON data row by row; it may be flat already, or nested as its shape says.

    Raises:
        Misfit: It is neither.
    """
    if not isinstance(data, list):
        raise Misfit(data, "an array")
    size = size_of(shape)
    if not any(isinstance(element, list) for element in data):
        if len(data) != size:
            raise Misfit(f"{len(data)} elements", f"{size} elements for the shape {list(shape)}")
        return data
    elements = list(_nested(data, shape, shape))
    assert len(elements) == size
    return elements


def _nested(data: Any, shape: Sequence[int], whole: Sequence[int]) -> Iterator[Any]:
    if not shape:
        if isinstance(data, list):
            raise Misfit("deeper arrays", f"nested as the shape {list(whole)} says")
        yield data
        return
    if not isinstance(data, list) or len(data) != shape[0]:
        found = f"an array of {len(data)}" if isinstance(data, list) else data
        raise Misfit(found, f"nested as the shape {list(whole)} says")
    for item in data:
        yield from _nested(item, shape[1:], whole)


def raw_array(data: bytes, start: int, end: int, datatype: str, size: int) -> NDArray[Any]:
    """
    Read raw numbers or booleans, shape (size,).

    Raises:
        Misfit: There are more or fewer bytes than that.
    """
    dtype = DTYPES[datatype]
    _check_length(start, end, size * dtype.itemsize, datatype, size)
    return np.frombuffer(data, dtype, size, start)


def raw_values(data: bytes, start: int, end: int, datatype: str, size: int) -> list[Any]:
    """
    Read raw numbers or booleans as values; a boolean's byte other than 0 and 1 stays a number.

    Raises:
        Misfit: As `raw_array`.
    """
    values: list[Any]
    if size == 1 and end - start == (form := _STRUCTS[datatype]).size:
        values = [form.unpack_from(data, start)[0]]
    else:
        values = raw_array(data, start, end, datatype, size).tolist()
    if datatype == "BOOL":
        return [bool(value) if value <= 1 else value for value in values]
    return values


def raw_reader(
    datatype: str, then: Callable[[Any], Any], otherwise: Any
) -> Callable[[bytes, int, int], Any]:
    """
    Make the reader of a single raw number or boolean between two places of a body.

    Args:
        datatype: What it is.
        then: Given the value; its result is that of the reader.
        otherwise: The result where the bytes are more or fewer, or no boolean.
    """
    unpack, size = _STRUCTS[datatype].unpack_from, _STRUCTS[datatype].size

    def number(body: bytes, start: int, end: int) -> Any:
        return then(unpack(body, start)[0]) if end - start == size else otherwise

    def boolean(body: bytes, start: int, end: int) -> Any:
        if end - start != size or body[start] > 1:
            return otherwise
        return then(body[start] == 1)

    return boolean if datatype == "BOOL" else number


def raw_text_reader(then: Callable[[str], Any], otherwise: Any) -> Callable[[bytes, int, int], Any]:
    """
    Make the reader of a single raw element of BYTES between two places of a body.

    Args:
        then: Given the text; its result is that of the reader.
        otherwise: The result where the bytes are not one element, or not UTF-8.
    """

    def text(body: bytes, start: int, end: int) -> Any:
        first = start + 4
        if first > end or _length_at(body, start)[0] != end - first:
            return otherwise
        try:
            return then(body[first:end].decode())
        except UnicodeDecodeError:
            return otherwise

    return text


def raw_elements(data: bytes, start: int, end: int, size: int) -> list[bytes]:
    """
    Read raw elements of BYTES.

    Raises:
        Misfit: Their lengths and number do not fill the bytes.
    """
    elements: list[bytes] = []
    place = start
    while len(elements) < size and place + _LENGTH.size <= end:
        first = place + _LENGTH.size
        place = first + _LENGTH.unpack_from(data, place)[0]
        elements.append(data[first:place])
    if place != end or len(elements) != size:
        raise Misfit(
            f"{end - start} bytes, which do not hold them", f"{size} elements, each after its size"
        )
    return elements


def write_elements(elements: Sequence[bytes]) -> bytes:
    """Write elements of BYTES raw."""
    return b"".join([part for each in elements for part in (_LENGTH.pack(len(each)), each)])


def from_base64(element: str | bytes) -> bytes | None:
    """Undo base64; None when it is not that."""
    try:
        return binascii.a2b_base64(element, strict_mode=True)
    except (binascii.Error, ValueError):
        return None


def as_text(element: bytes) -> str | None:
    """Read UTF-8; None when it is not that."""
    try:
        return element.decode()
    except UnicodeDecodeError:
        return None


def member(datatype: str) -> Callable[[Any], Any]:
    """
    Make the reader of one JSON element: the value that the datatype holds for it, else a `Misfit`.

    An integer stays exact; a number with a fraction is rounded to the floats of
    its datatype, as it would be on its way as raw data.
    """
    if datatype == BYTES:
        return lambda value: value if isinstance(value, str) else Misfit(value, "a text")
    if datatype == "BOOL":
        return lambda value: value if isinstance(value, bool) else Misfit(value, "true or false")
    if datatype in FLOATS:
        return _float_member(datatype)
    return _whole_member(datatype)


def _whole_member(datatype: str) -> Callable[[Any], Any]:
    limits = np.iinfo(DTYPES[datatype])
    low, high = int(limits.min), int(limits.max)
    expected = f"an integer in [{low}, {high}], as {datatype} has"

    def read(value: Any) -> Any:
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is not int or not low <= value <= high:
            return Misfit(value, expected)
        return value

    return read


def _float_member(datatype: str) -> Callable[[Any], Any]:
    form = _STRUCTS[datatype]
    wide = datatype == "FP64"

    def read(value: Any) -> Any:
        if type(value) not in (int, float):
            return Misfit(value, "a number")
        if wide:
            return value
        try:
            rounded = form.unpack(form.pack(value))[0]
        except (OverflowError, struct.error):
            return Misfit(value, f"a number that {datatype} holds")
        if type(value) is int and rounded != value:
            return Misfit(value, f"an integer that {datatype} holds without rounding it")
        return rounded

    return read


def _check_length(start: int, end: int, wanted: int, datatype: str, size: int) -> None:
    if end - start != wanted:
        raise Misfit(f"{end - start} bytes", f"{wanted} bytes for {size} elements of {datatype}")


class Described(msgspec.Struct, omit_defaults=True):
    """A tensor as metadata describes it; -1 stands for the number of rows."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] = {}
