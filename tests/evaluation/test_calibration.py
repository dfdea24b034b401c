"""Reliability, calibration error and the parts of the Brier score."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from clewline.evaluation.calibration import (
    bin_places,
    calibration_slope,
    measure_calibration,
    reliability_curve,
    wilson_interval,
)


def binary_rows(rows: int, *, slope: float = 1.0, seed: int = 0):
    """Draw probabilities, and labels whose log-odds are `slope` times as far from 0."""
    random = np.random.default_rng(seed)
    log_odds = random.normal(0, 2, rows)
    truth = random.random(rows) < 1 / (1 + np.exp(-slope * log_odds))
    return truth, 1 / (1 + np.exp(-log_odds))


def test_the_curve_is_that_of_scikit_learn() -> None:
    truth, probability = binary_rows(1000)
    curve = reliability_curve(truth, probability, bins=10)
    shares, means = calibration_curve(truth, probability, n_bins=10, strategy="quantile")
    assert [each.share.value for each in curve.bins] == pytest.approx(shares.tolist())
    assert [each.probability for each in curve.bins] == pytest.approx(means.tolist())
    assert {each.rows for each in curve.bins} == {100}
    assert curve.brier.score == pytest.approx(brier_score_loss(truth, probability))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.integers(0, 4))
def test_the_parts_of_the_brier_score_add_up(seed: int, rows: int, decimals: int) -> None:
    random = np.random.default_rng(seed)
    probability = np.round(random.random(rows), decimals)
    curve = reliability_curve(random.random(rows) < 0.3, probability)
    parts = curve.brier
    total = parts.reliability - parts.resolution + parts.uncertainty + parts.within_bins
    assert total == pytest.approx(parts.score, abs=1e-12)
    assert sum(each.rows for each in curve.bins) == rows


def test_murphys_three_parts_are_enough_where_bins_hold_one_probability_each() -> None:
    probability = np.repeat([0.2, 0.8], 50)
    parts = reliability_curve(np.random.default_rng(0).random(100) < probability, probability).brier
    assert parts.within_bins == pytest.approx(0, abs=1e-12)


def test_equal_probabilities_stand_in_one_bin() -> None:
    repeated = bin_places(np.repeat([0.1, 0.2, 0.9], [500, 20, 20]))
    assert repeated.tolist() == [0] * 500 + [1] * 20 + [2] * 20
    assert set(bin_places(np.full(100, 0.3)).tolist()) == {0}


def test_the_debiased_errors_of_a_calibrated_model_are_nearer_to_zero() -> None:
    """Plain ECE is never 0: here it is 0.065 of 300 rows, although the model is right."""
    curves = [reliability_curve(*binary_rows(300, seed=seed), seed=seed) for seed in range(60)]
    assert np.mean([curve.ece for curve in curves]) > 0.06
    assert np.mean([curve.ece_debiased.value for curve in curves]) < 0.04
    assert np.mean([curve.rms_debiased for curve in curves]) < 0.025
    covered = [curve.ece_debiased.low <= 0.005 for curve in curves]
    assert np.mean(covered) > 0.85


def test_the_interval_holds_the_true_error() -> None:
    """The true error of the bins of a distorted model, from many rows, is in nearly all."""
    large = reliability_curve(*binary_rows(200_000, slope=0.4, seed=999))
    curves = [
        reliability_curve(*binary_rows(1500, slope=0.4, seed=seed), seed=seed) for seed in range(60)
    ]
    true = large.ece
    assert np.mean([c.ece_debiased.low <= true <= c.ece_debiased.high for c in curves]) > 0.85
    assert np.mean([curve.ece_debiased.value for curve in curves]) == pytest.approx(true, abs=0.01)


def test_slope_and_intercept_are_those_of_a_logistic_regression() -> None:
    truth, probability = binary_rows(3000, slope=0.5)
    log_odds = np.log(probability / (1 - probability))
    reference = LogisticRegression(C=1e12, tol=1e-10).fit(log_odds[:, None], truth)
    fitted = calibration_slope(truth, probability)
    assert fitted is not None
    slope, intercept = fitted
    assert slope.value == pytest.approx(reference.coef_[0, 0], rel=1e-4)
    assert intercept.value == pytest.approx(reference.intercept_[0], abs=1e-4)
    assert slope.low < 0.5 < slope.high < 1


def test_there_is_no_slope_where_no_line_is_best() -> None:
    probability = np.linspace(0.1, 0.9, 50)
    assert calibration_slope(np.ones(50, dtype=bool), probability) is None
    assert calibration_slope(probability > 0.5, np.full(50, 0.5)) is None
    assert calibration_slope(probability > 0.5, probability) is None  # separated


def test_several_labels_have_a_curve_each_and_one_of_the_top_label() -> None:
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(3), 4000)
    drawn = (random.random(4000)[:, None] > probabilities.cumsum(axis=1)).sum(axis=1)
    found = measure_calibration(drawn.astype(np.int64), probabilities, ("a", "b", "c"))
    assert [curve.label for curve in found.curves] == [None, "a", "b", "c"]
    assert found.classwise_ece is not None
    assert found.classwise_ece < 0.02
    assert found.slope is None


@pytest.mark.parametrize("rows", [1, 3])
def test_few_rows_and_absent_labels_have_a_curve(rows: int) -> None:
    probabilities = np.tile([0.2, 0.3, 0.5], (rows, 1))
    found = measure_calibration(np.zeros(rows, dtype=np.int64), probabilities, (1, 2, 3))
    assert [len(curve.bins) for curve in found.curves] == [1] * 4
    assert found.curves[2].bins[0].share.value == 0  # no row has the label 2
    assert found.curves[0].ece == pytest.approx(0.5)


def test_a_share_of_none_or_all_has_an_interval() -> None:
    none, every = wilson_interval(0, 10), wilson_interval(10, 10)
    assert (none.low, every.high) == (0.0, 1.0)
    assert none.high == pytest.approx(0.2775, abs=1e-4)  # Newcombe 1998, table I: 0/10
