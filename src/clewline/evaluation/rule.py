"""Rules that a person can read and follow: one answer always, or one question about one field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clewline.evaluation.columns import BaselineColumn, LevelColumn, NumericColumn
from clewline.signature import timestamps

_NAMED = 6  # levels of a set that a rule's text names


@dataclass(frozen=True, slots=True)
class ConstantRule:
    """The same answer for every row."""

    def sides(self, columns: dict[str, BaselineColumn], rows: int) -> NDArray[np.int64]:
        """The side of each row, shape (n,)."""
        return np.zeros(rows, dtype=np.int64)

    def words(self, answers: list[str]) -> str:
        """The rule in words; `answers` has one text a side."""
        return f"always {answers[0]}"


@dataclass(frozen=True, slots=True)
class ThresholdRule:
    """Side 1 above a threshold (or up to it); null and the others stand on side 0."""

    field: str
    threshold: float
    above: bool = True
    instants: bool = False

    def sides(self, columns: dict[str, BaselineColumn], rows: int) -> NDArray[np.int64]:
        """The side of each row, shape (n,); all 0 when the column is not there."""
        column = columns.get(self.field)
        if not isinstance(column, NumericColumn):
            return np.zeros(rows, dtype=np.int64)
        if self.above:
            return (column.values > self.threshold).astype(np.int64)
        return (column.values <= self.threshold).astype(np.int64)

    def words(self, answers: list[str]) -> str:
        """The rule in words; `answers` has one text a side."""
        sign = ">" if self.above else "<="
        at = (
            timestamps.format_microseconds(self.threshold)
            if self.instants
            else f"{self.threshold:.15g}"
        )
        return f"{self.field} {sign} {at} → {answers[1]}, else {answers[0]}"


@dataclass(frozen=True, slots=True)
class LevelSetRule:
    """Each set of levels has a side, 1 and on; null and other levels stand on side 0."""

    field: str
    sets: tuple[tuple[Any, ...], ...]

    def sides(self, columns: dict[str, BaselineColumn], rows: int) -> NDArray[np.int64]:
        """The side of each row, shape (n,); all 0 when the column is not there."""
        column = columns.get(self.field)
        if not isinstance(column, LevelColumn):
            return np.zeros(rows, dtype=np.int64)
        side = {level: place for place, levels in enumerate(self.sets, 1) for level in levels}
        return np.array([side.get(value, 0) for value in column.values.tolist()], dtype=np.int64)

    def words(self, answers: list[str]) -> str:
        """The rule in words; `answers` has one text a side."""
        parts = [
            f"{self.field} {_levels(levels)} → {answers[place]}"
            for place, levels in enumerate(self.sets, 1)
        ]
        return (
            f"{'; '.join(parts)}; else {answers[0]}"
            if len(parts) > 1
            else (f"{parts[0]}, else {answers[0]}")
        )


SimpleRule = ConstantRule | ThresholdRule | LevelSetRule


def _levels(levels: tuple[Any, ...]) -> str:
    named = [str(level).lower() if isinstance(level, bool) else str(level) for level in levels]
    if len(named) == 1:
        return f"is {named[0]}"
    more = f", … {len(named)} in all" if len(named) > _NAMED else ""
    return f"in {{{', '.join(named[:_NAMED])}{more}}}"
