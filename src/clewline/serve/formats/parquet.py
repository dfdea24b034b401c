"""
The body format `parquet`.

A small file may unpack to very much: its footer and the head of every page say to how much, and
the guard reads them before Polars decodes. It reads Thrift by hand: Polars and PyArrow show the
footer alone, not the heads of pages, which decide what is allocated, and the Thrift packages
bring code for services to what takes 60 lines.

Source: parquet.thrift, and the specification of Thrift's compact protocol.
"""

from __future__ import annotations

import struct
from functools import partial
from typing import Any

from clewline.serve.formats.body_format import too_many_rows
from clewline.serve.formats.columns import MOST_COLUMNS
from clewline.serve.formats.tables import TableFormat, malformed_table, require_small

MAGIC = b"PAR1"
FOOTER_BYTES = 1 << 20
MOST_PAGES = 20_000
LONGEST_FIXED = 64
"""Bytes of a value of fixed length; a decimal has 16, and longer ones are no value of a field."""
DEEPEST = 32
MOST_METADATA_VALUES = 2_000_000
WHAT = "Parquet"

# Numbers of fields, as parquet.thrift gives them.
_SCHEMA, _ROWS, _GROUPS = 2, 3, 4
_TYPE_LENGTH, _COLUMNS, _GROUP_ROWS, _META = 2, 1, 3, 3
_NUM_VALUES, _UNCOMPRESSED, _COMPRESSED, _DATA_AT, _DICTIONARY_AT = 5, 6, 7, 9, 11
_PAGE_UNCOMPRESSED, _PAGE_COMPRESSED = 2, 3
_PAGE_KINDS = (5, 7, 8)  # data, dictionary, data of version 2; the first field counts values


def guard(body: bytes, max_rows: int) -> None:
    """
    Look at what a file says that it holds.

    Raises:
        MalformedInput: It is no Parquet.
        TooManyRows: It has more than `max_rows` rows.
        BodyTooLarge: It holds more than is decoded.
    """
    try:
        footer = _footer(body)
        rows = sum(_natural(group[_GROUP_ROWS]) for group in footer[_GROUPS])
        if max(rows, _natural(footer[_ROWS])) > max_rows:
            raise too_many_rows(max_rows)
        if any(element.get(_TYPE_LENGTH, 0) > LONGEST_FIXED for element in footer[_SCHEMA]):
            raise _malformed(f"it has values of a fixed length over {LONGEST_FIXED} bytes")
        if max([len(group[_COLUMNS]) for group in footer[_GROUPS]], default=0) > MOST_COLUMNS:
            raise _malformed(f"it has more than {MOST_COLUMNS} columns")
        size = values = pages = 0
        reader = _ThriftReader(body)  # of all heads of pages: several columns may name the same
        for group in footer[_GROUPS]:
            for column in group[_COLUMNS]:
                meta = column[_META]
                chunk = _chunk(reader, meta, MOST_PAGES - pages)
                size += max(chunk[0], _natural(meta[_UNCOMPRESSED]))
                values += max(chunk[1], _natural(meta[_NUM_VALUES]))
                pages += chunk[2]
                require_small(values, size)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise _malformed("its metadata is not what it should be") from error


FORMAT = TableFormat(WHAT, guard, lambda pl, body, file: pl.read_parquet(file))


def _footer(body: bytes) -> dict[int, Any]:
    if len(body) < 12 or not body.startswith(MAGIC) or not body.endswith(MAGIC):
        raise _malformed(f"it does not begin and end with {MAGIC.decode()}")
    size = int.from_bytes(body[-8:-4], "little")
    if size > len(body) - 12:
        raise _malformed("its footer is longer than the file")
    if size > FOOTER_BYTES:
        raise _malformed(f"its footer is over {FOOTER_BYTES} bytes")
    return _ThriftReader(body[-8 - size : -8]).read()


def _chunk(reader: _ThriftReader, meta: dict[int, Any], most_pages: int) -> tuple[int, int, int]:
    """Add what the heads of a column's pages say: decompressed bytes, values, pages."""
    start = _natural(meta[_DATA_AT])
    if 0 < (dictionary := _natural(meta.get(_DICTIONARY_AT, 0))) < start:
        start = dictionary
    end = start + _natural(meta[_COMPRESSED])
    if end > len(reader.data):
        raise _malformed("a column lies beyond its end")
    size = values = pages = 0
    reader.place = start
    while reader.place < end:
        pages += 1
        if pages > most_pages:
            raise _malformed(f"it has more than {MOST_PAGES} pages")
        page = reader.read()
        size += _natural(page[_PAGE_UNCOMPRESSED])
        values += sum(_natural(page[kind][1]) for kind in _PAGE_KINDS if kind in page)
        require_small(values, size)
        reader.place += _natural(page[_PAGE_COMPRESSED])
    return size, values, pages


def _natural(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise _malformed("a count in its metadata is not a natural number")
    return value


_malformed = partial(malformed_table, WHAT)


class _ThriftReader:
    """
    Reads structs as dictionaries: number of a field → value, structs and lists within.

    Args:
        data: The bytes.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.place = 0  # of the next struct
        self._left = MOST_METADATA_VALUES

    def read(self, depth: int = 0) -> dict[int, Any]:
        """Read one struct; raises `MalformedInput` if there is none."""
        if depth > DEEPEST:
            raise _malformed("it is nested too deeply")
        found: dict[int, Any] = {}
        number = 0
        while (head := self._bytes(1)[0]) != 0:
            step, kind = head >> 4, head & 15
            number = number + step if step else self._zigzag()
            found[number] = kind == 1 if kind in (1, 2) else self._value(kind, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        self._left -= 1
        if self._left < 0:
            raise _malformed("it has too many values")
        match kind:
            case 1 | 2:  # in a list each has a byte of its own
                return self._bytes(1)[0] == 1
            case 3:
                return self._bytes(1)[0]
            case 4 | 5 | 6:
                return self._zigzag()
            case 7:
                return struct.unpack("<d", self._bytes(8))[0]
            case 8:
                return self._bytes(self._varint())
            case 9 | 10:
                head = self._bytes(1)[0]
                size, kind = head >> 4, head & 15
                size = self._varint() if size == 15 else size
                if size > len(self.data) or depth > DEEPEST:
                    raise _malformed("a list is longer than the file")
                return [self._value(kind, depth + 1) for _ in range(size)]
            case 12:
                return self.read(depth + 1)
        raise _malformed(f"it has a value of the unknown type {kind}")

    def _bytes(self, size: int) -> bytes:
        self.place += size
        if self.place > len(self.data):
            raise _malformed("it is cut off")
        return self.data[self.place - size : self.place]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            (byte,) = self._bytes(1)
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise _malformed("a number is too long")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
