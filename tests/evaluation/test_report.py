"""`cl.evaluate`: a model beside a plain rule."""

import logging

import msgspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from clewline.errors import InvalidInput
from clewline.evaluation.evaluate import evaluate
from clewline.evaluation.report import Report


class Fixed:
    """A model that answers what it was made with, and keeps what it was asked."""

    def __init__(self, answers, classes=None, probabilities=None):
        self.answers, self.asked = np.asarray(answers), None
        if classes is not None:
            self.classes_ = np.asarray(classes)
        if probabilities is not None:
            self.predict_proba = lambda features: np.asarray(probabilities)

    def predict(self, features):
        self.asked = features
        return self.answers


@pytest.fixture(scope="module")
def tumours() -> tuple[pl.DataFrame, pl.DataFrame]:
    data = load_breast_cancer()
    table = pl.DataFrame(data.data, schema=[name.replace(" ", "_") for name in data.feature_names])
    names = [str(data.target_names[label]) for label in data.target]
    table = table.with_columns(pl.Series("diagnosis", names)).sample(
        fraction=1, shuffle=True, seed=0
    )
    return table.head(400), table.tail(169)


def test_a_good_model_beats_the_rule(tumours: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    train, test = tumours
    model = RandomForestClassifier(20, random_state=0)
    model.fit(train.drop("diagnosis"), train["diagnosis"])
    report = evaluate(model, test, target="diagnosis", resamples=200)
    assert (report.task, report.rows, report.labels) == ("binary", 169, ("benign", "malignant"))
    assert (report.positive, report.headline) == ("malignant", "accuracy")
    accuracy = report.metrics["accuracy"]
    assert accuracy.value == pytest.approx(
        model.score(test.drop("diagnosis"), test["diagnosis"].to_list())
    )
    assert accuracy.low <= accuracy.value <= accuracy.high
    assert report.metrics.keys() == report.baseline.metrics.keys()
    assert report.baseline.learned_on == "test, cross-fitted"
    rule = report.baseline.metrics["accuracy"].value
    assert report.gain.value == pytest.approx(accuracy.value - rule)
    assert report.beats_baseline == (report.gain.low > 0)
    assert report.calibration is not None
    assert [curve.label for curve in report.calibration.curves] == ["malignant"]


def test_a_report_survives_being_stored(tumours: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    test = tumours[1]
    report = evaluate(
        Fixed(["benign"] * 169, ["benign", "malignant"]), test, target="diagnosis", resamples=20
    )
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


def test_a_model_that_a_rule_would_replace_is_called_so(caplog: pytest.LogCaptureFixture) -> None:
    test = pl.DataFrame({"age": range(100), "y": ["no"] * 50 + ["yes"] * 50})
    model = Fixed(["no"] * 48 + ["yes"] * 52, ["no", "yes"])
    with caplog.at_level(logging.WARNING):
        report = evaluate(model, test, target="y", train=test, resamples=200)
    assert not report.beats_baseline
    assert report.baseline.rule == "age > 49.5 → yes, else no"
    assert report.baseline.learned_on == "train"
    assert report.verdict == "unclear"
    assert str(report).startswith(
        "The model is not clearly better than the plain rule 'age > 49.5 → yes, else no': accuracy"
    )
    assert caplog.messages == [str(report)]


def test_a_model_that_is_worse_than_the_rule_is_called_so() -> None:
    test = pl.DataFrame({"age": range(100), "y": ["no"] * 50 + ["yes"] * 50})
    report = evaluate(Fixed(["no", "yes"] * 50, ["no", "yes"]), test, target="y", resamples=100)
    assert report.gain.high < 0
    assert report.verdict == "worse"
    assert "is better than the model" in str(report)


def test_rare_labels_are_compared_by_ranking() -> None:
    """Accuracy would call "always no" as good as a model that finds the one in twenty."""
    random = np.random.default_rng(0)
    truth = np.array([0] * 950 + [1] * 50)
    score = np.clip(truth * 0.3 + random.normal(0.1, 0.08, 1000), 0, 1)
    test = pl.DataFrame({"x": random.normal(size=1000), "y": truth})
    model = Fixed([0] * 1000, [0, 1], np.column_stack([1 - score, score]))
    report = evaluate(model, test, target="y", resamples=100)
    assert (report.headline, report.beats_baseline) == ("roc_auc", True)
    plain = evaluate(Fixed([0] * 1000, [0, 1]), test, target="y", resamples=100)
    assert (plain.headline, plain.beats_baseline) == ("balanced_accuracy", False)


@pytest.mark.parametrize("make", [pl.DataFrame, pd.DataFrame, pa.table])
def test_the_model_is_asked_with_the_make_of_table_that_the_test_has(make) -> None:
    model = Fixed([1.0, 2.0, 4.0])
    evaluate(model, make({"x": [1, 2, 3], "y": [1.0, 2.0, 3.0]}), target="y", resamples=5)
    assert type(model.asked) is type(make({"x": [1]}))
    assert list(model.asked.columns if make is not pa.table else model.asked.column_names) == ["x"]


def test_a_model_that_was_fitted_on_arrays_is_asked_with_one() -> None:
    data = load_iris()
    model = LogisticRegression(max_iter=1000).fit(data.data, data.target)
    test = pd.DataFrame(data.data, columns=data.feature_names).assign(y=data.target)
    report = evaluate(model, test, target="y", resamples=50)
    assert (report.task, report.labels, report.positive) == ("multiclass", (0, 1, 2), None)
    assert report.metrics["accuracy"].value > 0.9


def test_a_regressor_is_compared_by_rmse() -> None:
    data = load_diabetes(as_frame=True)
    table = data.frame
    model = LinearRegression().fit(table.drop(columns="target"), table["target"])
    report = evaluate(model, table, target="target", resamples=100)
    assert (report.task, report.headline, report.labels) == ("regression", "rmse", None)
    assert report.beats_baseline
    assert report.gain.value == pytest.approx(
        report.baseline.metrics["rmse"].value - report.metrics["rmse"].value
    )


def test_a_classifier_without_probabilities_has_metrics_of_its_choices() -> None:
    data = load_iris()
    model = RidgeClassifier().fit(data.data, data.target)
    test = pl.DataFrame(data.data, schema=list("abcd")).with_columns(pl.Series("y", data.target))
    report = evaluate(model, test, target="y", resamples=20)
    assert "log_loss" not in report.metrics


def test_a_label_that_the_model_has_never_seen_counts_as_wrong() -> None:
    test = pl.DataFrame({"x": range(6), "y": list("abcabc")})
    model = Fixed(list("abaaba"), ["a", "b"], [[0.5, 0.5]] * 6)
    report = evaluate(model, test, target="y", resamples=20)
    assert report.labels == ("a", "b", "c")
    assert report.metrics["accuracy"].value == pytest.approx(4 / 6)


def test_a_column_of_answers_is_one_answer_a_row() -> None:
    test = pl.DataFrame({"x": [1, 2, 3], "y": [1.0, 2.0, 3.0]})
    report = evaluate(Fixed([[1.0], [2.0], [3.0]]), test, target="y", resamples=5)
    assert report.metrics["rmse"].value == 0.0


@pytest.mark.parametrize("make", [pl.DataFrame, pd.DataFrame])
def test_a_model_is_asked_with_the_columns_that_it_was_fitted_on_in_their_order(make) -> None:
    table = make(
        {"note": ["u", "v", "w"], "b": [1.0, 2.0, 4.0], "a": [3.0, 1.0, 2.0], "y": [1.0, 2.0, 3.0]}
    )
    model = LinearRegression().fit(table[["a", "b"]], table["y"])
    assert evaluate(model, table, target="y", resamples=5).metrics["r2"].value == pytest.approx(1)


def test_the_error_for_rows_that_the_model_refuses_names_a_way_out() -> None:
    table = pl.DataFrame({"x": ["a", "b"] * 5, "y": ["n", "p"] * 5})
    model = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(table[["x"]], table["y"])
    with pytest.raises(InvalidInput, match=r"refuses the test rows.*handle_unknown|'c'"):
        evaluate(model, table.with_columns(x=pl.lit("c")), target="y", resamples=5)


@pytest.mark.parametrize(
    ("model", "test", "words"),
    [
        (Fixed([1.0]), {"x": [1], "z": [1.0]}, "no column 'y'"),
        (Fixed([]), {"x": [], "y": []}, "no rows"),
        (Fixed([1.0]), {"x": [1], "y": ["a"]}, "target 'a'"),
        (Fixed([1.0, 2.0]), {"x": [1, 2], "y": [1.0, None]}, "target None"),
        (Fixed([1.0]), {"x": [1], "y": [float("inf")]}, "infinite"),
        (Fixed([1.0]), {"x": [1, 2], "y": [1.0, 2.0]}, "1 answers to 2 rows"),
        (Fixed(["a", "a"], ["a", "b"]), {"x": [1, 2], "y": ["a", None]}, "label None"),
        (Fixed([0, 1], [0, 1]), {"x": [1, 2], "y": ["0", "1"]}, r"labels \[0, 1\].*none of them"),
        (Fixed(["c", "a"], ["a", "b"]), {"x": [1, 2], "y": ["a", "b"]}, "'c' in the model's"),
        (Fixed([[1.0, 2.0]] * 2), {"x": [1, 2], "y": [1.0, 2.0]}, "2 to each row"),
        (Fixed([1.0]), {"x": [1], "y": [1e300]}, "1e[+]300 in the test table is too large"),
        (Fixed([1.0, float("nan")]), {"x": [1, 2], "y": [1.0, 2.0]}, "not finite"),
    ],
)
def test_the_reason_why_nothing_can_be_measured_is_named(model, test, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        evaluate(model, pl.DataFrame(test), target="y", resamples=5)
