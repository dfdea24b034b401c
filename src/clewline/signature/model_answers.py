"""What a model that is a Python object answered, read against the output of its signature."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.errors import ModelFailed
from clewline.signature.field import Output
from clewline.signature.field_rules import printable_value

SUM_TOLERANCE = 1e-4
"""How far the probabilities of a row may be from 1 in all; a float32 softmax is that near."""

FORMS = (
    "labels; labels and probabilities as a pair; probabilities of shape (rows, labels); "
    'dicts with "label", "probabilities" or "value", a row each or a column each; or numbers'
)


@dataclass(frozen=True, slots=True)
class ModelAnswers:
    """Answers, one a row: choices and perhaps probabilities of a classifier, or values."""

    choices: NDArray[np.int64] | None = None  # places among the output's labels, shape (n,)
    probabilities: NDArray[np.float64] | None = None  # shape (n, labels)
    values: NDArray[np.float64] | None = None  # shape (n,)


def read_answers(
    said: Any, output: Output, rows: int, *, who: str, labels: Sequence[Any] = ()
) -> ModelAnswers:
    """
    Read what `predict` gave.

    Args:
        said: Labels, `(labels, probabilities)`, probabilities alone, numbers, dicts a row
            or a dict of columns; as list, array or series.
        output: Of the signature.
        rows: How many were asked about.
        who: Whose answer it is, for messages.
        labels: In whose order the model gives the columns of its probabilities; by
            default that of the output.

    Raises:
        ModelFailed: It is not one answer a row, or not what the output says; names
            what came.
    """
    reader = _reader(output, rows, who, labels)
    if output.task == "regression":
        return ModelAnswers(values=reader.values(said))
    return reader.labelled(said)


def read_probabilities(
    said: Any, output: Output, rows: int, *, who: str, labels: Sequence[Any] = ()
) -> NDArray[np.float64]:
    """
    Read what `predict_proba` gave: a matrix, or a dict a row; otherwise as `read_answers`.

    Returns:
        Shape (rows, labels of the output), in their order.
    """
    return _reader(output, rows, who, labels).probabilities(said)


def _reader(output: Output, rows: int, who: str, labels: Sequence[Any]) -> _Reader:
    own = [_plain(label) for label in labels]
    order = [_plain(label) for label in output.labels or ()]
    if own and sorted(map(repr, own)) != sorted(map(repr, order)):
        raise ModelFailed(
            f"{who} says in classes_ that it answers {own}; the signature says {order}.",
            "Make classes_ the labels of the target, in the order of predict_proba.",
        )
    return _Reader(output, rows, who, tuple(own or order))


@dataclass(frozen=True, slots=True)
class _Reader:
    output: Output
    rows: int
    who: str
    order: tuple[Any, ...]  # of the model's own columns of probabilities

    def values(self, said: Any) -> NDArray[np.float64]:
        """Read numbers."""
        cells = self._cells(_column(said, ("value", "values")))
        cells = [_column(cell, ("value",)) if isinstance(cell, Mapping) else cell for cell in cells]
        for row, cell in enumerate(cells):
            if not _is_number(cell):
                raise self._wrong(f"{printable_value(cell)!r} to row {row}", "a finite number")
        return np.array(cells, dtype=np.float64)

    def labelled(self, said: Any) -> ModelAnswers:
        """Read labels and probabilities."""
        if isinstance(said, Mapping):
            labels = _column(said, ("label", "labels"))
            shares = _column(said, ("probabilities",))
            return self._both(
                None if labels is said else labels, None if shares is said else shares
            )
        if _is_pair(said):
            return self._both(*said)
        if _is_table(said):
            return self._both(None, said)
        cells = self._cells(said)
        if cells and all(isinstance(cell, Mapping) for cell in cells):
            return self._of_dicts(cells)
        return ModelAnswers(choices=self._choices(cells))

    def probabilities(self, said: Any) -> NDArray[np.float64]:
        """Read a matrix of probabilities, or a dict a row."""
        if not _is_table(said):
            said = [self._shares(row, cell) for row, cell in enumerate(self._cells(said))]
            return self._checked(np.array(said, dtype=np.float64).reshape(self.rows, -1))
        matrix = self._matrix(said)
        if matrix.shape != (self.rows, len(self.order)):
            raise self._wrong(
                f"probabilities of shape {matrix.shape}", f"shape {(self.rows, len(self.order))}"
            )
        places = [self.order.index(label) for label in self.output.labels or ()]
        return self._checked(np.ascontiguousarray(matrix[:, places]))

    def _both(self, labels: Any, shares: Any) -> ModelAnswers:
        if labels is None and shares is None:
            raise self._wrong('a dict without "label" and "probabilities"', FORMS)
        found = None if shares is None else self.probabilities(shares)
        if labels is not None:
            return ModelAnswers(self._choices(self._cells(labels)), found)
        assert found is not None
        return ModelAnswers(found.argmax(axis=1).astype(np.int64), found)

    def _of_dicts(self, cells: Sequence[Mapping[Any, Any]]) -> ModelAnswers:
        """Read a dict a row: of named parts, or of the share of each label."""
        if not all({"label", "probabilities"} & set(cell) for cell in cells):
            return self._both(None, cells)
        labels = [cell["label"] for cell in cells if "label" in cell]
        shares = [cell["probabilities"] for cell in cells if "probabilities" in cell]
        if len(labels) not in (0, self.rows) or len(shares) not in (0, self.rows):
            raise self._wrong("some rows with a label or probabilities and some without", "all")
        return self._both(labels or None, shares or None)

    def _choices(self, cells: Sequence[Any]) -> NDArray[np.int64]:
        places = {label: place for place, label in enumerate(self.output.labels or ())}
        chosen = np.empty(self.rows, dtype=np.int64)
        for row, cell in enumerate(cells):
            place = places.get(cell) if isinstance(cell, str | int | float | bool) else None
            if place is None:
                raise self._wrong(
                    f"{printable_value(cell)!r} to row {row}", f"one of {list(places)}"
                )
            chosen[row] = place
        return chosen

    def _shares(self, row: int, cell: Any) -> list[float]:
        """Read the share of each label, of one row."""
        known = {
            name: label for label in self.output.labels or () for name in (label, _name(label))
        }
        if not isinstance(cell, Mapping):
            raise self._wrong(
                f"{printable_value(cell)!r} as probabilities of row {row}", "a dict by label"
            )
        strange = next((key for key in cell if key not in known), None)
        if strange is not None:
            raise self._wrong(
                f"the label {printable_value(strange)!r} to row {row}",
                f"one of {list(self.output.labels or ())}",
            )
        wrong = next((each for each in map(_plain, cell.values()) if not _is_number(each)), None)
        if wrong is not None:
            raise self._wrong(
                f"the probability {printable_value(wrong)!r} to row {row}", "a finite number"
            )
        by_label = {known[key]: share for key, share in cell.items()}
        return [float(by_label.get(label, 0.0)) for label in self.output.labels or ()]

    def _checked(self, found: NDArray[np.float64]) -> NDArray[np.float64]:
        """Hold probabilities to be finite, in [0, 1] and 1 in all."""
        with np.errstate(invalid="ignore"):
            sound = (found >= -SUM_TOLERANCE) & (found <= 1 + SUM_TOLERANCE)
            good = sound.all(axis=1) & (np.abs(found.sum(axis=1) - 1) <= SUM_TOLERANCE)
        if not good.all():
            row = int(np.argmin(good))
            total = float(found[row].sum())
            raise self._wrong(
                f"the probabilities {found[row].tolist()} to row {row}, {total:g} in all",
                "shares in [0, 1] that are 1 in all",
            )
        return found

    def _matrix(self, said: Any) -> NDArray[np.float64]:
        try:
            return np.asarray(said, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise self._wrong(f"probabilities that are no numbers ({error})", "numbers") from error

    def _cells(self, said: Any) -> Sequence[Any]:
        """Take one answer a row, as plain Python values."""
        if isinstance(said, str | bytes | Mapping) or not hasattr(said, "__len__"):
            raise self._wrong(f"a {type(said).__name__}", FORMS)
        cells = said.tolist() if hasattr(said, "tolist") else list(said)
        if not isinstance(cells, list):
            raise self._wrong(f"a single {type(cells).__name__}", FORMS)
        if len(cells) != self.rows:
            raise self._wrong(f"{len(cells)} answers", f"{self.rows}, one a row")
        return [_plain(cell) for cell in cells]

    def _wrong(self, came: str, wanted: str) -> ModelFailed:
        return ModelFailed(
            f"{self.who} answered {self.rows} rows with {came}; {wanted} was expected.",
            "Its signature says what it answers; mend the class and register it again.",
        )


def _column(said: Any, names: tuple[str, ...]) -> Any:
    """Take a named part of a dict; what is no dict, or has none of the names, as it is."""
    if isinstance(said, Mapping):
        return next((said[name] for name in names if name in said), said)
    return said


def _is_pair(said: Any) -> bool:
    """Whether it is `(labels, probabilities)` rather than the answers to two rows."""
    if not isinstance(said, tuple) or len(said) != 2:
        return False
    second = said[1]
    return _is_table(second) or (
        isinstance(second, Sequence)
        and not isinstance(second, str)
        and all(isinstance(cell, Mapping) for cell in second)
    )


def _is_table(said: Any) -> bool:
    """Whether it has two axes; a single column is one answer a row, and no table."""
    if isinstance(said, list | tuple):
        several = all(isinstance(cell, list | tuple | np.ndarray) for cell in said)
        return bool(said) and several and any(len(cell) != 1 for cell in said)
    shape: tuple[int, ...] = getattr(said, "shape", ())
    return len(shape) == 2 and shape[1] != 1


def _is_number(cell: Any) -> bool:
    return isinstance(cell, int | float) and not isinstance(cell, bool) and math.isfinite(cell)


def _plain(cell: Any) -> Any:
    """A Python value in place of a NumPy one or of an array of one."""
    if isinstance(cell, list) and len(cell) == 1:
        cell = cell[0]
    return cell.item() if isinstance(cell, np.generic) else cell


def _name(label: Any) -> str:
    """A label as a key of JSON."""
    return label if isinstance(label, str) else msgspec.json.encode(label).decode()
