"""Conformal sets and intervals hold the truth as often as they state."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clewline.evaluation.conformal import (
    aps_scores,
    conformal_quantile,
    cqr_scores,
    group_quantiles,
    label_scores,
    label_sets,
    lac_scores,
    measure_label_sets,
    measure_value_intervals,
    rows_needed,
    true_scores,
    uniforms_of,
    value_edges,
)
from clewline.store.ids import prediction_ids

NONE = np.zeros(0)
"""What sets of "lac" need of random numbers."""


def too_sure(rows: int, seed: int = 7):
    """Return labels, and probabilities of three labels that are further apart than true."""
    random = np.random.default_rng(seed)
    true = random.dirichlet(np.ones(3) * 0.7, rows)
    truth = (random.random(rows)[:, None] > true.cumsum(axis=1)).sum(axis=1)
    sharp = true**1.7
    return truth, sharp / sharp.sum(axis=1, keepdims=True), random


@pytest.mark.parametrize(
    ("coverage", "found", "labels"), [(0.8, 0.814, 2931), (0.9, 0.909, 3729), (0.95, 0.9575, 4361)]
)
def test_sets_are_those_of_mapie(coverage: float, found: float, labels: int) -> None:
    """MAPIE 1.6.0: SplitConformalClassifier(conformity_score="lac", prefit=True), same rows."""
    truth, shares, _ = too_sure(3000)
    scores = true_scores(lac_scores(shares[:1000]), truth[:1000])
    inside = label_sets("lac", shares[1000:], conformal_quantile(scores, coverage), NONE)
    assert inside[np.arange(2000), truth[1000:]].mean() == pytest.approx(found, abs=1e-12)
    assert inside.sum() == labels


@pytest.mark.parametrize(
    ("coverage", "found", "width"),
    [
        (0.8, 0.7725, 2.9989258349045333),
        (0.9, 0.8716666666666667, 4.121319905185376),
        (0.95, 0.9516666666666667, 5.970013401269022),
    ],
)
def test_intervals_are_those_of_mapie(coverage: float, found: float, width: float) -> None:
    """MAPIE 1.6.0: SplitConformalRegressor(prefit=True), absolute residuals, same rows."""
    _, _, random = too_sure(3000)
    answers = random.normal(size=2000)
    truth = answers + random.standard_t(4, 2000)
    half = conformal_quantile(np.abs(truth - answers)[:800], coverage)
    assert 2 * half == pytest.approx(width, rel=1e-12)
    assert (np.abs(truth - answers)[800:] <= half).mean() == pytest.approx(found, abs=1e-12)


@pytest.mark.parametrize("method", ["lac", "aps"])
@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_sets_hold_the_truth_as_often_as_stated(method: str, coverage: float) -> None:
    """
    Over many draws of 99 scores the mean coverage is ⌈100 · coverage⌉ / 100 or a little more.

    Sets of "aps" always hold the most probable label, which adds some.
    """
    found, sizes = [], []
    for seed in range(150):
        truth, shares, random = too_sure(299, seed)
        uniforms = random.random(299)
        scores = label_scores(method, shares[:99], uniforms[:99])  # type: ignore[arg-type]
        threshold = conformal_quantile(true_scores(scores, truth[:99]), coverage)
        inside = label_sets(method, shares[99:], threshold, uniforms[99:])  # type: ignore[arg-type]
        sizes.append(inside.sum(axis=1).mean())
        found.append(inside[np.arange(200), truth[99:]].mean())
    assert coverage - 0.012 < np.mean(found) < coverage + (0.03 if method == "lac" else 0.08)
    assert np.mean(sizes) < 2.6


def test_thresholds_by_class_cover_each_class() -> None:
    """One threshold for all leaves the rarest label out more often than stated."""
    truth, shares, _ = too_sure(6000)
    shares = shares * np.array([1, 1, 0.3])  # the model doubts the last label
    shares /= shares.sum(axis=1, keepdims=True)
    scores = true_scores(lac_scores(shares[:3000]), truth[:3000])
    one = label_sets("lac", shares[3000:], conformal_quantile(scores, 0.9), NONE)
    each, rows = group_quantiles(scores, truth[:3000], 3, 0.9)
    several = label_sets("lac", shares[3000:], each[None], NONE)
    last = truth[3000:] == 2
    assert rows.sum() == 3000
    assert one[last, 2].mean() < 0.8
    assert several[last, 2].mean() == pytest.approx(0.9, abs=0.04)


def test_intervals_by_value_are_wide_where_errors_are_large() -> None:
    random = np.random.default_rng(0)
    answers = random.uniform(0, 10, 5000)
    residuals = np.abs(random.normal(size=5000)) * answers
    edges = value_edges(answers)
    half, _ = group_quantiles(residuals, np.searchsorted(edges, answers), 5, 0.9)
    assert (np.diff(half) > 0).all()


@given(st.floats(0.01, 0.999))
def test_so_many_rows_are_needed_and_no_fewer(coverage: float) -> None:
    rows = rows_needed(coverage)
    assert math.isfinite(conformal_quantile(np.zeros(rows), coverage))
    if rows > 1:
        assert math.isinf(conformal_quantile(np.zeros(rows - 1), coverage))


def test_cumulative_scores_begin_with_the_most_probable_label() -> None:
    shares = np.array([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]])
    whole = np.array([[1.0, 0.5, 0.8], [0.4, 0.8, 1.0]])
    assert aps_scores(shares, np.zeros(2)) == pytest.approx(whole)
    assert aps_scores(shares, np.array([0.5, 1.0])) == pytest.approx(
        np.array([[0.9, 0.25, 0.65], [0.0, 0.4, 0.8]])
    )
    sets = label_sets("aps", shares, -1.0, np.zeros(2))
    assert sets.tolist() == [[False, True, False], [True, False, False]]


def test_the_number_of_an_id_is_uniform_and_always_the_same() -> None:
    ids = prediction_ids(4000)
    found = uniforms_of(ids)
    assert np.array_equal(found, uniforms_of(ids))
    assert found.min() >= 0
    assert found.max() < 1
    assert np.abs(np.sort(found) - np.linspace(0, 1, 4000)).max() < 0.035  # Kolmogorov, p < 1e-4


def test_a_label_that_the_model_does_not_know_is_in_no_set() -> None:
    scores = true_scores(lac_scores(np.array([[0.9, 0.1]] * 3)), np.array([0, 2, 1]))
    assert scores[1] == np.inf
    assert math.isinf(conformal_quantile(scores, 0.75))


def test_predicted_quantiles_are_corrected_to_their_coverage() -> None:
    random = np.random.default_rng(0)
    place = random.uniform(1, 3, 4000)
    truth = random.normal(size=4000) * place
    low, high = -0.5 * place, 0.5 * place  # far too narrow
    scores = cqr_scores(low[:2000], high[:2000], truth[:2000])
    width = conformal_quantile(scores, 0.9)
    inside = (truth >= low - width) & (truth <= high + width)
    assert inside[2000:].mean() == pytest.approx(0.9, abs=0.02)


def test_the_section_states_coverage_and_size() -> None:
    truth, shares, _ = too_sure(2000)
    section = measure_label_sets(truth, shares)
    assert [level.coverage for level in section.levels] == [0.8, 0.9, 0.95, 0.99]
    for level in section.levels:
        assert level.found is not None
        assert level.found.low - 0.02 <= level.coverage <= level.found.high + 0.02
    sizes = [level.size.value for level in section.levels if level.size is not None]
    assert sizes == sorted(sizes)


def test_too_few_rows_state_how_many_are_needed() -> None:
    truth, shares, _ = too_sure(30)
    section = measure_label_sets(truth, shares)
    assert [level.found is None for level in section.levels] == [False, False, True, True]
    assert [level.rows_needed for level in section.levels] == [4, 9, 19, 99]
    assert measure_label_sets(truth[:1], shares[:1]).levels[0].found is None


def test_an_interval_of_the_section_is_wider_for_more_coverage() -> None:
    random = np.random.default_rng(0)
    truth = random.normal(size=1000)
    section = measure_value_intervals(truth, np.zeros(1000))
    widths = [level.width.value for level in section.levels if level.width is not None]
    assert widths[1] == pytest.approx(2 * 1.645, abs=0.2)
    assert widths == sorted(widths)
    assert measure_value_intervals(truth[:3], np.zeros(3)).levels[0].width is None
