"""How each row of a batch was answered: its path, and a checksum of each node's result."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import fields
from struct import Struct
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.model.runtime import Outputs
from clewline.serve.graph.node import Checksums, NodeAnswers
from clewline.serve.log.frame import LoggedBatch, RoutePath
from clewline.signature.columns import Columns
from clewline.store.digest import Digest

CHECKSUM_BYTES = 4


class RowTrace(msgspec.Struct, frozen=True, eq=False, gc=False):
    """How one row was answered. Rows of a batch with the same path share it."""

    path: RoutePath
    checksums: bytes = b""  # 4 bytes for each node of the path, of its result for this row


def row_traces(answers: NodeAnswers, rows: int) -> list[RowTrace]:
    """Return the trace of each row of a batch, in order."""
    if answers.path_of_row is None:
        if not answers.checksums:
            return [RowTrace(answers.paths[0])] * rows
        return _traces(answers.paths[0], answers.checksums, range(rows))
    found: list[RowTrace | None] = [None] * rows
    for index, path in enumerate(answers.paths):
        places = np.flatnonzero(answers.path_of_row == index).tolist()
        for row, trace in zip(places, _traces(path, answers.checksums, places), strict=True):
            found[row] = trace
    return [trace for trace in found if trace is not None]


def _traces(path: RoutePath, checksums: Checksums, rows: Sequence[int]) -> list[RowTrace]:
    """Return the traces of rows with one path, their checksums in the order of the path."""
    known = [checksums[node].tolist() if node in checksums else None for node, _ in path.path]
    pack = Struct(f"<{len(known)}I").pack
    return [
        RowTrace(path, pack(*[0 if one is None else one[row] for one in known])) for row in rows
    ]


def frame_with_traces(
    frame: LoggedBatch, traces: list[RowTrace], pinned: dict[str, Digest]
) -> LoggedBatch:
    """Return a logged batch that holds the trace of each row, and the packages that answered."""
    places: dict[int, int] = {}
    paths: list[RoutePath] = []
    for trace in traces:
        if id(trace.path) not in places:
            places[id(trace.path)] = len(paths)
            paths.append(trace.path)
    models = {model for path in paths for model in path.model.split("+") if model in pinned}
    return msgspec.structs.replace(
        frame,
        packages={model: pinned[model] for model in sorted(models)},
        paths=paths,
        path_of_row=[places[id(trace.path)] for trace in traces],
        checksums=[trace.checksums for trace in traces],
    )


def output_checksums(outputs: Outputs) -> NDArray[np.uint32]:
    """Return a checksum of each answer, shape (n,)."""
    arrays = (getattr(outputs, part.name) for part in fields(outputs))
    return _row_checksums([array for array in arrays if array is not None])


def column_checksums(columns: Columns) -> NDArray[np.uint32]:
    """Return a checksum of each row, shape (n,); rows with the same cells have the same."""
    numeric = _row_checksums([columns.numbers, *columns.tensors.values()])
    if not columns.texts.shape[1]:
        return numeric
    texts = [zlib.crc32(msgspec.json.encode(row)) for row in columns.texts.tolist()]
    return numeric ^ np.array(texts, dtype=np.uint32)


def _row_checksums(arrays: list[NDArray[Any]]) -> NDArray[np.uint32]:
    """Return the CRC-32 of the bytes of each row, through all arrays."""
    rows = len(arrays[0])
    found = [0] * rows
    for array in arrays:
        data = np.ascontiguousarray(array).tobytes()
        width = len(data) // rows if rows else 0
        found = [
            zlib.crc32(data[row * width : (row + 1) * width], before)
            for row, before in enumerate(found)
        ]
    return np.array(found, dtype=np.uint32)
