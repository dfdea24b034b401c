"""Checksums of what a node made of each row, so that a replay can say which node differs."""

from __future__ import annotations

import zlib
from dataclasses import fields
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.model.runtime import Outputs
from clewline.signature.columns import Columns

Mark = NDArray[np.uint32]


def of_outputs(outputs: Outputs) -> Mark:
    """Checksum the answers, shape (n,)."""
    arrays = (getattr(outputs, part.name) for part in fields(outputs))
    return _of_bytes([array for array in arrays if array is not None])


def of_columns(columns: Columns) -> Mark:
    """Checksum the rows, shape (n,); two rows with the same cells have the same."""
    numeric = _of_bytes([columns.numbers, *columns.tensors.values()])
    if not columns.texts.shape[1]:
        return numeric
    texts = [zlib.crc32(msgspec.json.encode(row)) for row in columns.texts.tolist()]
    return numeric ^ np.array(texts, dtype=np.uint32)


def _of_bytes(arrays: list[NDArray[Any]]) -> Mark:
    """The CRC-32 of the bytes of each row, through all arrays."""
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
