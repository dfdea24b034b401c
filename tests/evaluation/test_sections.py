"""Confusion, curves and residuals, beside scikit-learn's."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from sklearn import metrics as reference
from sklearn.linear_model import LinearRegression, LogisticRegression

from clewline.evaluation.confusion import LARGEST_TABLE, count_confusion
from clewline.evaluation.curves import POINTS, measure_curves
from clewline.evaluation.evaluate import evaluate
from clewline.evaluation.residuals import BINS, SHOWN_ROWS, measure_residuals


@pytest.fixture(scope="module")
def scored() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    truth = random.integers(0, 2, 3000)
    # Rounded, so that several rows share a score.
    return truth, (truth * 0.4 + random.normal(0, 0.5, 3000)).round(2).clip(0, 1)


def test_the_table_counts_truth_against_answer_as_scikit_learn_does() -> None:
    random = np.random.default_rng(1)
    truth, chosen = random.integers(0, 4, (2, 500))
    found = count_confusion(truth, chosen, ("a", "b", "c", "d"))
    assert found.counts == reference.confusion_matrix(truth, chosen).tolist()
    worst = found.pairs[0]
    assert worst.rows == max(
        n for at, row in enumerate(found.counts) for to, n in enumerate(row) if at != to
    )
    assert found.counts["abcd".index(worst.truth)]["abcd".index(worst.answer)] == worst.rows


def test_many_labels_keep_their_most_frequent_mistakes_alone() -> None:
    many = LARGEST_TABLE + 1
    truth = np.array([0, 0, 1, many - 1])
    found = count_confusion(truth, np.array([2, 2, 1, 0]), tuple(range(many)))
    assert found.counts is None
    assert [(p.truth, p.answer, p.rows) for p in found.pairs] == [(0, 2, 2), (many - 1, 0, 1)]


def test_every_point_of_a_curve_is_one_of_scikit_learns(scored) -> None:
    truth, scores = scored
    [curve] = measure_curves(truth, np.stack([1 - scores, scores], axis=1), ("no", "yes"))
    assert (curve.label, curve.rows) == ("yes", int(truth.sum()))
    assert 20 < len(curve.points) <= POINTS
    rates = reference.roc_curve(truth, scores, drop_intermediate=False)
    known = {t: (f, r) for f, r, t in zip(*rates, strict=True)}
    for point in curve.points:
        assert known[point.threshold] == (point.false_positive_rate, point.recall)
        kept = scores >= point.threshold
        assert point.precision == pytest.approx(truth[kept].mean())
    ends = curve.points[-1]
    assert (ends.false_positive_rate, ends.recall) == (1.0, 1.0)


def test_the_area_under_the_kept_points_is_that_of_the_whole_curve(scored) -> None:
    truth, scores = scored
    [curve] = measure_curves(truth, np.stack([1 - scores, scores], axis=1), ("no", "yes"))
    across = [0.0, *(point.false_positive_rate for point in curve.points)]
    area = reference.auc(across, [0.0, *(point.recall for point in curve.points)])
    assert area == pytest.approx(reference.roc_auc_score(truth, scores), abs=2e-3)


def test_a_label_that_all_rows_have_has_no_curve() -> None:
    assert measure_curves(np.ones(9, dtype=int), np.full((9, 2), 0.5), ("no", "yes")) == []


def test_errors_are_answer_less_truth_in_bins_of_the_answer() -> None:
    truth = np.arange(1000.0)
    found = measure_residuals(truth, truth + np.where(truth < 500, 2.0, -1.0))
    assert len(found.bins) == BINS
    assert sum(each.rows for each in found.bins) == 1000
    assert [found.bins[0].mean, found.bins[-1].mean] == [2.0, -1.0]
    assert len(found.sample) == SHOWN_ROWS
    assert {answer - true for answer, true in found.sample} == {2.0, -1.0}


def test_a_model_that_always_answers_the_same_has_one_bin() -> None:
    found = measure_residuals(np.array([1.0, 2.0, 3.0]), np.full(3, 2.0))
    assert [(each.rows, each.mean) for each in found.bins] == [(3, 0.0)]


def test_a_report_holds_the_sections_of_its_task() -> None:
    table = pl.DataFrame(
        {"x": range(40), "y": ["no", "yes"] * 20, "z": [0.5 * n for n in range(40)]}
    )
    inputs = table.select("x")
    classifier = LogisticRegression().fit(inputs, table["y"])
    found = evaluate(classifier, table.drop("z"), target="y", resamples=5)
    assert found.confusion is not None
    assert found.curves is not None
    assert found.residuals is None
    line = LinearRegression().fit(inputs, table["z"])
    found = evaluate(line, table.drop("y"), target="z", resamples=5)
    assert found.residuals is not None
    assert found.confusion is None
    assert found.curves is None
