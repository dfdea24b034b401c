"""A model that is asked again about test rows of which some columns are replaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from clewline.errors import ModelFailed
from clewline.evaluation.answers import EvaluationTask, ModelPredictions, ask_rows
from clewline.evaluation.metrics import Floats, Integers
from clewline.signature import dataframes

ROWS_PER_CALL = 20_000


class AskedModel:
    """
    Test rows, and the model that answers them after a change.

    Columns keep their types: a replaced value is the value of another row, null, or a sum.

    Args:
        model: Has `predict`; may have `predict_proba`.
        task: Of the evaluation.
        features: The test table without the target, n rows.
    """

    def __init__(self, model: Any, task: EvaluationTask, features: Any) -> None:
        self._model, self._task = model, task
        self._table = dataframes.open_table(features)
        self.model_rows = 0  # that the model answered

    def ask(self, rows: Integers, names: Sequence[str] = (), source: Integers | None = None) -> Any:
        """
        Ask the model.

        Args:
            rows: Which rows to ask about, shape (m,).
            names: Columns that are replaced.
            source: Of each asked row the row that the replaced values come from, shape (m,).

        Returns:
            `ModelPredictions` of m rows.

        Raises:
            ModelFailed: The model raised, or refused a row that was made of two.
        """
        sources = {} if source is None else dict.fromkeys(names, source)
        return self.ask_mixed(rows, sources)

    def ask_mixed(self, rows: Integers, sources: Mapping[str, Integers]) -> ModelPredictions:
        """
        Ask the model about rows whose columns come from several others.

        Args:
            rows: Which rows to ask about, shape (m,).
            sources: Column → of each asked row the row that its value comes from, shape (m,).
        """

        def change(table: Any, piece: slice) -> Any:
            columns = (self._table[name][from_[piece].tolist()] for name, from_ in sources.items())
            return table.with_columns(*columns)

        return self._ask(rows, change)

    def ask_noisy(self, rows: Integers, noise: Mapping[str, Floats]) -> ModelPredictions:
        """
        Ask the model about rows to whose numbers something is added; integers stay integers.

        Args:
            rows: Which rows to ask about, shape (m,).
            noise: Column of numbers → what is added, shape (m,).
        """
        import narwhals as nw

        def change(table: Any, piece: slice) -> Any:
            changed = []
            for name, added in noise.items():
                column, extra = table[name], added[piece]
                if column.dtype.is_integer():
                    extra = np.round(extra)
                values = nw.new_series(
                    name, extra.astype(np.float64), nw.Float64, backend=table.implementation
                )
                if hasattr(table.to_native(), "index"):  # pandas adds by index
                    values = nw.maybe_set_index(values, index=nw.maybe_get_index(table))
                kind = nw.Int64 if column.dtype.is_integer() else column.dtype
                changed.append((column + values).cast(kind).alias(name))
            return table.with_columns(*changed)

        return self._ask(rows, change)

    def ask_without(self, rows: Integers, name: str) -> ModelPredictions:
        """
        Ask the model about rows in which a column is null.

        Raises:
            InvalidInput: The model refuses null.
        """
        import narwhals as nw

        def change(table: Any, _: slice) -> Any:
            nothing = nw.col(name).is_null() & ~nw.col(name).is_null()
            return table.with_columns(nw.when(nothing).then(nw.col(name)).alias(name))

        return self._ask(rows, change)

    def _ask(self, rows: Integers, change: Callable[[Any, slice], Any]) -> ModelPredictions:
        parts = []
        for at in range(0, len(rows), ROWS_PER_CALL):
            piece = slice(at, at + ROWS_PER_CALL)
            table = change(self._table[rows[piece].tolist(), :], piece)
            parts.append(self._answers(table))
        self.model_rows += len(rows)
        shares = [part.probabilities for part in parts]
        return ModelPredictions(
            np.concatenate([part.choices for part in parts]),
            None if any(each is None for each in shares) else np.concatenate(shares),  # type: ignore[arg-type]
        )

    def _answers(self, table: Any) -> ModelPredictions:
        try:
            return ask_rows(self._model, table.to_native(), len(table), self._task.labels)
        except Exception as error:  # code of a person, on rows that were made of two
            raise ModelFailed(
                f"The model raised {type(error).__name__} on test rows with values of other "
                f"rows: {error}",
                "An explanation asks about such rows; let the model answer them, or leave "
                "explain=True out.",
            ) from error

    def scores(
        self, rows: Integers, names: Sequence[str] = (), source: Integers | None = None
    ) -> Floats:
        """
        Ask for numbers, shape (m, k): the probability of each label, or one value.

        A classifier without probabilities gives 1 for its answer, and 0 for the other labels.
        """
        found: ModelPredictions = self.ask(rows, names, source)
        if found.probabilities is not None:
            return found.probabilities
        if not self._task.labels:
            return found.choices[:, None]
        return np.equal(found.choices[:, None], np.arange(len(self._task.labels))).astype(float)
