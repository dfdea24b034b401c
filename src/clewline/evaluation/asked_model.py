"""A model that is asked again about test rows of which some columns are replaced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from clewline.evaluation.answers import EvaluationTask, ModelPredictions, ask_rows
from clewline.evaluation.metrics import Floats, Integers
from clewline.signature import dataframes

ROWS_PER_CALL = 20_000


class AskedModel:
    """
    Test rows, and the model that answers them after a change.

    A replaced value is always the value of another row, so that columns keep their types.

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
        """
        parts = []
        for at in range(0, len(rows), ROWS_PER_CALL):
            piece = slice(at, at + ROWS_PER_CALL)
            table = self._table[rows[piece].tolist(), :]
            if source is not None and names:
                other = self._table.select(names)[source[piece].tolist(), :]
                table = table.with_columns(*(other[name] for name in names))
            parts.append(ask_rows(self._model, table.to_native(), len(table), self._task.labels))
        self.model_rows += len(rows)
        shares = [part.probabilities for part in parts]
        return ModelPredictions(
            np.concatenate([part.choices for part in parts]),
            None if any(each is None for each in shares) else np.concatenate(shares),  # type: ignore[arg-type]
        )

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
