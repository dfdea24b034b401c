"""Likely label errors, held against cleanlab."""

import msgspec
import numpy as np
import polars as pl

from clewline.evaluation.evaluate import evaluate
from clewline.evaluation.label_errors import confident_joint, mistaken_labels
from clewline.evaluation.report import Report

from .stated_answers import StatedAnswers

# cleanlab 2.9.0: find_label_issues(given, probabilities, filter_by="prune_by_noise_rate") on
# `flipped()` finds 184 rows, with a recall of .8304 and a precision of .7717; its
# compute_confident_joint(…, calibrate=True) is CLEANLAB_JOINT (rounded to keep the row sums).
CLEANLAB_COUNT, CLEANLAB_RECALL, CLEANLAB_PRECISION = 184, 0.8304, 0.7717
CLEANLAB_FIRST = [6, 8, 17, 27, 47, 54, 55, 65, 72, 82, 87, 98, 127, 130, 134, 149, 164, 167]
CLEANLAB_JOINT = [[437, 27, 32], [23, 424, 41], [33, 37, 446]]


def flipped() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return true labels, given ones of which a tenth is wrong, and probabilities."""
    random = np.random.RandomState(11)  # the same numbers in every version of NumPy
    true = random.randint(0, 3, 1500)
    scores = random.standard_normal((1500, 3))
    scores[np.arange(1500), true] += 2.2
    probabilities = np.exp(scores)
    probabilities /= probabilities.sum(1, keepdims=True)
    given, wrong = true.copy(), random.random_sample(1500) < 0.1
    given[wrong] = (given[wrong] + 1 + random.randint(0, 2, wrong.sum())) % 3
    return true, given, probabilities


def test_the_same_rows_are_found_as_by_cleanlab() -> None:
    true, given, probabilities = flipped()
    found = mistaken_labels(given, probabilities) >= 0
    wrong = true != given
    assert found.sum() == CLEANLAB_COUNT
    assert round((found & wrong).sum() / wrong.sum(), 4) == CLEANLAB_RECALL
    assert round((found & wrong).sum() / found.sum(), 4) == CLEANLAB_PRECISION
    assert np.flatnonzero(found)[: len(CLEANLAB_FIRST)].tolist() == CLEANLAB_FIRST
    joint = confident_joint(given, probabilities)
    assert np.abs(joint - np.array(CLEANLAB_JOINT)).max() <= 1


def test_rows_are_listed_with_their_likely_label_the_least_confident_first() -> None:
    true, given, probabilities = flipped()
    names = np.array(["a", "b", "c"])
    table = pl.DataFrame({"x": np.zeros(1500), "y": names[given]})
    model = StatedAnswers(names[probabilities.argmax(1)], names, probabilities)
    report = evaluate(model, table, target="y", resamples=20)
    errors = report.label_errors
    assert (errors.count, errors.share) == (184, 184 / 1500)
    assert len(errors.listed) == 100
    confidence = [each.confidence for each in errors.listed]
    assert confidence == sorted(confidence)
    first = errors.listed[0]
    assert first.label == names[given[first.row]]
    assert first.confidence == probabilities[first.row, given[first.row]]
    assert np.mean([each.likely == names[true[each.row]] for each in errors.listed]) > 0.9
    assert sum(pair.rows for pair in errors.pairs) == 184
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


def test_a_model_that_agrees_with_every_label_finds_no_error() -> None:
    truth = np.array([0, 1] * 50)
    assert (mistaken_labels(truth, np.eye(2)[truth] * 0.8 + 0.1) == -1).all()


def test_a_label_without_rows_and_one_row_are_no_problem() -> None:
    assert mistaken_labels(np.array([0]), np.array([[0.4, 0.6]])).tolist() == [-1]
    assert mistaken_labels(np.array([0, 0]), np.array([[0.4, 0.6], [0.5, 0.5]])).shape == (2,)


def test_without_probabilities_there_is_no_section() -> None:
    table = pl.DataFrame({"x": range(4), "y": [0, 1, 0, 1]})
    assert evaluate(StatedAnswers([0] * 4, [0, 1]), table, target="y").label_errors is None
