"""The way of each row, in a form that is cut and joined with the answers."""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

import msgspec
import numpy as np

from clewline.serve.graph.batch import Checksums, NodeAnswers
from clewline.serve.log.frame import LoggedBatch, RoutePath
from clewline.store.digest import Digest

CHECKSUM_BYTES = 4


class RowTrace(msgspec.Struct, frozen=True, eq=False, gc=False):
    """How one row was answered. Rows of one batch that went alike share the way."""

    way: RoutePath
    marks: bytes = b""  # 4 bytes a node of the way's path, of what it made of this row


def row_traces(answered: NodeAnswers, rows: int) -> list[RowTrace]:
    """Give the trail of each row of a batch, in order."""
    if not answered.marks and answered.taken is None:
        return [RowTrace(answered.ways[0])] * rows
    if answered.taken is None:
        return _alike(answered.ways[0], answered.marks, range(rows))
    taken = answered.taken
    found: list[RowTrace | None] = [None] * rows
    for index, way in enumerate(answered.ways):
        places = np.flatnonzero(taken == index).tolist()
        for row, trail in zip(places, _alike(way, answered.marks, places), strict=True):
            found[row] = trail
    return [trail for trail in found if trail is not None]


def frame_with_traces(
    frame: LoggedBatch, found: list[RowTrace], pinned: dict[str, Digest]
) -> LoggedBatch:
    """Say in a frame which way each of its rows went."""
    places: dict[int, int] = {}
    ways: list[RoutePath] = []
    for trail in found:
        if id(trail.way) not in places:
            places[id(trail.way)] = len(ways)
            ways.append(trail.way)
    models = {model for way in ways for model in way.model.split("+") if model in pinned}
    return msgspec.structs.replace(
        frame,
        packages={model: pinned[model] for model in sorted(models)},
        paths=ways,
        path_of_row=[places[id(trail.way)] for trail in found],
        checksums=[trail.marks for trail in found],
    )


def _alike(way: RoutePath, marks: Checksums, places: Sequence[int]) -> list[RowTrace]:
    """The trails of rows that went one way, with their marks in the order of the path."""
    known = [marks[node].tolist() if node in marks else None for node, _ in way.path]
    packed = Struct(f"<{len(known)}I").pack
    return [
        RowTrace(way, packed(*[0 if one is None else one[row] for one in known])) for row in places
    ]
