"""
Counterfactuals of one row: small changes of its fields after which the model answers otherwise.

Every background row that has the wanted answer is a candidate. Of an ensemble of trees it stands
for the whole box of its leaves, and the row is moved to the nearest point of that box; of other
models the candidate's own values are taken. Then changes are taken back as long as the answer
stays. Each result has been answered by the model itself.

Source:
    Boxes around data rows: Carreira-Perpiñán, Hada, Very fast, approximate counterfactual
    explanations for decision forests (AAAI 2023).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clewline.explain.leaf_boxes import FieldBoxes, LeafBoxes
from clewline.explain.row_distances import RowDistances
from clewline.model.runtime.outputs import Outputs, take_rows
from clewline.signature.columns import Columns
from clewline.signature.field import Signature

TRIED = 256
"""Candidates, the nearest first, that the model is asked about."""

REDUCED = 24
"""Candidates with the wanted answer, the nearest first, whose changes are taken back."""

Direction = Literal["up", "down"]


@dataclass(frozen=True, slots=True)
class ChangeLimits:
    """Which changes are allowed."""

    keep: frozenset[str] = frozenset()  # fields that must not change
    one_way: Mapping[str, Direction] = field(default_factory=dict)  # of numbers
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # both ends included
    levels: Mapping[str, frozenset[str]] = field(default_factory=dict)  # of texts
    together: tuple[frozenset[str], ...] = ()  # if one of them changes, a background row has them


class CounterfactualRows(NamedTuple):
    """Rows with the wanted answer, the nearest first."""

    rows: Columns  # n rows
    changed: NDArray[np.bool_]  # (n, fields)
    distances: NDArray[np.float64]  # (n,)
    model_rows: int  # that the model answered
    is_budget_spent: bool


class CounterfactualSearch:
    """
    Finds rows near a row that a model answers otherwise.

    Args:
        predict: Asks the model.
        background: At least one checked row.
        signature: Of the model.
        boxes: Of an ensemble of trees; None for other models.
        answers: Of the model to the background rows; it is asked if they are None.
    """

    def __init__(
        self,
        predict: Callable[[Columns], Outputs],
        background: Columns,
        signature: Signature,
        boxes: LeafBoxes | None = None,
        answers: Outputs | None = None,
    ) -> None:
        self._predict, self._signature, self._boxes = predict, signature, boxes
        self._background, self._metric = background, RowDistances(background, signature)
        self._answers = predict(background) if answers is None else answers
        self._around = None if boxes is None else boxes.around(background)

    def find(
        self,
        row: Columns,
        wanted: Callable[[Outputs], NDArray[np.bool_]],
        *,
        limits: ChangeLimits,
        count: int = 3,
        budget: int = 20_000,
    ) -> CounterfactualRows:
        """
        Find rows near one row that have a wanted answer; no two change the same set of fields.

        Distances are those of `RowDistances`.

        Args:
            row: One checked row.
            wanted: Says which answers are wanted.
            limits: Which changes are allowed. They hold for every result.
            count: Maximum number of results.
            budget: Maximum number of rows that the model answers, besides the background.
        """
        ask = _Budget(lambda rows: wanted(self._predict(rows)), budget)
        change = _Change(row, self._background, self._metric, self._signature, limits)
        fitting = np.flatnonzero(wanted(self._answers))
        candidates = take_rows(self._background, fitting)
        if self._boxes is not None and self._around is not None:
            around = self._around.take(fitting)
            moved = _nearest_points(
                self._boxes, around, row, candidates, self._signature, limits.ranges
            )
            # Dependent fields stay as the background row has them together.
            candidates = change.apply_dependent(moved, candidates)
        distances = change.distances(candidates)
        allowed = change.allowed(candidates, distances)
        order = np.argsort(distances.sum(axis=1), kind="stable")
        candidates = take_rows(candidates, order[allowed[order]][:TRIED])
        candidates = take_rows(candidates, np.flatnonzero(ask(candidates))[:REDUCED])
        distances = change.distances(candidates)
        changed = distances > 0
        going = np.ones(len(candidates), dtype=bool)
        while going.any():
            tried, places = np.nonzero(changed & going[:, None])
            without = changed[tried].copy()
            without[np.arange(len(tried)), places] = False
            rows = change.apply(take_rows(candidates, tried), without)
            holds = ask(rows) & change.occurs(rows, without)
            going[:] = False
            # Of each candidate the largest change that is not needed is taken back.
            for at in np.argsort(-distances[tried, places], kind="stable").tolist():
                if holds[at] and not going[tried[at]]:
                    changed[tried[at], places[at]], going[tried[at]] = False, True
        rows = change.apply(candidates, changed)
        totals = (distances * changed).sum(axis=1)
        chosen: list[int] = []
        sets: set[bytes] = set()
        for at in np.argsort(totals, kind="stable").tolist():
            if changed[at].any() and changed[at].tobytes() not in sets and len(chosen) < count:
                sets.add(changed[at].tobytes())
                chosen.append(at)
        kept = np.array(chosen, dtype=np.intp)
        rows, changed = take_rows(rows, kept), changed[kept]
        rounded = change.rounded(rows)
        holds = ask(rounded) & change.allowed(rounded, change.distances(rounded))
        numbers = np.where(holds[:, None], rounded.numbers, rows.numbers)
        rows = Columns(numbers, rows.texts, rows.tensors)
        distances = (change.distances(rows) * changed).sum(axis=1)
        return CounterfactualRows(rows, changed, distances, ask.spent, ask.is_spent)


class _Budget:
    """Asks the model, and answers "no" for the rows that the budget does not cover."""

    def __init__(self, wanted: Callable[[Columns], NDArray[np.bool_]], budget: int) -> None:
        self._wanted, self._left = wanted, budget
        self.spent, self.is_spent = 0, False

    def __call__(self, rows: Columns) -> NDArray[np.bool_]:
        answers = np.zeros(len(rows), dtype=bool)
        count = min(len(rows), self._left)
        if count:
            answers[:count] = self._wanted(take_rows(rows, slice(0, count)))
        self._left -= count
        self.spent += count
        self.is_spent |= count < len(rows)
        return answers


class _Change:
    """Distances between a row and others, and what may change. Arrays are (n, fields)."""

    def __init__(
        self,
        row: Columns,
        background: Columns,
        metric: RowDistances,
        signature: Signature,
        limits: ChangeLimits,
    ) -> None:
        self._row, self._metric, self._signature = row, metric, signature
        place = {each.name: at for at, each in enumerate(signature.fields)}
        self._numbers = [place[each.name] for each in signature.numeric]
        self._texts = [place[each.name] for each in signature.textual]
        self._tensors = [place[each.name] for each in signature.tensors]
        self._kept = np.array([each.name in limits.keep for each in signature.fields])
        self._limits = limits
        names = {each.name for each in signature.fields}
        self._together = [
            (sorted(place[name] for name in group & names), group & names)
            for group in limits.together
        ]
        self._dependent = np.array(
            [any(each.name in group for group in limits.together) for each in signature.fields]
        )
        self._known = [set(_combinations(background, signature, g)) for _, g in self._together]

    def distances(self, rows: Columns) -> NDArray[np.float64]:
        return self._metric.between(rows, self._row)

    def allowed(self, rows: Columns, distances: NDArray[np.float64]) -> NDArray[np.bool_]:
        changed = distances > 0
        found: NDArray[np.bool_] = ~np.logical_or.reduce(changed[:, self._kept], axis=1)
        for column, each in enumerate(self._signature.numeric):
            moved, value = changed[:, self._numbers[column]], rows.numbers[:, column]
            was = self._row.numbers[0, column]
            if direction := self._limits.one_way.get(each.name):
                found &= ~moved | (value > was if direction == "up" else value < was)
            if ends := self._limits.ranges.get(each.name):
                found &= ~moved | ((ends[0] <= value) & (value <= ends[1]))
        for column, each in enumerate(self._signature.textual):
            if (levels := self._limits.levels.get(each.name)) is not None:
                known = [text in levels for text in rows.texts[:, column].tolist()]
                found &= ~changed[:, self._texts[column]] | np.array(known, dtype=bool)
        return found & self.occurs(rows, changed)

    def occurs(self, rows: Columns, changed: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Tell of which rows every combination of dependent fields is a background row's."""
        found = np.ones(len(rows), dtype=bool)
        for (places, group), known in zip(self._together, self._known, strict=True):
            moved = changed[:, places].any(axis=1)
            if moved.any():
                seen = [each in known for each in _combinations(rows, self._signature, group)]
                found &= ~moved | np.array(seen, dtype=bool)
        return found

    def apply_dependent(self, rows: Columns, others: Columns) -> Columns:
        """Return the rows with the dependent fields of others."""
        numbers = np.where(self._dependent[self._numbers], others.numbers, rows.numbers)
        texts = np.where(self._dependent[self._texts], others.texts, rows.texts)
        return Columns(numbers, texts, rows.tensors)

    def apply(self, rows: Columns, changed: NDArray[np.bool_]) -> Columns:
        """Return the row with the changed fields of other rows."""
        numbers = np.where(changed[:, self._numbers], rows.numbers, self._row.numbers)
        texts = np.where(changed[:, self._texts], rows.texts, self._row.texts)
        tensors = {}
        for at, each in zip(self._tensors, self._signature.tensors, strict=True):
            own, other = self._row.tensors[each.name], rows.tensors[each.name]
            mask = changed[:, at].reshape(-1, *[1] * (other.ndim - 1))
            tensors[each.name] = np.where(mask, other, own)
        return Columns(numbers, texts, tensors)

    def rounded(self, rows: Columns) -> Columns:
        """Return rows whose numbers have few digits, moved by at most 1 % of their change."""
        numbers = rows.numbers.copy()
        for column, each in enumerate(self._signature.numeric):
            if each.kind != "number":
                continue
            was = self._row.numbers[0, column]
            for at, value in enumerate(numbers[:, column].tolist()):
                if np.isfinite(was) and np.isfinite(value) and value != was:
                    numbers[at, column] = _shortest(value, was)
        return Columns(numbers, rows.texts, rows.tensors)


