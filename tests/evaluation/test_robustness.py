"""How a model reacts to changed rows: flips, noise, missing values, copies."""

from __future__ import annotations

import msgspec
import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression

import clewline as cl
from clewline.evaluation.columns import EvaluatedColumn
from clewline.evaluation.report import Report
from clewline.evaluation.robustness import QUERIES, Robustness, field_distances


def people(rows: int = 400, seed: int = 0) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    age = random.integers(18, 80, rows)
    job = np.array(["baker", "clerk", "smith"])[random.integers(0, 3, rows)]
    return pl.DataFrame({"age": age, "hours": random.normal(40, 8, rows), "job": job}).with_columns(
        y=pl.when(pl.col("age") > 45).then(pl.lit("yes")).otherwise(pl.lit("no"))
    )


class Older:
    """Answers by age alone; refuses null."""

    classes_ = np.array(["no", "yes"])
    feature_names_in_ = ("age", "hours", "job")

    def predict(self, table: pl.DataFrame) -> np.ndarray:
        if table["age"].null_count():
            raise ValueError("age is null")
        return np.where(table["age"].to_numpy() > 45, "yes", "no")


@pytest.fixture(scope="module")
def older() -> Robustness:
    report = cl.evaluate(Older(), people(), target="y", resamples=20, robustness=True)
    assert report.robustness is not None
    return report.robustness


def test_only_the_field_that_decides_is_changed_in_a_flip(older: Robustness) -> None:
    flips = older.flips
    assert flips is not None
    assert flips.changed_fields == ((1, 1.0),)
    assert [(each.field, each.share) for each in flips.fields] == [("age", 1.0)]
    assert flips.no_other_answer == 0
    distances = [distance for _, distance in flips.quantiles]
    assert distances == sorted(distances)
    assert 0 < distances[0] < flips.median.value < 3


def test_a_row_near_the_border_flips_by_a_small_change(older: Robustness) -> None:
    """Ages lie evenly in 18 to 79, so the nearest other side is 16 years away on average."""
    assert older.flips is not None
    mad = float(np.median(np.abs(people()["age"].to_numpy() - np.median(people()["age"]))))
    assert older.flips.median.value == pytest.approx(16 / mad, abs=0.35)


def test_noise_on_the_deciding_field_costs_and_on_others_nothing(older: Robustness) -> None:
    single = {each.field: each for each in older.noise if each.field is not None}
    assert single.keys() == {"age", "hours"}
    assert single["age"].loss.value > 0
    assert single["age"].flips is not None
    assert single["age"].flips.value == pytest.approx(single["age"].loss.value)
    assert single["hours"].loss.value == 0
    together = [each for each in older.noise if each.field is None]
    losses = [each.loss.value for each in together]
    assert [each.share for each in together] == [0.01, 0.05, 0.1, 0.25]
    assert losses == sorted(losses)
    assert losses[0] < 0.02 < losses[-1]


def test_a_missing_field_costs_unless_the_model_refuses_null(older: Robustness) -> None:
    missing = {each.field: each for each in older.missing}
    assert missing["age"].null is None
    assert missing["age"].replaced.value > 0.3
    assert missing["job"].null is not None
    assert missing["job"].null.value == missing["job"].replaced.value == 0


def test_a_copy_agrees_more_with_more_answers(older: Robustness) -> None:
    extraction = older.extraction
    assert extraction is not None
    assert [point.queries for point in extraction.points] == list(QUERIES)
    agreements = [point.agreement.value for point in extraction.points]
    assert agreements[-1] > 0.99
    assert agreements[0] < agreements[-1]
    assert extraction.one_answer < 0.6


def test_the_rows_that_the_model_answers_are_bounded_and_counted(older: Robustness) -> None:
    fields, numbers = 3, 2
    rows = 200 * fields + 400 * (numbers + 4) + 400 * (2 * fields - 1) + 5000
    assert older.model_rows == rows


def test_it_is_the_same_again_and_is_stored() -> None:
    reports = [
        cl.evaluate(Older(), people(80), target="y", resamples=20, seed=3, robustness=True)
        for _ in range(2)
    ]
    assert reports[0] == reports[1]
    assert msgspec.json.decode(msgspec.json.encode(reports[0]), type=Report) == reports[0]
    assert cl.evaluate(Older(), people(80), target="y", resamples=20).robustness is None


def test_a_regression_has_no_flips() -> None:
    table = people().with_columns(y=pl.col("age") * 2.0 + pl.col("hours"))
    model = LinearRegression().fit(table.select("age", "hours"), table["y"])
    report = cl.evaluate(
        model, table.drop("job"), target="y", resamples=20, robustness=True
    ).robustness
    assert report is not None
    assert report.flips is None
    assert all(each.flips is None for each in report.noise)
    assert [each.null for each in report.missing] == [None, None]  # it refuses null
    assert report.extraction is not None
    assert report.extraction.points[-1].agreement.value > 0.98


def test_pandas_tables_with_nulls_and_booleans_are_disturbed() -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "a": random.normal(size=120),
            "b": random.integers(0, 2, 120).astype(bool),
            "c": np.where(random.random(120) < 0.2, np.nan, random.normal(size=120)),
        },
        index=range(50, 170),
    )
    frame["y"] = (frame.a > 0).astype(int)
    model = RandomForestClassifier(10, random_state=0).fit(frame[["a", "b", "c"]], frame.y)
    found = cl.evaluate(model, frame, target="y", resamples=20, robustness=True).robustness
    assert found is not None
    assert {each.field for each in found.missing} == {"a", "b", "c"}
    assert found.flips is not None


@pytest.mark.parametrize("rows", [3, 12])
def test_a_model_that_always_answers_the_same_has_no_flips(rows: int) -> None:
    class Same(Older):
        def predict(self, table: pl.DataFrame) -> np.ndarray:
            return np.full(len(table), "no")

    table = people(rows).with_columns(hours=pl.lit(1.0), y=pl.lit("no"))
    found = cl.evaluate(Same(), table, target="y", resamples=20, robustness=True).robustness
    assert found is not None
    assert found.flips is None
    assert {each.field for each in found.noise} <= {"age", None}  # hours is constant
    assert found.extraction is not None
    assert found.extraction.points[0].agreement.value == 1


def test_distances_count_null_and_levels_as_one() -> None:
    numbers = EvaluatedColumn("x", np.array([0.0, 2.0, 4.0, np.nan, np.nan]))
    assert field_distances(numbers, 0, np.array([1, 2, 3])).tolist() == [1.0, 2.0, 1.0]
    assert field_distances(numbers, 3, np.array([0, 4])).tolist() == [1.0, 0.0]
    levels = EvaluatedColumn("l", np.array([0, 1, -1]), ("a", "b"))
    assert field_distances(levels, 0, np.array([0, 1, 2])).tolist() == [0.0, 1.0, 1.0]


def test_a_linear_model_that_knows_no_null_is_asked_without_an_error() -> None:
    table = people().drop("job")
    model = LogisticRegression().fit(table.drop("y"), table["y"].to_list())
    found = cl.evaluate(model, table, target="y", resamples=20, robustness=True).robustness
    assert found is not None
    assert all(each.null is None for each in found.missing)
