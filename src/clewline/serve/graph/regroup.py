"""A batch parted among arms, and their answers put together again in the order of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.errors import InvalidInput
from clewline.model.runtime import Outputs
from clewline.model.runtime.outputs import take_rows
from clewline.serve.graph.batch import Batch, NodeAnswers, node_failure
from clewline.serve.graph.edges import AlignedNode
from clewline.serve.log.frame import RouteChoice, RoutePath

Arms = Sequence[tuple[str, AlignedNode]]


class ArmChoices(msgspec.Struct, frozen=True, eq=False):
    """What a route chose for each row of a batch."""

    node: str
    arms: NDArray[np.intp]  # shape (n,)
    propensities: NDArray[np.float64]  # shape (n,)
    state: int  # number of the router's state; 0 where it keeps none
    spent_us: float


def regrouped(batch: Batch, chosen: ArmChoices, arms: Arms) -> NodeAnswers:
    """Answer each row by its arm, in order; what every arm is given stands in its rows' order."""
    rows = len(batch.ids)
    gathered = _Gathered(rows, chosen)
    present = sorted(set(chosen.arms.tolist()))
    if len(present) == 1:  # as all batches of one row
        name, below = arms[present[0]]
        gathered.add(name, np.arange(rows), below.answer(batch))
        return gathered.answered()
    for arm in present:
        name, below = arms[arm]
        places = np.flatnonzero(chosen.arms == arm)
        gathered.add(name, places, _of_rows(below, batch, places))
    return gathered.answered()


def _of_rows(below: AlignedNode, batch: Batch, places: NDArray[np.intp]) -> NodeAnswers:
    chosen = places.tolist()
    part = Batch(
        take_rows(batch.columns, places),
        [batch.ids[row] for row in chosen],
        [batch.entities[row] for row in chosen],
    )
    try:
        return below.answer(part)
    except InvalidInput as error:
        moved = [msgspec.structs.replace(one, row=chosen[one.row]) for one in error.fields]
        raise InvalidInput(error.message, error.fix, tuple(moved)) from error


class _Gathered:
    """Answers of the arms as they come in, by the rows that they are of."""

    def __init__(self, rows: int, chosen: ArmChoices) -> None:
        self._rows = rows
        self._chosen = chosen
        self._parts: list[tuple[NDArray[np.intp], Outputs]] = []
        self._ways: list[RoutePath] = []
        self._taken = np.zeros(rows, dtype=np.intp)
        self._marks = {chosen.node: chosen.arms.astype(np.uint32)}

    def add(self, arm: str, places: NDArray[np.intp], answered: NodeAnswers) -> None:
        self._parts.append((places, answered.outputs))
        if len(places) == self._rows:
            self._marks |= answered.marks
        else:
            for node, marks in answered.marks.items():
                whole = self._marks.setdefault(node, np.zeros(self._rows, dtype=np.uint32))
                whole[places] = marks
        self._add_ways(arm, places, answered)

    def answered(self) -> NodeAnswers:
        taken = None if len(self._ways) == 1 else self._taken
        return NodeAnswers(self._outputs(), tuple(self._ways), taken, self._marks)

    def _add_ways(self, arm: str, places: NDArray[np.intp], answered: NodeAnswers) -> None:
        rows = len(places)
        taken = [0] * rows if answered.taken is None else answered.taken.tolist()
        shares = self._chosen.propensities[places].tolist()
        known: dict[tuple[int, float], int] = {}
        for row, key in zip(places.tolist(), zip(taken, shares, strict=True), strict=True):
            if key not in known:
                known[key] = len(self._ways)
                self._ways.append(self._through(arm, key[1], answered.ways[key[0]]))
            self._taken[row] = known[key]

    def _through(self, arm: str, propensity: float, way: RoutePath) -> RoutePath:
        chosen = self._chosen
        return RoutePath(
            way.model,
            ((chosen.node, chosen.spent_us), *way.path),
            f"{arm}/{way.arm}" if way.arm else arm,
            (RouteChoice(chosen.node, arm, propensity, chosen.state), *way.choices),
        )

    def _outputs(self) -> Outputs:
        if len(self._parts) == 1:
            return self._parts[0][1]
        return Outputs(**{part.name: self._scattered(part.name) for part in fields(Outputs)})

    def _scattered(self, name: str) -> NDArray[Any] | None:
        """One array of the answers, in the order of the rows."""
        found = [(places, getattr(outputs, name)) for places, outputs in self._parts]
        missing = [array is None for _, array in found]
        if all(missing):
            return None
        if any(missing):
            raise node_failure(self._chosen.node, TypeError(f"some arms answer without {name}"))
        whole = np.empty((self._rows, *found[0][1].shape[1:]), dtype=found[0][1].dtype)
        for places, array in found:
            whole[places] = array
        return whole
