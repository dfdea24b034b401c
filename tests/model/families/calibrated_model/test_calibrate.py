"""`cl.calibrate`: a classifier with a map, compiled, stored and served as one model."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from support import TREES_IN_ONNX, needs

import clewline as cl
from clewline.errors import InvalidInput, NotSupported
from clewline.evaluation.calibration import fit_logistic
from clewline.flow import values
from clewline.model.families.calibrated_model.fit_map import fit_map
from clewline.model.families.calibrated_model.probability_map import (
    BetaMap,
    IsotonicMap,
    SigmoidMap,
    TemperatureMap,
    apply_map,
    logarithms,
)
from clewline.model.register import convert_model
from clewline.model_families import value_family_of
from clewline.testing.family import FamilyContract, FamilyExample

TEMPERATURE = needs("scikit-learn", "1.8")
KINDS = ("isotonic", "sigmoid", "temperature", "beta")


@lru_cache
def tables(labels: int = 2) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Return training, calibration and test rows; their labels are not in order."""
    random = np.random.default_rng(labels)
    numbers = random.normal(size=(1300, 4))
    scores = numbers @ random.normal(size=(4, labels)) + random.gumbel(size=(1300, labels))
    names = np.array(["sad", "good", "dull"])[scores.argmax(axis=1)]
    table = pl.DataFrame(numbers, schema=list("abcd")).with_columns(pl.Series("y", names))
    return table[:600], table[600:1000], table[1000:]


def fitted(model: Any, labels: int = 2) -> Any:
    train = tables(labels)[0]
    return model.fit(train.drop("y"), train["y"].to_list())


def features(table: pl.DataFrame) -> pl.DataFrame:
    return table.drop("y")


@lru_cache
def forest(labels: int = 2) -> Any:
    return fitted(RandomForestClassifier(15, random_state=0), labels)


@lru_cache
def logistic_model(labels: int = 2) -> Any:
    return fitted(make_pipeline(StandardScaler(), LogisticRegression()), labels)


def reference(model: Any, method: str, labels: int = 2) -> Any:
    frozen = pytest.importorskip("sklearn.frozen", reason="needs scikit-learn 1.6")
    hold = tables(labels)[1]
    found = CalibratedClassifierCV(frozen.FrozenEstimator(model), method=method)
    return found.fit(features(hold), hold["y"].to_numpy())


@pytest.mark.parametrize("labels", [2, 3])
@pytest.mark.parametrize("kind", ["isotonic", "sigmoid"])
def test_maps_over_probabilities_are_those_of_scikit_learn(labels: int, kind: str) -> None:
    """A forest has no decision function, so scikit-learn takes its probabilities too."""
    _, hold, test = tables(labels)
    ours = cl.calibrate(forest(labels), hold, target="y", kind=kind)
    theirs = reference(forest(labels), kind, labels)
    found, wanted = ours.predict_proba(features(test)), theirs.predict_proba(features(test))
    assert np.abs(found - wanted).max() < 1e-6
    assert ours.predict(features(test)).tolist() == theirs.predict(features(test)).tolist()


@pytest.mark.parametrize(
    "model", [logistic_model, lambda: fitted(GradientBoostingClassifier(n_estimators=10))]
)
def test_a_sigmoid_takes_log_odds_where_scikit_learn_does(model: Any) -> None:
    _, hold, test = tables()
    ours = cl.calibrate(model(), hold, target="y", kind="sigmoid")
    assert isinstance(ours.probabilities, SigmoidMap)
    assert ours.probabilities.over == "log-odds"
    wanted = reference(model(), "sigmoid").predict_proba(features(test))
    assert np.abs(ours.predict_proba(features(test)) - wanted).max() < 1e-6


@TEMPERATURE
@pytest.mark.parametrize("labels", [2, 3])
def test_a_temperature_is_that_of_scikit_learn(labels: int) -> None:
    _, hold, test = tables(labels)
    ours = cl.calibrate(logistic_model(labels), hold, target="y", kind="temperature")
    wanted = reference(logistic_model(labels), "temperature", labels).predict_proba(features(test))
    assert np.abs(ours.predict_proba(features(test)) - wanted).max() < 1e-6


