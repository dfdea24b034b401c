"""Metrics against scikit-learn, and intervals against their stated coverage."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from clewline.evaluation.metrics import (
    binary,
    bootstrap_intervals,
    default_resamples,
    mean_measure,
    multiclass,
    regression,
)


def values(measure, rows):
    return measure(np.ones(rows))


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(5, 60), st.integers(1, 4))
def test_binary_metrics_are_those_of_scikit_learn(seed: int, rows: int, decimals: int) -> None:
    """Few decimals make equal scores, which ROC and average precision must not part."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, 2, rows)
    truth[:2] = 0, 1
    scores = np.round(random.random(rows), decimals)
    chosen = (scores > 0.5).astype(np.int64)
    ours = values(binary(truth, chosen, np.column_stack([1 - scores, scores])), rows)
    assert ours == pytest.approx(
        {
            "accuracy": sk.accuracy_score(truth, chosen),
            "balanced_accuracy": sk.balanced_accuracy_score(truth, chosen),
            "precision": sk.precision_score(truth, chosen, zero_division=0),
            "recall": sk.recall_score(truth, chosen),
            "f1": sk.f1_score(truth, chosen),
            "roc_auc": sk.roc_auc_score(truth, scores),
            "average_precision": sk.average_precision_score(truth, scores),
            "log_loss": sk.log_loss(truth, np.column_stack([1 - scores, scores])),
            "brier": sk.brier_score_loss(truth, scores),
        }
    )


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(8, 60), st.integers(3, 5))
def test_multiclass_metrics_are_those_of_scikit_learn(seed: int, rows: int, labels: int) -> None:
    random = np.random.default_rng(seed)
    truth = random.integers(0, labels, rows)
    truth[:labels] = range(labels)
    probabilities = random.dirichlet(np.ones(labels), rows)
    chosen = probabilities.argmax(axis=1)
    ours = values(multiclass(truth, chosen, labels, probabilities), rows)
    assert ours == pytest.approx(
        {
            "accuracy": sk.accuracy_score(truth, chosen),
            "balanced_accuracy": sk.balanced_accuracy_score(truth, chosen),
            "precision_macro": sk.precision_score(truth, chosen, average="macro", zero_division=0),
            "recall_macro": sk.recall_score(truth, chosen, average="macro"),
            "f1_macro": sk.f1_score(truth, chosen, average="macro"),
            "roc_auc_ovr_macro": sk.roc_auc_score(truth, probabilities, multi_class="ovr"),
            "log_loss": sk.log_loss(truth, probabilities),
        }
    )


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(2, 60))
def test_regression_metrics_are_those_of_scikit_learn(seed: int, rows: int) -> None:
    random = np.random.default_rng(seed)
    truth, predicted = random.normal(size=rows), random.normal(size=rows)
    assert values(regression(truth, predicted), rows) == pytest.approx(
        {
            "mae": sk.mean_absolute_error(truth, predicted),
            "rmse": sk.root_mean_squared_error(truth, predicted),
            "median_absolute_error": sk.median_absolute_error(truth, predicted),
            "r2": sk.r2_score(truth, predicted),
        }
    )


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(4, 30))
def test_a_weight_counts_a_row_several_times(seed: int, rows: int) -> None:
    """The law that the bootstrap rests on, for every measure."""
    random = np.random.default_rng(seed)
    counts = random.integers(0, 4, rows)
    counts[:3] = 1
    again = np.repeat(np.arange(rows), counts)
    truth = random.integers(0, 3, rows)
    truth[:3] = 0, 1, 2
    probabilities = np.round(random.dirichlet(np.ones(3), rows), 1)
    chosen = probabilities.argmax(axis=1)
    two = np.minimum(truth, 1)
    quantity = np.round(random.normal(size=rows), 1)
    for whole, drawn in [
        (
            multiclass(truth, chosen, 3, probabilities),
            multiclass(truth[again], chosen[again], 3, probabilities[again]),
        ),
        (
            binary(two, np.minimum(chosen, 1), probabilities[:, :2]),
            binary(two[again], np.minimum(chosen, 1)[again], probabilities[again][:, :2]),
        ),
        (
            regression(quantity, probabilities[:, 0]),
            regression(quantity[again], probabilities[again, 0]),
        ),
    ]:
        expected = drawn(np.ones(len(again)))
        assert whole(counts.astype(np.float64)) == pytest.approx(expected, nan_ok=True)


def test_a_metric_that_a_sample_does_not_define_is_left_out() -> None:
    truth = np.zeros(10, dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = bootstrap_intervals(binary(truth, truth, np.full((10, 2), 0.5)), 10, resamples=20)
        assert "roc_auc" not in found
        assert found["accuracy"].value == 1.0
        constant = bootstrap_intervals(regression(np.ones(5), np.zeros(5)), 5, resamples=20)
    assert "r2" not in constant


def test_equal_seeds_give_equal_intervals() -> None:
    truth = np.array([0, 1] * 20)
    measure = binary(truth, np.roll(truth, 1) | truth)
    assert bootstrap_intervals(measure, 40, seed=1, resamples=50) == bootstrap_intervals(
        measure, 40, seed=1, resamples=50
    )
    assert bootstrap_intervals(measure, 40, seed=1, resamples=50) != bootstrap_intervals(
        measure, 40, seed=2, resamples=50
    )


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """
    Of 300 samples of 120 rows, 95 % intervals of a mean of 0.7 must cover 0.7 in at least
    90 %: binomial noise is 1.3 points a standard error, and the percentile interval itself
    lies a point or two under its level at this size.
    """
    random = np.random.default_rng(7)
    covered = 0
    for number in range(300):
        hits = (random.random(120) < 0.7).astype(np.float64)
        found = bootstrap_intervals(mean_measure({"rate": hits}), 120, seed=number, resamples=300)[
            "rate"
        ]
        covered += found.low <= 0.7 <= found.high
    assert 0.90 <= covered / 300 <= 0.99


def test_large_samples_get_fewer_resamples() -> None:
    assert [default_resamples(rows) for rows in (1, 20_000, 40_000, 10**7)] == [
        1000,
        1000,
        500,
        200,
    ]
