"""Rates by group, held against fairlearn."""

import msgspec
import numpy as np
import polars as pl
import pytest

from clewline.errors import InvalidInput
from clewline.evaluation.evaluate import evaluate
from clewline.evaluation.report import Report


class Answers:
    """A model whose answers are stated."""

    def __init__(self, answers, classes=None):
        self.answers = np.asarray(answers)
        if classes is not None:
            self.classes_ = np.asarray(classes)

    def predict(self, features):
        return self.answers


# fairlearn 0.15.0: MetricFrame(metrics={selection_rate, true_positive_rate, false_positive_rate,
# precision_score, accuracy_score}, …).by_group, .difference(), .ratio(), on `rows()`.
BY_GROUP = {
    "a": {
        "selection_rate": 0.46190476190476193,
        "true_positive_rate": 0.7924528301886793,
        "false_positive_rate": 0.125,
        "precision": 0.865979381443299,
        "accuracy": 0.8333333333333334,
    },
    "b": {
        "selection_rate": 0.538860103626943,
        "true_positive_rate": 0.9148936170212766,
        "false_positive_rate": 0.18181818181818182,
        "precision": 0.8269230769230769,
        "accuracy": 0.8652849740932642,
    },
    "c": {
        "selection_rate": 0.5939086294416244,
        "true_positive_rate": 0.7524752475247525,
        "false_positive_rate": 0.4270833333333333,
        "precision": 0.6495726495726496,
        "accuracy": 0.6649746192893401,
    },
}
DIFFERENCE = {
    "selection_rate": 0.13200386753686244,
    "true_positive_rate": 0.1624183694965241,
    "false_positive_rate": 0.3020833333333333,
    "precision": 0.2164067318706494,
    "accuracy": 0.20031035480392412,
}
RATIO = {
    "selection_rate": 0.7777370777370778,
    "true_positive_rate": 0.8224729449689155,
    "false_positive_rate": 0.29268292682926833,
    "precision": 0.7501017501017501,
    "accuracy": 0.7685036019331895,
}


def rows() -> tuple[pl.DataFrame, list[int]]:
    random = np.random.RandomState(7)  # the same numbers in every version of NumPy
    group = np.array(["a", "b", "c"])[random.randint(0, 3, 600)]
    truth = random.randint(0, 2, 600)
    wrong = random.random_sample(600) < np.where(group == "c", 0.35, 0.15)
    return pl.DataFrame({"g": group, "y": truth}), np.where(wrong, 1 - truth, truth).tolist()


def fair(table: pl.DataFrame, answers: list, protected="g", classes=(0, 1), **more) -> Report:
    return evaluate(
        Answers(answers, classes), table, target="y", protected=protected, resamples=50, **more
    )


def test_rates_differences_and_ratios_equal_fairlearns() -> None:
    report = fair(*rows())
    field = report.fairness.fields["g"]
    for group in field.groups:
        for rate, interval in group.rates.items():
            assert interval.value == pytest.approx(BY_GROUP[group.group][rate], abs=1e-15)
            assert interval.low <= interval.value <= interval.high
    for rate, disparity in field.disparities.items():
        assert disparity.difference.value == pytest.approx(DIFFERENCE[rate], abs=1e-15)
        assert disparity.ratio.value == pytest.approx(RATIO[rate], abs=1e-15)
    assert field.disparities["accuracy"].lowest == "c"
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


def test_a_small_group_is_marked_and_left_out_of_the_differences() -> None:
    table, answers = rows()
    table = pl.concat([table, pl.DataFrame({"g": ["rare"] * 3, "y": [0, 0, 0]})])
    field = fair(table, [*answers, 1, 1, 1]).fairness.fields["g"]
    assert [(group.group, group.small) for group in field.groups][-1] == ("rare", True)
    assert field.disparities["accuracy"].difference.value == pytest.approx(DIFFERENCE["accuracy"])


def test_a_rate_without_rows_is_left_out() -> None:
    table = pl.DataFrame({"g": ["a"] * 40 + ["b"] * 40, "y": [0] * 40 + [0, 1] * 20})
    field = fair(table, [0, 1] * 40).fairness.fields["g"]
    by_name = {group.group: group.rates for group in field.groups}
    assert "true_positive_rate" not in by_name["a"]
    assert "true_positive_rate" in by_name["b"]
    assert "true_positive_rate" not in field.disparities


def test_null_is_a_group_and_numbers_are_cut_at_their_quartiles() -> None:
    table = pl.DataFrame({"g": [None, *range(99)], "y": [0, 1] * 50})
    groups = fair(table, [0, 1] * 50).fairness.fields["g"].groups
    assert {group.group for group in groups} == {
        "<= 24", "> 24 to 49", "> 49 to 73", "> 73", "null",
    }  # fmt: skip
    assert sum(group.rows for group in groups) == 100


def test_a_protected_column_of_nulls_is_one_group() -> None:
    table = pl.DataFrame({"g": [None] * 60, "y": [0, 1] * 30})
    field = fair(table, [0, 1] * 30).fairness.fields["g"]
    assert [(group.group, group.rows) for group in field.groups] == [("null", 60)]
    assert field.disparities == {}


def test_ten_thousand_groups_are_put_together() -> None:
    table = pl.DataFrame({"g": [f"g{n % 10_000}" for n in range(20_000)], "y": [0, 1] * 10_000})
    field = fair(table, [0, 1] * 10_000, find_slices=False).fairness.fields["g"]
    assert (len(field.groups), field.merged_groups) == (51, 9_950)
    assert field.groups[-1].group == "other (9,950 groups)"
    assert field.groups[-1].rows == 19_900


def test_a_regression_has_mean_answers_and_errors() -> None:
    table = pl.DataFrame({"g": ["a"] * 50 + ["b"] * 50, "y": [1.0, 3.0] * 50})
    found = fair(table, [2.0] * 50 + [4.0] * 50, classes=None).fairness.fields["g"]
    rates = {group.group: {k: v.value for k, v in group.rates.items()} for group in found.groups}
    assert rates["a"] == {"mean_answer": 2.0, "mean_error": 0.0, "mae": 1.0}
    assert rates["b"] == {"mean_answer": 4.0, "mean_error": 2.0, "mae": 2.0}
    assert found.disparities["mae"].ratio.value == 0.5


def test_several_labels_have_a_selection_rate_each() -> None:
    table = pl.DataFrame({"g": ["a"] * 30 + ["b"] * 30, "y": ["r", "g", "b"] * 20})
    found = fair(table, ["r"] * 30 + ["r", "g", "b"] * 10, classes=["b", "g", "r"])
    rates = {group.group: group.rates for group in found.fairness.fields["g"].groups}
    assert rates["a"]["selection_rate of r"].value == 1.0
    assert rates["b"]["accuracy"].value == 1.0
    assert rates["b"]["selection_rate of g"].value == pytest.approx(1 / 3)


def test_a_protected_field_that_the_table_lacks_is_named() -> None:
    table, answers = rows()
    with pytest.raises(InvalidInput, match="no column 'grop'"):
        fair(table.rename({"g": "group"}), answers, protected=["grop"])