def test_beta_is_a_logistic_regression_over_both_logarithms() -> None:
    """Without Platt's targets that is the paper's own fit; they move it by about 1/n."""
    random = np.random.default_rng(0)
    probability = random.beta(2, 3, 20_000)
    truth = (random.random(20_000) < probability**2).astype(np.int64)
    found = fit_map("beta", truth, np.column_stack([1 - probability, probability]))
    assert isinstance(found, BetaMap)
    of_label, of_others = logarithms(probability)
    both = np.column_stack([of_label, -of_others])
    paper = LogisticRegression(C=1e12, tol=1e-10, max_iter=1000).fit(both, truth)
    assert found.a[0] == pytest.approx(paper.coef_[0, 0], rel=0.01)
    assert found.b[0] == pytest.approx(paper.coef_[0, 1], abs=0.01)
    assert found.c[0] == pytest.approx(paper.intercept_[0], abs=0.01)
    shares = apply_map(found, np.column_stack([1 - probability, probability]))[:, 1]
    assert np.abs(shares - probability**2).mean() < 0.02


def test_beta_leaves_out_a_parameter_that_would_fall() -> None:
    random = np.random.default_rng(0)
    probability = random.random(3000)
    truth = (random.random(3000) < np.clip(0.9 - probability / 2, 0, 1)).astype(np.int64)
    found = fit_map("beta", truth, np.column_stack([1 - probability, probability]))
    assert isinstance(found, BetaMap)
    assert found.a[0] >= 0
    assert found.b[0] >= 0


@TREES_IN_ONNX
@pytest.mark.parametrize("labels", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_trees_with_a_map_are_one_onnx_graph_that_is_equal(kind: str, labels: int) -> None:
    train, hold, test = tables(labels)
    model = cl.calibrate(forest(labels), hold, target="y", kind=kind)
    found = convert_model(model, train=train, test=test, target="y").compiled
    assert (found.runtime, found.equality.verified) == ("onnx", True)
    assert found.equality.form == "trees on raw fields, calibrated"
    assert found.equality.max_difference < 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_a_pipeline_with_a_map_is_one_onnx_graph_that_is_equal(kind: str) -> None:
    train, hold, test = tables()
    model = cl.calibrate(logistic_model(), hold, target="y", kind=kind)
    found = convert_model(model, train=train, test=test, target="y").compiled
    assert (found.runtime, found.equality.verified) == ("onnx", True)
    assert found.equality.form == "converted by skl2onnx, calibrated"


@TREES_IN_ONNX
@pytest.mark.parametrize("kind", KINDS)
def test_boosters_with_a_map_are_converted(kind: str) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    train, hold, test = tables()
    booster = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1, n_jobs=1)
    booster.fit(features(train).to_pandas(), train["y"].to_numpy())
    frames = [each.to_pandas() for each in (train, hold, test)]
    model = cl.calibrate(booster, frames[1], target="y", kind=kind)
    found = convert_model(model, train=frames[0], test=frames[2], target="y").compiled
    assert (found.runtime, found.equality.verified) == ("onnx", True)


def test_a_model_without_a_converted_form_is_served_by_its_library_with_the_map() -> None:
    train, hold, test = tables(3)
    model = cl.calibrate(fitted(KNeighborsClassifier(15), 3), hold, target="y", kind="isotonic")
    found = convert_model(model, train=train, test=test, target="y")
    assert found.compiled.runtime == "calibrated_model"
    assert found.compiled.equality.form == "scikit-learn, calibrated"
    assert found.compiled.equality.max_difference == 0


