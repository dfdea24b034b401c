"""Predictors and transformers, the outputs that they give, and rows cut apart and joined."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from clewline.errors import InvalidInput
from clewline.signature.columns import Columns
from clewline.signature.field import Output

Scalar = TypeVar("Scalar", bound=np.generic)
Rows = slice | NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Outputs:
    """
    Answers, one for each row.

    A classifier fills `choices` (index into the signature's labels) and
    `probabilities`; a regressor fills `values`; a model that answers with arrays, `tensor`.
    """

    choices: NDArray[np.int64] | None = None  # shape (n,)
    probabilities: NDArray[np.float64] | None = None  # shape (n, labels)
    values: NDArray[np.float64] | None = None  # shape (n,)
    tensor: NDArray[np.generic] | None = None  # shape (n, *shape of the signature's output)

    def __len__(self) -> int:
        for part in (self.choices, self.values, self.tensor):
            if part is not None:
                return len(part)
        raise TypeError("outputs that hold no answers have no length")

    @property
    def arrays(self) -> tuple[NDArray[np.generic] | None, ...]:
        """All arrays, in the order of the fields."""
        return (self.choices, self.probabilities, self.values, self.tensor)

    def to_bytes(self) -> list[bytes | None]:
        """Return the bits of every array."""
        return [None if array is None else array.tobytes() for array in self.arrays]


class Predictor(Protocol):
    """
    A loaded model.

    May be called from any thread, one call at a time. The same row gives the
    same bits in every batch. Owns its memory until `close`.
    """

    def predict(self, columns: Columns) -> Outputs: ...

    def close(self) -> None: ...


@runtime_checkable
class Transformer(Protocol):
    """
    Loaded preprocessing: a package whose signature's task is "transform".

    What `Predictor` promises about threads, bits and memory holds here too. Takes rows
    of the signature's fields and returns the same rows, in order, as the fields of its
    output: the columns stand as `signature.transformed` orders them.
    """

    def transform(self, columns: Columns) -> Columns: ...

    def close(self) -> None: ...


class FunctionPredictor:
    """
    A function that answers rows, as a `Predictor`.

    Args:
        answer: Answers rows; raises `InvalidInput` if the model refuses one.
        rows_per_call: 1 if the model's bits depend on the batch; None if they do not.
        on_close: Called once, when the predictor is closed.
        warnings: Sentences about what was noticed at loading.
    """

    def __init__(
        self,
        answer: Callable[[Columns], Outputs],
        rows_per_call: int | None = None,
        on_close: Callable[[], None] | None = None,
        warnings: tuple[str, ...] = (),
    ) -> None:
        self.warnings = warnings
        self._on_close = on_close
        # An attribute, so that the path of a request does not cross a method that forwards.
        self.predict: Callable[[Columns], Outputs] = (
            answer
            if rows_per_call is None
            else partial(predict_in_batches, answer, size=rows_per_call)
        )

    def close(self) -> None:
        """Free the model."""
        self.predict = _closed
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close()


class FunctionTransformer:
    """A function that transforms rows, as a `Transformer`; arguments as of `FunctionPredictor`."""

    def __init__(
        self, change: Callable[[Columns], Columns], rows_per_call: int | None = None
    ) -> None:
        self._change, self._size = change, rows_per_call

    def transform(self, columns: Columns) -> Columns:
        """Transform rows; raises `InvalidInput` if the preprocessing refuses one."""
        if self._size is None or len(columns) <= self._size:
            return self._change(columns)
        return stack_rows([self._change(piece) for piece in _pieces(columns, self._size)])

    def close(self) -> None:
        """Free the preprocessing."""
        self._change = _closed


def predict_in_batches(
    predict: Callable[[Columns], Outputs], columns: Columns, size: int | None
) -> Outputs:
    """Answer rows, at most `size` in a call; all at once if it is None."""
    if size is None or len(columns) <= size:
        return predict(columns)
    return join_outputs([predict(piece) for piece in _pieces(columns, size)])


def predict_function(loaded: Predictor | Transformer) -> Callable[[Columns], Outputs]:
    """Return what answers rows, also for preprocessing: its columns become outputs."""
    if isinstance(loaded, Transformer):
        return lambda columns: columns_as_outputs(loaded.transform(columns))
    return loaded.predict


def columns_as_outputs(columns: Columns) -> Outputs:
    """Return transformed rows as outputs, so that they are compared as answers are."""
    if not columns.texts.size:
        return Outputs(values=columns.numbers)
    rows = [
        ["\x00null" if text is None else text for text in row] for row in columns.texts.tolist()
    ]
    return Outputs(values=columns.numbers, tensor=np.array(rows, dtype=str))


def label_order(classes: Any, output: Output) -> list[int]:
    """
    Return the place of each of the signature's labels among a model's classes.

    Raises:
        InvalidInput: The two are not the same labels.
    """
    known = [plain_label(label) for label in classes]
    wanted = [plain_label(label) for label in output.labels or ()]
    if sorted(map(repr, known)) != sorted(map(repr, wanted)):
        raise InvalidInput(
            f"The model answers {known}, but the column {output.name!r} holds {wanted}.",
            "Pass the target and the tables that the model was trained on.",
        )
    return [known.index(label) for label in wanted]


def plain_label(label: Any) -> Any:
    """Return a label as a plain Python value."""
    return label.item() if isinstance(label, np.generic) else label


def take_rows(columns: Columns, rows: Rows) -> Columns:
    """Take some rows."""
    return Columns(
        np.ascontiguousarray(columns.numbers[rows]),
        np.ascontiguousarray(columns.texts[rows]),
        {name: values[rows] for name, values in columns.tensors.items()},
    )


def take_outputs(outputs: Outputs, rows: Rows) -> Outputs:
    """Take the answers of some rows."""
    return Outputs(*(None if array is None else array[rows] for array in outputs.arrays))  # type: ignore[arg-type]


def join_outputs(parts: list[Outputs]) -> Outputs:
    """Join the answers of several calls."""
    columns = zip(*(part.arrays for part in parts), strict=True)
    return Outputs(*(None if each[0] is None else np.concatenate(each) for each in columns))


def stack_rows(parts: list[Columns]) -> Columns:
    """Join the rows of several tables."""
    return Columns(
        np.concatenate([part.numbers for part in parts]),
        np.concatenate([part.texts for part in parts]),
        {name: np.concatenate([part.tensors[name] for part in parts]) for name in parts[0].tensors},
    )


def _pieces(columns: Columns, size: int) -> list[Columns]:
    return [take_rows(columns, slice(at, at + size)) for at in range(0, len(columns), size)]


def _closed(*_: object) -> Any:
    raise RuntimeError("The predictor was closed.")
