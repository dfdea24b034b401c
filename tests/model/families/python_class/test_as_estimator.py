"""An object of the project's own is evaluated as an estimator is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

import clewline as cl
from clewline.errors import InvalidInput

TABLE = pl.DataFrame({"x": [float(i % 10) for i in range(100)]}).with_columns(
    y=pl.when(pl.col("x") > 4).then(pl.lit("high")).otherwise(pl.lit("low")), z=pl.col("x") * 2
)


class ByRows:
    def predict(self, rows):
        shares = [0.9 if row["x"] > 4 else 0.2 for row in rows]
        return [
            {"label": "high" if p > 0.5 else "low", "probabilities": {"high": p, "low": 1 - p}}
            for p in shares
        ]


class Labels:
    """Labels alone, of a table, with probabilities apart."""

    def predict(self, table: pd.DataFrame):
        return np.where(table["x"] > 4, "high", "low")

    def predict_proba(self, table: pd.DataFrame):
        high = np.where(table["x"] > 4, 0.9, 0.2)
        return np.column_stack([high, 1 - high])


class Doubled:
    def predict(self, rows: list[dict[str, Any]]):
        return [{"value": row["x"] * 2} for row in rows]


@pytest.mark.parametrize(("model", "table"), [(ByRows(), TABLE), (Labels(), TABLE.to_pandas())])
def test_labels_and_probabilities_are_measured(model: Any, table: Any) -> None:
    report = cl.evaluate(model, table, target="y", resamples=20)
    assert report.labels == ("high", "low")
    assert report.metrics["accuracy"].value == 1.0
    assert report.metrics["log_loss"].value == pytest.approx(-np.log(0.9) / 2 - np.log(0.8) / 2)


def test_numbers_are_measured() -> None:
    report = cl.evaluate(Doubled(), TABLE.drop("y"), target="z", resamples=20)
    assert report.task == "regression"
    assert report.metrics["rmse"].value == 0.0


def test_an_answer_that_does_not_fit_is_named() -> None:
    class Wrong:
        def predict(self, rows):
            return ["medium"] * len(rows)

    with pytest.raises(InvalidInput, match="'medium' to row 0"):
        cl.evaluate(Wrong(), TABLE, target="y", resamples=20)