def test_a_text_model_keeps_its_own_runtime() -> None:
    words = ["good day", "sad day", "good luck", "bad luck", "sad news", "good news"] * 20
    labels = ["+" if "good" in text else "-" for text in words]
    labels[::7] = ["-"] * len(labels[::7])
    table = pl.DataFrame({"text": words, "y": labels})
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(words[:60], labels[:60])
    calibrated = cl.calibrate(model, table[60:100], target="y", kind="sigmoid")
    found = convert_model(calibrated, train=table[:60], test=table[100:], target="y").compiled
    assert (found.runtime, found.equality.verified) == ("calibrated_model", True)


class TestCalibratedModel(FamilyContract):
    def example(self) -> FamilyExample:
        return FamilyExample("calibrated_model", *_served(), model=_calibrated())


@lru_cache
def _calibrated() -> Any:
    return cl.calibrate(
        fitted(KNeighborsClassifier(15), 3), tables(3)[1], target="y", kind="sigmoid"
    )


@lru_cache
def _served() -> tuple[dict[str, bytes], Any, Any]:
    from clewline.signature.check import Checker

    train, _, test = tables(3)
    contents = convert_model(_calibrated(), train=train, test=test, target="y")
    rows = Checker(contents.signature).table(features(test)[:40]).columns
    return contents.compiled.files, contents.signature, rows


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_stored_between_steps(kind: str) -> None:
    model = cl.calibrate(forest(), tables()[1], target="y", kind=kind)
    family = value_family_of(model)
    assert family is not None
    again = family.restore(family.dump(model))
    assert values.digest(again) == values.digest(model)
    some = features(tables()[2])
    assert again.predict_proba(some).tobytes() == model.predict_proba(some).tobytes()
    other = cl.calibrate(forest(), tables()[1][:300], target="y", kind=kind)
    assert values.digest(other) != values.digest(model)


def test_it_improves_the_calibration_of_a_model_that_is_too_sure() -> None:
    _, hold, test = tables()
    sure = fitted(RandomForestClassifier(3, random_state=0))
    before = cl.evaluate(sure, test, target="y", resamples=20)
    after = cl.evaluate(cl.calibrate(sure, hold, target="y"), test, target="y", resamples=20)
    assert before.calibration is not None
    assert after.calibration is not None
    assert before.calibration.curves[0].ece > 1.5 * after.calibration.curves[0].ece
    assert after.metrics["brier"].value < before.metrics["brier"].value


# What is refused


def test_rows_that_the_model_was_fitted_on_are_refused() -> None:
    train, hold, test = tables()
    with pytest.raises(InvalidInput, match="fitted on the rows of the table"):
        cl.calibrate(forest(), train, target="y", train=train)
    with pytest.raises(InvalidInput, match="calibrated on the training rows"):
        convert_model(cl.calibrate(forest(), train, target="y"), train=train, target="y")
    model = cl.calibrate(forest(), hold, target="y")
    notes = convert_model(model, train=train, test=hold, target="y").notes
    assert any("those that the model was calibrated on" in note for note in notes)
    assert convert_model(model, train=train, test=test, target="y").notes == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_of_one_label_is_refused(kind: str) -> None:
    hold = tables()[1].filter(pl.col("y") == "good")
    with pytest.raises(InvalidInput, match="no row of 'sad'"):
        cl.calibrate(forest(), hold, target="y", kind=kind)


def test_an_absent_label_leaves_the_temperature_alone() -> None:
    hold = tables(3)[1].filter(pl.col("y") != "dull")
    with pytest.raises(InvalidInput, match=r"no row of 'dull'") as refused:
        cl.calibrate(forest(3), hold, target="y", kind="isotonic")
    assert refused.value.fix is not None
    assert "temperature" in refused.value.fix
    assert cl.calibrate(forest(3), hold, target="y", kind="temperature").rows == len(hold)


def test_an_unknown_label_is_refused() -> None:
    hold = tables()[1].with_columns(pl.lit("new").alias("y"))
    mixed = pl.concat([tables()[1], hold[:3]])
    with pytest.raises(InvalidInput, match="does not know"):
        cl.calibrate(forest(), mixed, target="y")


