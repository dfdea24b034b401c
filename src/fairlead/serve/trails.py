"""The way of each row, in a form that is cut and joined with the answers."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from fairlead.serve.answered import Answered, Marks
from fairlead.serve.frame import Frame, Way
from fairlead.store.digest import Digest

MARK_BYTES = 4


class Trail(msgspec.Struct, frozen=True, eq=False, gc=False):
    """How one row was answered. Rows of one batch that went alike share the way."""

    way: Way
    marks: bytes = b""  # 4 bytes a node of the way's path, of what it made of this row


def trails(answered: Answered, rows: int) -> list[Trail]:
    """Give the trail of each row of a batch, in order."""
    if not answered.marks and answered.taken is None:
        return [Trail(answered.ways[0])] * rows
    taken = np.zeros(rows, dtype=np.intp) if answered.taken is None else answered.taken
    found: list[Trail | None] = [None] * rows
    for index, way in enumerate(answered.ways):
        places = np.flatnonzero(taken == index)
        width = MARK_BYTES * len(way.path)
        data = _marks_of(way, answered.marks, places)
        for at, row in enumerate(places.tolist()):
            found[row] = Trail(way, data[at * width : (at + 1) * width])
    return [trail for trail in found if trail is not None]


def with_trails(frame: Frame, found: list[Trail], pinned: dict[str, Digest]) -> Frame:
    """Say in a frame which way each of its rows went."""
    places: dict[int, int] = {}
    ways: list[Way] = []
    for trail in found:
        if id(trail.way) not in places:
            places[id(trail.way)] = len(ways)
            ways.append(trail.way)
    models = {model for way in ways for model in way.model.split("+") if model in pinned}
    return msgspec.structs.replace(
        frame,
        packages={model: pinned[model] for model in sorted(models)},
        ways=ways,
        taken=[places[id(trail.way)] for trail in found],
        marks=[trail.marks for trail in found],
    )


def _marks_of(way: Way, marks: Marks, places: NDArray[np.intp]) -> bytes:
    """The marks of some rows, row by row, in the order of the path."""
    matrix = np.zeros((len(places), len(way.path)), dtype="<u4")
    for column, (node, _) in enumerate(way.path):
        if node in marks:
            matrix[:, column] = marks[node][places]
    return matrix.tobytes()
