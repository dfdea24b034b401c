"""Read what a Python model answered, by the output of its signature."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clewline.errors import ModelFailed
from clewline.signature.field import Output, label_name
from clewline.signature.field_rules import float64_holds, printable_value

SUM_TOLERANCE = 1e-4
"""How far the probabilities of a row may be from 1 in all; a float32 softmax is that near."""

FORMS = (
    "labels; labels and probabilities as a pair; probabilities of shape (rows, labels); "
    'dicts with "label", "probabilities" or "value", per row or per column; or numbers'
)


@dataclass(frozen=True, slots=True)
class ModelAnswers:
    """One answer per row: a classifier's choices and perhaps probabilities, or values."""

    choices: NDArray[np.int64] | None = None  # places among the output's labels, shape (n,)
    probabilities: NDArray[np.float64] | None = None  # shape (n, labels)
    values: NDArray[np.float64] | None = None  # shape (n,)


def read_answers(
    returned: Any, output: Output, rows: int, *, who: str, labels: Sequence[Any] = ()
) -> ModelAnswers:
    """
    Read what `predict` returned.

    Args:
        returned: Labels, `(labels, probabilities)`, probabilities alone, numbers, dicts per row,
            or a dict of columns; as list, array or series.
        output: Of the signature.
        rows: Number of rows that the model was asked about.
        who: The model's name, for messages.
        labels: The labels in the order of the model's columns of probabilities; by default
            that of the output.

    Raises:
        ModelFailed: It is not one answer per row, or does not fit the output; names what came.
    """
    reader = _AnswerReader(output, rows, who, labels)
    if output.task == "regression":
        return ModelAnswers(values=reader.values(returned))
    return reader.labelled(returned)


def read_probabilities(
    returned: Any, output: Output, rows: int, *, who: str, labels: Sequence[Any] = ()
) -> NDArray[np.float64]:
    """
    Read what `predict_proba` returned: a matrix, or a dict per row.

    Takes and raises the same as `read_answers`.

    Returns:
        Shape (rows, labels of the output), in their order, each in [0, 1].
    """
    return _AnswerReader(output, rows, who, labels).probabilities(returned)