@pytest.mark.parametrize("kind", KINDS)
def test_constant_probabilities_become_the_share_of_the_label(kind: str) -> None:
    probabilities = np.full((200, 2), 0.5)
    truth = (np.arange(200) % 4 == 0).astype(np.int64)
    found = apply_map(fit_map(kind, truth, probabilities), probabilities)  # type: ignore[arg-type]
    assert np.isfinite(found).all()
    if kind != "temperature":
        assert found[0, 1] == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_three_rows_and_certain_probabilities_have_a_map(kind: str) -> None:
    probabilities = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    found = fit_map(kind, np.array([0, 1, 0]), probabilities)  # type: ignore[arg-type]
    shares = apply_map(found, probabilities)
    assert np.isfinite(shares).all()
    assert shares.sum(axis=1) == pytest.approx(1)


def test_equal_and_nearly_equal_probabilities_are_one_knot() -> None:
    second = np.array([0.1, 0.3, 0.3, 0.3 + 1e-12, 0.9])
    found = fit_map("isotonic", np.array([0, 1, 0, 0, 1]), np.column_stack([1 - second, second]))
    assert isinstance(found, IsotonicMap)
    assert min(np.diff(found.knots[0])) > 1e-3
    assert apply_map(found, np.array([[0.7, 0.3]]))[0, 1] == pytest.approx(1 / 3)


def test_a_label_of_no_probability_at_all_shares_with_the_others() -> None:
    flat = IsotonicMap(((0.0, 1.0),) * 3, ((0.0, 0.0),) * 3)
    assert apply_map(flat, np.full((1, 3), 1 / 3)).tolist() == [[1 / 3] * 3]


def test_a_model_that_answers_nan_is_refused() -> None:
    model = fitted(LogisticRegression())
    model.intercept_ = np.array([np.nan])
    with pytest.raises(InvalidInput, match="are not finite"):
        cl.calibrate(model, tables()[1], target="y")


def test_what_is_not_a_classifier_with_probabilities_is_refused() -> None:
    train, hold, _ = tables()
    numbers = train.with_columns(pl.Series("y", np.arange(len(train)) * 1.0))
    with pytest.raises(NotSupported, match="not a classifier"):
        cl.calibrate(LinearRegression().fit(features(numbers), numbers["y"]), numbers, target="y")
    with pytest.raises(NotSupported, match="without probabilities"):
        cl.calibrate(fitted(LinearSVC()), hold, target="y")
    with pytest.raises(NotSupported, match="calibrated already"):
        cl.calibrate(cl.calibrate(forest(), hold, target="y"), hold, target="y")
    with pytest.raises(NotSupported, match="cannot be calibrated"):
        cl.calibrate(object(), hold, target="y")
    with pytest.raises(InvalidInput, match="no kind of calibration"):
        cl.calibrate(forest(), hold, target="y", kind="platt")


def test_separated_labels_have_finite_fits() -> None:
    assert np.isfinite(fit_logistic(np.arange(10.0)[:, None], (np.arange(10) > 4) * 1.0)).all()
    sure = np.column_stack([np.repeat([0.9, 0.1], 5), np.repeat([0.1, 0.9], 5)])
    found = fit_map("temperature", np.repeat([0, 1], 5), sure)
    assert isinstance(found, TemperatureMap)
    assert found.temperature > 0


# scikit-learn's own


@pytest.mark.parametrize(
    "method", ["sigmoid", "isotonic", pytest.param("temperature", marks=TEMPERATURE)]
)
def test_scikit_learns_own_calibrated_classifiers_register(method: str) -> None:
    train, _, test = tables(3)
    model = CalibratedClassifierCV(LinearSVC(), method=method, cv=2)
    model.fit(features(train), train["y"].to_numpy())
    found = convert_model(model, train=train, test=test, target="y").compiled
    assert found.equality.flips == 0
    assert found.runtime == "sklearn"
