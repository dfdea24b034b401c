"""
Parquet.

A small file may unpack to very much: its footer and the head of every page say
to how much, and are looked at before Polars decodes.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from clewline.errors import MalformedInput
from clewline.serve.formats import RequestRows, too_many_rows
from clewline.serve.formats.columns import read_details
from clewline.serve.formats.tables import (
    DECODED_BYTES,
    DECODED_VALUES,
    decoded,
    objects,
    rows_in,
    too_large,
)
from clewline.serve.formats.thrift import BadThrift, Reader
from clewline.signature.check import Checker

if TYPE_CHECKING:
    import polars as pl

MAGIC = b"PAR1"
FOOTER_BYTES = 1 << 20
MOST_PAGES = 20_000
LONGEST_FIXED = 64
"""Bytes of a value of fixed length; a decimal has 16, and longer ones are no value of a field."""
WHAT = "Parquet"

# Numbers of fields, as parquet.thrift gives them.
_SCHEMA, _ROWS, _GROUPS = 2, 3, 4
_TYPE_LENGTH = 2
_COLUMNS = 1
_META = 3
_NUM_VALUES, _UNCOMPRESSED, _COMPRESSED, _DATA_AT, _DICTIONARY_AT = 5, 6, 7, 9, 11
_PAGE_UNCOMPRESSED, _PAGE_COMPRESSED = 2, 3
_PAGE_KINDS = (5, 7, 8)  # data, dictionary, data of version 2; the first field counts values


class Parquet:
    """Reads Parquet."""

    def read_rows(self, body: bytes, detail: str, checker: Checker, max_rows: int) -> RequestRows:
        """Read and check the rows of a body."""
        return rows_in(_frame(body, max_rows), read_details(detail), checker, max_rows)

    def rows_as_json(self, body: bytes, detail: str) -> list[bytes]:
        """Write each row as a JSON object."""
        return objects(_frame(body, DECODED_VALUES))


FORMAT = Parquet()


def _frame(body: bytes, max_rows: int) -> pl.DataFrame:
    try:
        guard(body, max_rows)
    except BadThrift as error:
        raise _malformed(str(error)) from error
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise _malformed("its metadata is not what it should be") from error

    def read() -> pl.DataFrame:
        import polars as pl

        return pl.read_parquet(io.BytesIO(body))

    return decoded(read, WHAT)


def guard(body: bytes, max_rows: int) -> None:
    """
    Look at what a file says that it holds.

    Raises:
        MalformedInput, BadThrift: It is no Parquet.
        TooManyRows: It has more than `max_rows` rows.
        BodyTooLarge: It holds more than is decoded.
        AttributeError, IndexError, KeyError, TypeError: Its metadata is of other types.
    """
    footer = _footer(body)
    rows = sum(_natural(group[3]) for group in footer[_GROUPS])
    if max(rows, _natural(footer[_ROWS])) > max_rows:
        raise too_many_rows(max_rows)
    if any(element.get(_TYPE_LENGTH, 0) > LONGEST_FIXED for element in footer[_SCHEMA]):
        raise _malformed(f"it has values of a fixed length over {LONGEST_FIXED} bytes")
    size = values = pages = 0
    for group in footer[_GROUPS]:
        for column in group[_COLUMNS]:
            meta = column[_META]
            chunk = _chunk(body, meta, MOST_PAGES - pages)
            size += max(chunk[0], _natural(meta[_UNCOMPRESSED]))
            values += max(chunk[1], _natural(meta[_NUM_VALUES]))
            pages += chunk[2]
            if size > DECODED_BYTES or values > DECODED_VALUES:
                raise too_large()


def _footer(body: bytes) -> dict[int, Any]:
    if len(body) < 12 or not body.startswith(MAGIC) or not body.endswith(MAGIC):
        raise _malformed(f"it does not begin and end with {MAGIC.decode()}")
    size = int.from_bytes(body[-8:-4], "little")
    if size > len(body) - 12:
        raise _malformed("its footer is longer than it")
    if size > FOOTER_BYTES:
        raise _malformed(f"its footer is over {FOOTER_BYTES} bytes")
    return Reader(body[-8 - size : -8]).read()


def _chunk(body: bytes, meta: dict[int, Any], most_pages: int) -> tuple[int, int, int]:
    """Add what the heads of a column's pages say: bytes when decompressed, values, pages."""
    start = _natural(meta[_DATA_AT])
    if 0 < (dictionary := _natural(meta.get(_DICTIONARY_AT, 0))) < start:
        start = dictionary
    end = start + _natural(meta[_COMPRESSED])
    if end > len(body):
        raise _malformed("a column lies beyond it")
    size = values = pages = 0
    reader = Reader(body, start)
    while reader.place < end:
        pages += 1
        if pages > most_pages:
            raise _malformed(f"it has more than {MOST_PAGES} pages")
        page = reader.read()
        size += _natural(page[_PAGE_UNCOMPRESSED])
        values += sum(_natural(page[kind][1]) for kind in _PAGE_KINDS if kind in page)
        if size > DECODED_BYTES or values > DECODED_VALUES:
            raise too_large()
        reader.place += _natural(page[_PAGE_COMPRESSED])
    return size, values, pages


def _natural(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise _malformed("a count in its metadata is none")
    return value


def _malformed(reason: str) -> MalformedInput:
    return MalformedInput(f"The body is no {WHAT}: {reason}.", f"Send {WHAT}, whole.")