class _AnswerReader:
    def __init__(self, output: Output, rows: int, who: str, labels: Sequence[Any]) -> None:
        own = [_plain(label) for label in labels]
        self.rows, self.who = rows, who
        self.labels = [_plain(label) for label in output.labels or ()]
        self.order = own or self.labels  # of the model's own columns of probabilities
        if sorted(map(repr, self.order)) != sorted(map(repr, self.labels)):
            raise ModelFailed(
                f"The classes_ of {who} are {own}; the labels of the signature are {self.labels}.",
                "Make classes_ the labels of the target, in the order of predict_proba.",
            )

    def values(self, returned: Any) -> NDArray[np.float64]:
        cells = self._cells(_part(returned, "value", "values"))
        cells = [_part(cell, "value") for cell in cells]
        for row, cell in enumerate(cells):
            if not is_number(cell):
                raise self._wrong(f"{printable_value(cell)!r} to row {row}", "a finite number")
        return np.array(cells, dtype=np.float64)

    def labelled(self, returned: Any) -> ModelAnswers:
        if isinstance(returned, Mapping):
            labels, shares = _part(returned, "label", "labels"), _part(returned, "probabilities")
            return self._both(
                None if labels is returned else labels, None if shares is returned else shares
            )
        if _is_pair(returned):
            return self._both(*returned)
        if _is_matrix(returned):
            return self._both(None, returned)
        cells = self._cells(returned)
        if not cells or not all(isinstance(cell, Mapping) for cell in cells):
            return ModelAnswers(choices=self._choices(cells))
        if all(map(self._holds_shares, cells)):
            return self._both(None, cells)
        labels = [cell["label"] for cell in cells if "label" in cell]
        shares = [cell["probabilities"] for cell in cells if "probabilities" in cell]
        if len(labels) not in (0, self.rows) or len(shares) not in (0, self.rows):
            raise self._wrong("some rows with a label or probabilities and some without", "all")
        return self._both(labels or None, shares or None)

    def probabilities(self, returned: Any) -> NDArray[np.float64]:
        if _is_matrix(returned):
            try:
                matrix = np.asarray(returned, dtype=np.float64)
            except (TypeError, ValueError) as error:
                found = f"probabilities that are not numbers ({error})"
                raise self._wrong(found, "numbers") from error
            if matrix.shape != (self.rows, len(self.order)):
                found = f"probabilities of shape {matrix.shape}"
                raise self._wrong(found, f"shape {(self.rows, len(self.order))}")
            columns = [self.order.index(label) for label in self.labels]
            found_shares = np.ascontiguousarray(matrix[:, columns])
        else:
            shares = [self._shares(row, cell) for row, cell in enumerate(self._cells(returned))]
            found_shares = np.array(shares, dtype=np.float64).reshape(self.rows, -1)
        with np.errstate(invalid="ignore"):
            sound = (found_shares >= -SUM_TOLERANCE) & (found_shares <= 1 + SUM_TOLERANCE)
            good = sound.all(axis=1) & (np.abs(found_shares.sum(axis=1) - 1) <= SUM_TOLERANCE)
        if not good.all():
            row = int(np.argmin(good))
            wrong, total = found_shares[row].tolist(), float(found_shares[row].sum())
            raise self._wrong(
                f"the probabilities {wrong} to row {row}, {total:g} in all",
                "shares in [0, 1] with the sum 1",
            )
        return found_shares

    def _both(self, labels: Any, shares: Any) -> ModelAnswers:
        if labels is None and shares is None:
            raise self._wrong('a dict without "label" and "probabilities"', FORMS)
        found = None if shares is None else self.probabilities(shares)
        if labels is not None:
            return ModelAnswers(self._choices(self._cells(labels)), found)
        assert found is not None
        return ModelAnswers(found.argmax(axis=1).astype(np.int64), found)

    def _choices(self, cells: Sequence[Any]) -> NDArray[np.int64]:
        places = {label: place for place, label in enumerate(self.labels)}
        chosen = np.empty(self.rows, dtype=np.int64)
        for row, cell in enumerate(cells):
            place = places.get(cell) if isinstance(cell, str | int | float | bool) else None
            if place is None:
                wrong = f"{printable_value(cell)!r} to row {row}"
                raise self._wrong(wrong, f"one of {list(places)}")
            chosen[row] = place
        return chosen

    def _holds_shares(self, cell: Mapping[Any, Any]) -> bool:
        """Return whether a dict has the share of each label; a label may be called "label"."""
        if {"label", "probabilities"}.isdisjoint(cell):
            return True
        known = {*map(label_name, self.labels), *self.labels}
        return known.issuperset(cell) and all(is_number(_plain(each)) for each in cell.values())

    def _shares(self, row: int, cell: Any) -> list[float]:
        """Read the share of each label, of one row; a label may be a key as JSON writes it."""
        if not isinstance(cell, Mapping):
            wrong = f"{printable_value(cell)!r} as probabilities of row {row}"
            raise self._wrong(wrong, "a dict by label")
        known = {label_name(label): label for label in self.labels}
        known |= {label: label for label in self.labels}
        shares: dict[Any, float] = {}
        for key, share in cell.items():
            if key not in known:
                wrong = f"the label {printable_value(key)!r} to row {row}"
                raise self._wrong(wrong, f"one of {list(self.labels)}")
            if not is_number(_plain(share)):
                wrong = f"the probability {printable_value(_plain(share))!r} to row {row}"
                raise self._wrong(wrong, "a finite number")
            shares[known[key]] = float(share)
        return [shares.get(label, 0.0) for label in self.labels]

    def _cells(self, returned: Any) -> Sequence[Any]:
        """Return one answer per row, as plain Python values."""
        if isinstance(returned, str | bytes | Mapping) or not hasattr(returned, "__len__"):
            raise self._wrong(f"a {type(returned).__name__}", FORMS)
        kind = getattr(getattr(returned, "dtype", None), "kind", "")
        has_list = hasattr(returned, "tolist") and kind not in ("m", "M")
        cells = returned.tolist() if has_list else list(returned)
        if not isinstance(cells, list):
            raise self._wrong(f"a single {type(cells).__name__}", FORMS)
        if len(cells) != self.rows:
            raise self._wrong(f"{len(cells)} answers", f"{self.rows}, one per row")
        return [_plain(cell) for cell in cells]

    def _wrong(self, found: str, expected: str) -> ModelFailed:
        return ModelFailed(
            f"{self.who} answered {self.rows} rows with {found}; expected {expected}.",
            "Make the class answer as its signature states, and register it again.",
        )


def _part(returned: Any, *names: str) -> Any:
    """Return a named part of a dict; anything else, or a dict without it, as it is."""
    if isinstance(returned, Mapping):
        return next((returned[name] for name in names if name in returned), returned)
    return returned


def _is_pair(returned: Any) -> bool:
    """Return whether it is `(labels, probabilities)` rather than the answers to two rows."""
    if not isinstance(returned, tuple) or len(returned) != 2:
        return False
    second = returned[1]
    return _is_matrix(second) or (
        isinstance(second, Sequence)
        and not isinstance(second, str)
        and all(isinstance(cell, Mapping) for cell in second)
    )


def _is_matrix(returned: Any) -> bool:
    """Return whether it has two axes; a single column is one answer per row, not a matrix."""
    if isinstance(returned, list | tuple):
        several = all(isinstance(cell, list | tuple | np.ndarray) for cell in returned)
        return bool(returned) and several and any(len(cell) != 1 for cell in returned)
    shape: tuple[int, ...] = getattr(returned, "shape", ())
    return len(shape) == 2 and shape[1] != 1


def is_number(cell: Any) -> bool:
    """Return whether it is a finite number that float64 holds without rounding it."""
    if isinstance(cell, int):
        return not isinstance(cell, bool) and float64_holds(cell)
    return isinstance(cell, float) and math.isfinite(cell)


def _plain(cell: Any) -> Any:
    """Return the Python value of a NumPy scalar or of a list of one value."""
    return plain_scalar(cell[0] if isinstance(cell, list) and len(cell) == 1 else cell)


def plain_scalar(cell: Any) -> Any:
    """Return the Python value of a NumPy scalar; anything else as it is."""
    # NumPy would make an integer of a date-time in nanoseconds.
    is_plain = isinstance(cell, np.generic) and cell.dtype.kind not in "mM"
    return cell.item() if is_plain else cell
