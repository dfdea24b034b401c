"""
The body format `arrow`: Arrow IPC, as a stream or as a file.

The guard reads the FlatBuffers of every message by hand: Polars shows no metadata before it
allocates, PyArrow is no dependency, and the `flatbuffers` package saves no check of a bound.

Source: Arrow Columnar Format, "Serialization and Interprocess Communication"; Message.fbs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from clewline.serve.formats.body_format import too_many_rows
from clewline.serve.formats.columns import MOST_COLUMNS
from clewline.serve.formats.tables import TableFormat, malformed_table, require_small

MAGIC = b"ARROW1"
MOST_MESSAGES = 20_000
MOST_ARRAYS = 1_000_000
"""Arrays and buffers of all messages; several messages may name the same ones."""
WHAT = "Arrow IPC"

_CONTINUED = 0xFFFFFFFF
_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3


def guard(body: bytes, max_rows: int) -> None:
    """
    Look at what the messages of a body say that they hold.

    Raises:
        MalformedInput: A message is none, or points beyond the body.
        TooManyRows: The batches have more than `max_rows` rows.
        BodyTooLarge: They hold more than is decoded.
    """
    rows = values = size = arrays = 0
    try:
        for message in _file_messages(body) if body.startswith(MAGIC) else _stream_messages(body):
            if message.kind == _SCHEMA and _vector_size(body, message.header, 1) > MOST_COLUMNS:
                raise _malformed(f"it has more than {MOST_COLUMNS} columns")
            if message.kind not in (_DICTIONARY, _BATCH):
                continue
            batch: int | None = message.header
            if message.kind == _DICTIONARY:
                batch = _table(body, message.header, 1)
            if batch is None:
                raise _malformed("a batch is empty")
            if message.kind == _BATCH:
                rows += _int64(body, batch, 0)
            if rows > max_rows:
                raise too_many_rows(max_rows)
            arrays += _vector_size(body, batch, 1) + _vector_size(body, batch, 2)
            if arrays > MOST_ARRAYS:
                raise _malformed(f"it has more than {MOST_ARRAYS} arrays and buffers")
            for length in _lengths(body, batch, message):
                values += length[0]
                size += length[1]
                require_small(values, size)
    except (struct.error, IndexError, OverflowError) as error:
        raise _malformed("its metadata points beyond its end") from error


FORMAT = TableFormat(
    WHAT,
    guard,
    lambda pl, body, file: (
        pl.read_ipc(file) if body.startswith(MAGIC) else pl.read_ipc_stream(file)
    ),
)


class _Message(NamedTuple):
    kind: int
    header: int  # place of its table
    body: int  # place of its body
    size: int  # of the body


def _stream_messages(body: bytes) -> Iterator[_Message]:
    place = 0
    for _ in range(MOST_MESSAGES):
        if place + 4 > len(body) or (message := _message(body, place)) is None:
            return
        yield message
        place = message.body + message.size
    raise _malformed(f"it has more than {MOST_MESSAGES} messages")


def _file_messages(body: bytes) -> Iterator[_Message]:
    """Yield the messages that the footer names."""
    end = len(body) - len(MAGIC) - 4
    footer = end - _uint32(body, end)
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
    header, size, kind = _table(body, root, 2), _int64(body, root, 3), _field(body, root, 1)
    start = place + length
    if header is None or kind is None or start + size > len(body):
        raise _malformed("it is cut off")
    return _Message(body[kind], header, start, size)


def _lengths(body: bytes, batch: int, message: _Message) -> Iterator[tuple[int, int]]:
    """Yield the values of each array of a batch, and the decompressed bytes of each buffer."""
    for place in _structs(body, batch, 1):
        length, nulls = struct.unpack_from("<qq", body, place)
        if length < 0 or nulls < 0:
            raise _malformed("an array has a negative length")
        yield length, 0
    is_compressed = _table(body, batch, 3) is not None
    for place in _structs(body, batch, 2):
        offset, length = struct.unpack_from("<qq", body, place)
        if offset < 0 or length < 0 or offset + length > message.size:
            raise _malformed("a buffer lies beyond its message")
        if is_compressed and length >= 8:
            (whole,) = struct.unpack_from("<q", body, message.body + offset)
            if whole < -1:
                raise _malformed("a buffer has a negative length")
            length = length if whole == -1 else whole
        yield 0, length


# ---- FlatBuffers: a table points back to a list of where its fields are


def _field(data: bytes, table: int, number: int) -> int | None:
    """Return the place of a field; None if it is left out."""
    fields = table - struct.unpack_from("<i", data, table)[0]
    if fields < 0 or table < 0:
        raise _malformed("a table lies before its start")
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
    """Return the places of a vector of structs."""
    count = _vector_size(data, table, number)
    start = (_table(data, table, number) or 0) + 4
    if start + size * count > len(data):
        raise _malformed("a vector is longer than the body")
    return range(start, start + size * count, size)


def _vector_size(data: bytes, table: int, number: int) -> int:
    vector = _table(data, table, number)
    return 0 if vector is None else _uint32(data, vector)


_malformed = partial(malformed_table, WHAT)
