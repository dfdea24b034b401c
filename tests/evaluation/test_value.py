"""What answers are worth, and the threshold that is worth most."""

import msgspec
import numpy as np
import polars as pl
import pytest

from clewline.errors import InvalidInput
from clewline.evaluation.evaluate import evaluate
from clewline.evaluation.report import Report

from .stated_answers import StatedAnswers, scored

COSTS = {1: {0: 10.0}, 0: {1: 1.0}}  # a miss, a false alarm


def table(truth) -> pl.DataFrame:
    return pl.DataFrame({"x": np.arange(len(truth), dtype=float), "y": truth})


def noisy(rows: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    scores = random.uniform(size=rows)
    return (random.uniform(size=rows) < scores).astype(int), scores


def test_costs_are_negative_values_by_true_label_and_answer() -> None:
    report = evaluate(
        scored([0.9, 0.9, 0.1, 0.1]), table([1, 0, 1, 0]), target="y", costs=COSTS, unit="€"
    )
    value = report.value
    assert (value.unit, value.total, value.per_row.value) == ("€", -11.0, -2.75)
    assert [(c.truth, c.answer, c.rows, c.value) for c in value.cells] == [
        (0, 0, 1, 0.0), (0, 1, 1, -1.0), (1, 0, 1, -10.0), (1, 1, 1, 0.0),
    ]  # fmt: skip
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


def test_a_matrix_a_mapping_and_a_function_of_answer_and_truth_say_the_same() -> None:
    truth, scores = noisy(300)
    ways = [
        {"costs": COSTS},
        {"costs": [[0, 1], [10, 0]]},
        {"value": lambda answer, truth: 0 if answer == truth else -10 if truth == 1 else -1},
    ]
    found = [evaluate(scored(scores), table(truth), target="y", **way).value for way in ways]
    assert found[0] == found[1] == found[2]


def test_the_best_threshold_is_the_one_that_costs_prescribe() -> None:
    """
    Calibrated scores: Elkan's threshold is 1 / 11. It lies in the flat region.

    Source: Elkan, The foundations of cost-sensitive learning (IJCAI 2001), equation 2.
    """
    truth, scores = noisy(20_000)
    best = evaluate(
        scored(scores), table(truth), target="y", costs=COSTS, find_slices=False
    ).value.best
    assert best.flat_low <= 1 / 11 <= best.flat_high
    assert best.flat_low <= best.threshold <= best.flat_high
    assert best.threshold == pytest.approx(1 / 11, abs=0.04)
    assert best.gain.low > 0


def test_no_threshold_is_worth_more_than_the_best() -> None:
    truth, scores = noisy(200)
    value = evaluate(scored(scores), table(truth), target="y", costs=COSTS).value
    matrix = -np.array([[0, 1], [10, 0]])
    every = [
        matrix[truth, (scores >= threshold).astype(int)].mean() for threshold in [*scores, 0.0, 1.1]
    ]
    assert value.best.per_row.value == pytest.approx(max(every))
    decided = (scores >= value.best.threshold).astype(int)
    assert matrix[truth, decided].mean() == pytest.approx(max(every))
    for threshold, worth in value.curve:
        assert worth == pytest.approx(matrix[truth, (scores >= threshold).astype(int)].mean())
    inside = [t for t in scores if value.best.flat_low <= t <= value.best.flat_high]
    for threshold in inside:
        worth = matrix[truth, (scores >= threshold).astype(int)].mean()
        assert worth >= value.best.per_row.low - 1e-12


def test_always_and_never_are_thresholds_too() -> None:
    truth, scores = noisy(200)
    always = evaluate(scored(scores), table(truth), target="y", costs=[[1, 0], [1, 0]]).value.best
    assert (scores >= always.threshold).all()
    never = evaluate(scored(scores), table(truth), target="y", costs=[[0, 1], [0, 1]]).value.best
    assert not (scores >= never.threshold).any()


def test_a_threshold_that_was_chosen_on_noise_is_worth_less_on_the_other_half() -> None:
    random = np.random.default_rng(0)
    truth, scores = random.integers(0, 2, 300), random.uniform(size=300)
    best = evaluate(scored(scores), table(truth), target="y", costs=[[0, 1], [1, 0]]).value.best
    assert best.held_out < best.per_row.value


def test_a_regression_is_valued_row_by_row() -> None:
    model = StatedAnswers([1.0, 2.0, 5.0])
    found = evaluate(
        model, table([1.0, 3.0, 3.0]), target="y",
        value=lambda answer, truth: -3 * max(truth - answer, 0) - max(answer - truth, 0),
    )  # fmt: skip
    assert found.value.total == -5.0
    assert found.value.best is None


def test_the_value_is_compared_with_the_plain_rules() -> None:
    truth = np.array([0, 1] * 500)
    value = evaluate(
        scored(np.where(truth == 1, 0.9, 0.1)), table(truth), target="y", costs=COSTS
    ).value
    assert value.gain.value == pytest.approx(value.per_row.value - value.rule.value)
    assert value.gain.low > 0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"costs": {2: {0: 1}}}, "name the label 2"),
        ({"costs": {1: {True: 1}}}, "name the label True"),
        ({"costs": [[1, 2, 3]]}, r"shape \(1, 3\)"),
        ({"costs": {1: 5}}, "costs of the true label 1 are 5"),
        ({"costs": {1: {0: "much"}}}, "'much', which is not a number"),
        ({"value": lambda answer, truth: 1 / 0}, r"value\(answer=0, truth=0\) raised ZeroDivision"),
        ({"value": lambda answer, truth: float("nan")}, "nan, which is not finite"),
        ({"value": lambda answer, truth: 1, "costs": COSTS}, "Both costs= and value="),
    ],
)
def test_costs_that_cannot_be_used_are_named(given, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        evaluate(scored([0.9, 0.1]), table([1, 0]), target="y", **given)


def test_costs_of_a_regression_are_refused() -> None:
    with pytest.raises(InvalidInput, match="Costs by label belong to a classifier"):
        evaluate(StatedAnswers([1.0, 2.0]), table([1.0, 2.0]), target="y", costs=COSTS)


def test_one_row_and_one_class_have_a_value() -> None:
    value = evaluate(scored([0.9]), table([1]), target="y", costs=COSTS).value
    assert value.per_row.value == 0.0
    value = evaluate(scored([0.9, 0.2]), table([1, 1]), target="y", costs=COSTS).value
    assert value.total == -10.0