def _combinations(rows: Columns, signature: Signature, group: frozenset[str]) -> Iterator[Any]:
    """Yield the values of a group of fields, row by row; tensors depend on nothing."""
    columns: list[list[Any]] = []
    for at, each in enumerate(signature.numeric):
        if each.name in group:
            numbers = rows.numbers[:, at]
            columns.append([None if number != number else number for number in numbers.tolist()])
    for at, each in enumerate(signature.textual):
        if each.name in group:
            columns.append(rows.texts[:, at].tolist())
    return zip(*columns, strict=True)


def _shortest(value: float, was: float) -> float:
    """
    Return the number of fewest decimals at a value, or beyond it by at most 1 % of the change.

    >>> _shortest(45.50000000000001, 40.0), _shortest(3.9999, 0.0)
    (45.51, 4.0)
    """
    outward = math.ceil if value > was else math.floor
    for decimals in range(-15, 16):
        try:
            found = round(outward(value * 10.0**decimals) / 10.0**decimals, max(decimals, 0))
        except OverflowError:
            return value
        if abs(found - value) <= 0.01 * abs(value - was) and (found >= value) == (value > was):
            return found
    return value


def _nearest_points(
    boxes: LeafBoxes,
    around: FieldBoxes,
    row: Columns,
    background: Columns,
    signature: Signature,
    ranges: Mapping[str, tuple[float, float]],
) -> Columns:
    """Move the row into the box around each background row, no further than needed, in ranges."""
    matrix, codes = boxes.trees.encode(row)
    value = matrix[0, boxes.number_column]
    value = np.where(boxes.number_negated, -value, value)
    holds = np.where(
        np.isnan(value), around.null, (around.low < value) & (value <= around.high)
    )  # (n, G)
    numbers, texts = background.numbers.copy(), background.texts.copy()
    for column, each in enumerate(signature.numeric):
        mine = np.flatnonzero([boxes.players[at] == each.name for at in boxes.number_player])
        own, kind = row.numbers[0, column], each.kind
        inside = holds[:, mine].all(axis=1)
        if len(mine) == 1 and boxes.number_is_raw[mine[0]] and not np.isnan(own):
            low, high = around.low[:, mine[0]], around.high[:, mine[0]]
            least, most = ranges.get(each.name, (-np.inf, np.inf))
            with np.errstate(over="ignore"):  # next to an open end
                above = np.maximum(np.nextafter(low, np.inf), least)
                nearest = np.clip(own, above, np.minimum(high, most))
            if kind in ("integer", "datetime"):
                nearest = np.where(nearest > own, np.ceil(nearest), np.floor(nearest))
            known = ~np.isnan(numbers[:, column]) & (kind != "boolean")
            fits = known & (low < nearest) & (nearest <= high)
            fits &= (least <= nearest) & (nearest <= most)
            numbers[:, column] = np.where(fits, nearest, numbers[:, column])
        numbers[inside, column] = own
    texts_read = {boxes.players[player]: place for place, player in enumerate(boxes.code_player)}
    for column, each in enumerate(signature.textual):
        inside = np.ones(len(background), dtype=bool)
        if each.name in texts_read:
            place = texts_read[each.name]
            word, bit = divmod(int(codes[place, 0]), 64)
            bits = around.codes[:, boxes.code_word[place] + word] >> np.uint64(bit)
            inside = (bits & np.uint64(1)).astype(bool)
        texts[inside, column] = row.texts[0, column]
    tensors = {name: np.repeat(own, len(background), axis=0) for name, own in row.tensors.items()}
    return Columns(numbers, texts, tensors)
