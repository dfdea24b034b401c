"""
A batch of predictions as the log holds it, and the frame around it on disk.

A frame is: magic (4 bytes), length of the body, number of predictions, number of
requests with an idempotency key, CRC-32 of those three and of the body (4 bytes each,
little endian), then the body, which is the `LoggedBatch` in MessagePack. The ids come
first in the body, so that they can be read without decoding it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
from blake3 import blake3

from clewline.serve.log.windowed_file import WindowedFile
from clewline.store.digest import Digest

MAGIC = b"\xf1FL1"
HEADER = struct.Struct("<4sIIII")
COUNTS = struct.Struct("<III")
ID_BYTES = 16


class LoggedRequest(msgspec.Struct, array_like=True, frozen=True):
    """
    The rows of one request in a batch.

    `format` and `detail` say how `body` is read (`clewline.serve.formats`): "json" is the
    request's body as it came, "json-rows" a JSON array of rows. There are `count` rows and
    as many `entities`, if any. `tried` rows were made up to see the answer: statistics leave
    them out.
    """

    format: str
    body: bytes
    count: int
    entities: list[str] | None = None
    idempotency_key: str | None = None
    detail: str = ""
    tried: bool = False


class RouteChoice(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The arm that a route chose for a row, with its probability and the state of the router."""

    node: str
    arm: str
    propensity: float
    state: int = 0  # number of the router's state; 0 if it keeps none


class RoutePath(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """
    The path that rows took through a graph.

    `model` is `name@number`; if several models were combined, all of them in the order
    of the branches, joined by `+`. `arm` is the arm of the route, `outer/inner` of nested
    routes, and empty without a route.
    """

    model: str
    path: tuple[tuple[str, float], ...]  # nodes in order, each with its microseconds
    arm: str = ""
    choices: tuple[RouteChoice, ...] = ()  # outermost route first


class LoggedBatch(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """
    One batch of predictions: rows as they came, answers as they left.

    Row `i` of the batch has the id `ids[16 * i : 16 * i + 16]` and the answer
    `answers[i]`; the rows of the requests follow one another in order. An endpoint
    of one model fills `model`, `package` and `path`. A graph leaves them empty
    and stores the path of each row: `route_path(i)` reads either.
    """

    ids: bytes  # 16 bytes a row
    endpoint: str
    revision: int
    model: str  # income@3; empty for a graph
    package: Digest
    time: float  # seconds since the epoch, when the batch was formed
    requests: list[LoggedRequest]
    answers: list[bytes]  # JSON of each prediction as it was sent
    path: list[tuple[str, float]]  # nodes of the batch, with microseconds
    packages: dict[str, Digest] = {}  # of a graph: each model that answered → its package
    paths: list[RoutePath] = []  # of a graph: the different paths of rows
    path_of_row: list[int] = []  # of a graph: index into `paths`, one a row
    checksums: list[bytes] = []  # of a graph: 4 bytes a node, of the node's result for the row

    def route_path(self, row: int) -> RoutePath:
        """Return the path of a row."""
        if self.paths:
            return self.paths[self.path_of_row[row]]
        return RoutePath(self.model, tuple(self.path))

    def package_of(self, row: int) -> str:
        """Return the digest of the package that answered a row; of several, joined by `+`."""
        if not self.paths:
            return self.package
        models = self.route_path(row).model.split("+")
        return "+".join(self.packages[model] for model in models if model)


class FrameSpan(NamedTuple):
    """The bytes of a whole frame in a segment: `offset` to `end`."""

    offset: int
    end: int
    rows: int  # predictions
    keyed: int  # requests with an idempotency key


_decoder = msgspec.msgpack.Decoder(LoggedBatch)


def decode_frame(file: WindowedFile, span: FrameSpan) -> LoggedBatch:
    """Decode the frame that `find_frame` or `scan_frames` has found."""
    return _decoder.decode(file.read(span.offset + HEADER.size, span.end))


def frame_ids(file: WindowedFile, span: FrameSpan) -> bytes:
    """Read the ids of a frame without decoding it, 16 bytes each."""
    size = span.rows * ID_BYTES
    # MessagePack's array has one byte of head here, and the bytes one, two or four more.
    start = span.offset + HEADER.size + 1 + (2 if size < 256 else 3 if size < 65536 else 5)
    return file.read(start, start + size)


def find_frame(file: WindowedFile, offset: int) -> FrameSpan | None:
    """Find the frame at `offset`; None if it is torn, damaged or not a frame."""
    header = file.read(offset, offset + HEADER.size)
    if len(header) < HEADER.size:
        return None
    magic, length, count, keyed, checksum = HEADER.unpack(header)
    end = offset + HEADER.size + length
    if magic != MAGIC or end > len(file):
        return None
    body = file.read(offset + HEADER.size, end)
    if len(body) < length or zlib.crc32(body, zlib.crc32(header[4:16])) != checksum:
        return None
    return FrameSpan(offset, end, count, keyed)


def scan_frames(file: WindowedFile, start: int = 0) -> Iterator[FrameSpan]:
    """
    Find every whole frame from `start` on, in order.

    Bytes that belong to no whole frame are skipped: a gap before a frame is damage,
    a gap at the end a torn tail.
    """
    offset = start
    while 0 <= offset < len(file):
        span = find_frame(file, offset)
        if span is None:
            offset = file.find(MAGIC, offset + 1)
        else:
            yield span
            offset = span.end


def key_hash(endpoint: str, key: str) -> bytes:
    """Return the digest of an idempotency key of an endpoint, 16 bytes."""
    return blake3(f"{endpoint}\0{key}".encode()).digest(ID_BYTES)
