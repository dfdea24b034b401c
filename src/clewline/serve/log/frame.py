"""
A frame: one batch as the prediction log holds it.

On disk: magic (4 bytes), body length, number of predictions, number of parts
with an idempotency key, CRC-32 of those three and of the body (4 bytes each,
little endian), then the body, which is the `LoggedBatch` in MessagePack. The ids come
first in the body, so they are read without decoding it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import msgspec
from blake3 import blake3

from clewline.store.digest import Digest

MAGIC = b"\xf1FL1"
HEADER = struct.Struct("<4sIIII")
_HEAD = struct.Struct("<III")
ID_BYTES = 16


class ByteSource(Protocol):
    """Bytes that frames stand in, such as an `Extent`."""

    def __len__(self) -> int: ...

    def read(self, start: int, end: int) -> bytes:
        """Read bytes `start` to `end`; fewer when they end before."""

    def find(self, pattern: bytes, start: int) -> int:
        """Tell where `pattern` comes next, from `start` on; -1 when it does not."""


class LoggedRequest(msgspec.Struct, array_like=True, frozen=True):
    """
    What one request brought to a batch.

    `format` and `detail` say how `body` is to be read (`clewline.serve.formats`):
    "json" is the request's body as it came, "json-rows" a JSON array of rows.
    `count` rows; `entities`, when given, one a row.
    """

    format: str
    body: bytes
    count: int
    entities: list[str] | None = None
    idempotency_key: str | None = None
    detail: str = ""


class RouteChoice(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a route chose for a row, how likely it was to, and what it knew then."""

    node: str
    arm: str
    propensity: float
    state: int = 0  # number of the router's state; 0 where it keeps none


class RoutePath(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """
    How rows went through a graph.

    `model` is `name@number`; where several models were combined, all of them in
    the order of the branches, joined by `+`. `arm` is the arm of the route; of
    nested routes `outer/inner`; empty where no route was passed.
    """

    model: str
    path: tuple[tuple[str, float], ...]  # nodes gone through, in order, each with microseconds
    arm: str = ""
    choices: tuple[RouteChoice, ...] = ()  # outermost route first


class LoggedBatch(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """
    One batch of predictions: rows as they came, answers as they left.

    Row `i` of the batch has the id `ids[16 * i : 16 * i + 16]` and the answer
    `answers[i]`; the rows of the parts follow one another in order. An endpoint
    of one model fills `model`, `package` and `path`. A graph leaves them empty
    and says of each row which way it went: `way(i)` reads either.
    """

    ids: bytes  # 16 bytes a row
    endpoint: str
    revision: int
    model: str  # income@3; empty where a graph answered
    package: Digest
    time: float  # seconds since the epoch, when the batch was formed
    parts: list[LoggedRequest]
    answers: list[bytes]  # JSON of each prediction as it was sent
    path: list[tuple[str, float]]  # nodes that the batch went through, with microseconds
    packages: dict[str, Digest] = {}  # of a graph: each model that answered → its package
    ways: list[RoutePath] = []  # of a graph: the different ways that rows went
    taken: list[int] = []  # of a graph: index into `ways`, one a row
    marks: list[bytes] = []  # of a graph: 4 bytes a node of the way, of what it made of the row

    def way(self, row: int) -> RoutePath:
        """Tell how a row was answered."""
        if self.ways:
            return self.ways[self.taken[row]]
        return RoutePath(self.model, tuple(self.path))

    def package_of(self, row: int) -> str:
        """Give the digest of the package that answered a row; of several, joined as the models."""
        if not self.ways:
            return self.package
        models = self.way(row).model.split("+")
        return "+".join(self.packages[model] for model in models if model)


class FrameSpan(NamedTuple):
    """Where a whole frame lies in a segment: bytes `offset` to `end`."""

    offset: int
    end: int
    rows: int  # predictions
    keyed: int  # parts with an idempotency key


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(LoggedBatch)


def encode_frame(frame: LoggedBatch) -> bytearray:
    """Encode a frame with its header, ready to be appended to a segment."""
    assert len(frame.ids) == ID_BYTES * len(frame.answers), "one id and one answer a row"
    data = bytearray(HEADER.size)
    _encoder.encode_into(frame if frame.ways else _plain(frame), data, HEADER.size)
    length = len(data) - HEADER.size
    count = len(frame.ids) // ID_BYTES
    keyed = sum(part.idempotency_key is not None for part in frame.parts)
    head = _HEAD.pack(length, count, keyed)
    with memoryview(data) as view:
        checksum = zlib.crc32(view[HEADER.size :], zlib.crc32(head))
    HEADER.pack_into(data, 0, MAGIC, length, count, keyed, checksum)
    return data


def _plain(frame: LoggedBatch) -> tuple[Any, ...]:
    """A frame without what only graphs have, so that others need no byte for it."""
    said = (frame.ids, frame.endpoint, frame.revision, frame.model, frame.package, frame.time)
    return (*said, frame.parts, frame.answers, frame.path)


def decode_frame(source: ByteSource, slot: FrameSpan) -> LoggedBatch:
    """Decode the frame in a slot that `find_frame` or `scan_frames` has found."""
    return _decoder.decode(source.read(slot.offset + HEADER.size, slot.end))


def frame_ids(source: ByteSource, slot: FrameSpan) -> bytes:
    """Read the ids of a frame without decoding it, 16 bytes each."""
    size = slot.rows * ID_BYTES
    start = slot.offset + HEADER.size + 1 + (2 if size < 256 else 3 if size < 65536 else 5)
    return source.read(start, start + size)


def find_frame(source: ByteSource, offset: int) -> FrameSpan | None:
    """Find the frame at `offset`; None when it is torn, damaged or not a frame."""
    header = source.read(offset, offset + HEADER.size)
    if len(header) < HEADER.size:
        return None
    magic, length, count, keyed, checksum = HEADER.unpack(header)
    end = offset + HEADER.size + length
    if magic != MAGIC or end > len(source):
        return None
    body = source.read(offset + HEADER.size, end)
    if len(body) < length or zlib.crc32(body, zlib.crc32(header[4:16])) != checksum:
        return None
    return FrameSpan(offset, end, count, keyed)


def scan_frames(source: ByteSource, start: int = 0) -> Iterator[FrameSpan]:
    """
    Find every whole frame from `start` on, in order.

    Bytes that belong to no whole frame are skipped: a gap between the end of one
    slot and the offset of the next is damage, a gap at the end a torn tail.
    """
    offset = start
    while offset < len(source):
        slot = find_frame(source, offset)
        if slot is None:
            offset = source.find(MAGIC, offset + 1)
            if offset < 0:
                return
        else:
            yield slot
            offset = slot.end


def key_hash(endpoint: str, key: str) -> bytes:
    """Digest an idempotency key within its endpoint, to 16 bytes."""
    return blake3(f"{endpoint}\0{key}".encode()).digest(ID_BYTES)
