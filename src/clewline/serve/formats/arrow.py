"""
Arrow IPC, as a stream or as a file.

The metadata of every message is looked at before Polars sees it: what it says
of rows, values and sizes of buffers is what would be allocated.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

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
from clewline.signature.check import Checker

if TYPE_CHECKING:
    import polars as pl

MAGIC = b"ARROW1"
MOST_MESSAGES = 20_000
WHAT = "Arrow IPC"

_CONTINUED = 0xFFFFFFFF
_DICTIONARY, _BATCH = 2, 3


class Arrow:
    """Reads Arrow IPC of either kind."""

    def read_rows(self, body: bytes, detail: str, checker: Checker, max_rows: int) -> RequestRows:
        """Read and check the rows of a body."""
        return rows_in(_frame(body, max_rows), read_details(detail), checker, max_rows)

    def rows_as_json(self, body: bytes, detail: str) -> list[bytes]:
        """Write each row as a JSON object."""
        return objects(_frame(body, DECODED_VALUES))


FORMAT = Arrow()


def _frame(body: bytes, max_rows: int) -> pl.DataFrame:
    try:
        guard(body, max_rows)
    except (struct.error, IndexError, OverflowError) as error:
        raise _malformed("its metadata points beyond it") from error

    def read() -> pl.DataFrame:
        import polars as pl

        is_file = body.startswith(MAGIC)
        return (pl.read_ipc if is_file else pl.read_ipc_stream)(io.BytesIO(body))

    return decoded(read, WHAT)


class _Message(NamedTuple):
    kind: int
    header: int  # place of its table
    body: int  # place of its body
    size: int  # of the body


def guard(body: bytes, max_rows: int) -> None:
    """
    Look at what the messages of a body say that they hold.

    Raises:
        MalformedInput: A message is none, or points beyond the body.
        TooManyRows: The batches have more than `max_rows` rows.
        BodyTooLarge: They hold more than is decoded.
        struct.error, IndexError, OverflowError: As the first.
    """
    rows = values = size = 0
    for message in _of_file(body) if body.startswith(MAGIC) else _of_stream(body):
        if message.kind not in (_DICTIONARY, _BATCH):
            continue
        batch: int | None = message.header
        if message.kind == _DICTIONARY:
            batch = _table(body, message.header, 1)
        if batch is None:
            raise _malformed("a batch is empty")
        if message.kind == _BATCH:
            rows += _int64(body, batch, 0)
        values += _values_of(body, batch)
        size += _bytes_of(body, batch, message)
        if rows > max_rows:
            raise too_many_rows(max_rows)
        if values > DECODED_VALUES or size > DECODED_BYTES:
            raise too_large()


def _of_stream(body: bytes) -> Iterator[_Message]:
    place = 0
    for _ in range(MOST_MESSAGES):
        if place + 4 > len(body):
            return
        message = _message(body, place)
        if message is None:
            return
        yield message
        place = message.body + message.size
    raise _malformed(f"it has more than {MOST_MESSAGES} messages")


def _of_file(body: bytes) -> Iterator[_Message]:
    """Give the messages that the footer names."""
    length = _uint32(body, len(body) - len(MAGIC) - 4)
    footer = len(body) - len(MAGIC) - 4 - length
    if footer < 0 or not body.endswith(MAGIC):
        raise _malformed("it has no footer")
    root = footer + _uint32(body, footer)
    blocks = [*_structs(body, root, 2, 24), *_structs(body, root, 3, 24)]
    if len(blocks) > MOST_MESSAGES:
        raise _malformed(f"it has more than {MOST_MESSAGES} messages")
    for block in blocks:
        offset, head, size = struct.unpack_from("<qi4xq", body, block)
        message = _message(body, offset) if 0 <= offset < len(body) else None
        if message is None or (message.body, message.size) != (offset + head, size):
            raise _malformed("its footer names a message that is not there")
        yield message


def _message(body: bytes, place: int) -> _Message | None:
    """Read the head of a message; None at the end of a stream."""
    length = _uint32(body, place)
    place += 4
    if length == _CONTINUED:
        length = _uint32(body, place)
        place += 4
    if length == 0:
        return None
    root = place + _uint32(body, place)
    header = _table(body, root, 2)
    size = _int64(body, root, 3)
    kind = _field(body, root, 1)
    start = place + length
    if header is None or kind is None or start + size > len(body):
        raise _malformed("it is cut off")
    return _Message(body[kind], header, start, size)


def _values_of(body: bytes, batch: int) -> int:
    """Add the lengths of all arrays of a batch, those inside of lists too."""
    total = 0
    for place in _structs(body, batch, 1):
        length, nulls = struct.unpack_from("<qq", body, place)
        if length < 0 or nulls < 0:
            raise _malformed("an array has a negative length")
        total += length
        if total > DECODED_VALUES:
            raise too_large()
    return total


def _bytes_of(body: bytes, batch: int, message: _Message) -> int:
    """Add the sizes of all buffers of a batch, as they are when decompressed."""
    compressed = _table(body, batch, 3) is not None
    total = 0
    for place in _structs(body, batch, 2):
        offset, length = struct.unpack_from("<qq", body, place)
        if offset < 0 or length < 0 or offset + length > message.size:
            raise _malformed("a buffer lies beyond its message")
        if compressed and length >= 8:
            (whole,) = struct.unpack_from("<q", body, message.body + offset)
            if whole < -1:
                raise _malformed("a buffer has a negative length")
            length = length if whole == -1 else whole
        total += length
        if total > DECODED_BYTES:
            raise too_large()
    return total


# ---- FlatBuffers: a table points back to a list of where its fields are


def _field(data: bytes, table: int, number: int) -> int | None:
    """Give the place of a field; None where it is left out."""
    fields = table - struct.unpack_from("<i", data, table)[0]
    if fields < 0 or table < 0:
        raise _malformed("a table lies before it")
    (size,) = struct.unpack_from("<H", data, fields)
    at = 4 + 2 * number
    if at + 2 > size:
        return None
    (offset,) = struct.unpack_from("<H", data, fields + at)
    return table + offset if offset else None


def _uint32(data: bytes, place: int) -> int:
    return int(struct.unpack_from("<I", data, place)[0])


def _int64(data: bytes, table: int, number: int) -> int:
    place = _field(data, table, number)
    value = 0 if place is None else int(struct.unpack_from("<q", data, place)[0])
    if value < 0:
        raise _malformed("a length is negative")
    return value


def _table(data: bytes, table: int, number: int) -> int | None:
    place = _field(data, table, number)
    return None if place is None else place + _uint32(data, place)


def _structs(data: bytes, table: int, number: int, size: int = 16) -> range:
    """Give the places of a vector of structs."""
    vector = _table(data, table, number)
    if vector is None:
        return range(0)
    count = _uint32(data, vector)
    if vector + 4 + size * count > len(data):
        raise _malformed("a vector is longer than it")
    return range(vector + 4, vector + 4 + size * count, size)


def _malformed(reason: str) -> MalformedInput:
    return MalformedInput(f"The body is no {WHAT}: {reason}.", f"Send {WHAT}, whole.")
