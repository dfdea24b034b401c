"""What a model does over all rows: importances, curves, and a tree that imitates it."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier
from sklearn.inspection import partial_dependence as sklearn_dependence
from sklearn.inspection import permutation_importance as sklearn_importance
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from clewline.errors import InvalidInput, ModelFailed
from clewline.evaluation.columns import read_columns
from clewline.evaluation.evaluate import evaluate
from clewline.evaluation.field_effects import FieldEffect
from clewline.evaluation.field_groups import associations, group_fields
from clewline.evaluation.global_explanation import GlobalExplanation
from clewline.evaluation.report import Report
from clewline.evaluation.surrogate_tree import follow_surrogate


class Formula:
    """A model that is a function of the columns of a table."""

    def __init__(self, function: Any, names: list[str]) -> None:
        self.function, self.feature_names_in_ = function, names

    def predict(self, table: Any) -> Any:
        return self.function(pl.DataFrame(table).to_dict(as_series=False))


def friedman(columns: dict[str, list[float]]) -> Any:
    """Friedman #1 without noise; the field `nothing` plays no part."""
    x = {name: np.array(values) for name, values in columns.items()}
    curve = 10 * np.sin(np.pi * x["a"] * x["b"]) + 20 * (x["c"] - 0.5) ** 2
    return curve + 10 * x["d"] + 5 * x["e"]


@pytest.fixture(scope="module")
def explained() -> GlobalExplanation:
    random = np.random.default_rng(0)
    names = ["a", "b", "c", "d", "e", "nothing"]
    table = pl.DataFrame({name: random.random(4000) for name in names})
    model = Formula(friedman, names)
    table = table.with_columns(y=pl.Series(friedman(table.to_dict(as_series=False))))
    report = evaluate(model, table, target="y", resamples=20, explain=True)
    assert report.explanation is not None
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report
    return report.explanation


def curve(found: GlobalExplanation, field: str, kind: str) -> FieldEffect:
    return next(each for each in found.effects if (each.field, each.kind) == (field, kind))


def on(effect: FieldEffect) -> tuple[Any, Any]:
    return (
        np.array([point.value for point in effect.points]),
        np.array([point.effect.value for point in effect.points]),
    )


@pytest.mark.parametrize("kind", ["ale", "partial dependence"])
def test_curves_are_those_of_friedmans_function(explained: GlobalExplanation, kind: str) -> None:
    """Its fields are independent, so both kinds have the same shape."""
    shapes = {
        "a": lambda x: 10 * (1 - np.cos(np.pi * x)) / (np.pi * x),
        "c": lambda x: 20 * (x - 0.5) ** 2,
        "d": lambda x: 10 * x,
        "nothing": lambda x: 0 * x,
    }
    for field, shape in shapes.items():
        x, found = on(curve(explained, field, kind))
        wanted = shape(np.maximum(x, 1e-9))
        difference = found - wanted
        assert np.ptp(difference) < 0.35, field  # of a spread of 10; bins and chance
        if kind == "ale":
            assert abs(found.mean()) < 3  # centred, where the mean answer is 14


def test_the_band_of_a_curve_is_as_wide_as_chance(explained: GlobalExplanation) -> None:
    line, bent = (curve(explained, field, "ale") for field in ("d", "a"))
    widths = [
        max(point.effect.high - point.effect.low for point in each.points) for each in (line, bent)
    ]
    assert widths[0] < 0.3  # no interaction: every row has the same slope
    assert 0.1 < widths[1] < 2  # how strongly `a` acts depends on `b`
    assert all(p.effect.low <= p.effect.value <= p.effect.high for p in bent.points)


def test_bins_hold_at_least_200_rows(explained: GlobalExplanation) -> None:
    points = curve(explained, "a", "ale").points
    assert len(points) == 21
    assert all(point.rows >= 195 for point in points[1:])  # quantiles of 4,000 rows
    assert sum(point.rows for point in points) == 4000


def test_importances_are_in_the_order_of_the_effects_with_nothing_last(
    explained: GlobalExplanation,
) -> None:
    importance = explained.importance
    assert (importance.metric, importance.repeats, importance.rows) == ("rmse", 10, 2000)
    names = [each.fields[0] for each in importance.fields]
    assert names[0] == "d"
    assert names[-1] == "nothing"
    assert importance.fields[-1].importance.value == 0
    # Shuffling d adds 10 (d - d'), whose mean square is 100 / 6.
    first = importance.fields[0].importance
    assert first.value == pytest.approx(np.sqrt(100 / 6), rel=0.03)
    assert first.low < np.sqrt(100 / 6) < first.high


def test_the_surrogate_says_how_well_it_imitates(explained: GlobalExplanation) -> None:
    tree = explained.surrogate
    assert tree is not None
    assert 0.5 < tree.fidelity.low < tree.fidelity.value < tree.fidelity.high < 0.9
    assert tree.nodes[0].field in ("a", "b", "d")
    low = follow_surrogate(tree, dict.fromkeys("abcde", 0.05))
    high = follow_surrogate(tree, dict.fromkeys("abcde", 0.95))
    assert low < high  # type: ignore[operator]


def people(rows: int = 600) -> pl.DataFrame:
    random = np.random.default_rng(1)
    age = random.integers(18, 80, rows)
    work = np.where(age > 65, "retired", np.where(random.random(rows) < 0.5, "own", "state"))
    rich = (age > 40) & (work != "retired") & (random.random(rows) < 0.9)
    return pl.DataFrame(
        {
            "age": age,
            "born": 2000 - age,
            "work": work,
            "noise": random.normal(size=rows),
            "y": np.where(rich, "yes", "no"),
        }
    )


@pytest.fixture(scope="module")
def forest() -> tuple[Any, pl.DataFrame, GlobalExplanation]:
    table = people()
    encode = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    columns = make_column_transformer((encode, ["work"]), remainder="passthrough")
    model = make_pipeline(columns, RandomForestClassifier(20, max_depth=6, random_state=0))
    model.fit(table.drop("y"), table["y"])
    report = evaluate(model, people(800), target="y", resamples=20, explain=True)
    assert report.explanation is not None
    return model, people(800), report.explanation


def test_importance_is_that_of_scikit_learn(
    forest: tuple[Any, pl.DataFrame, GlobalExplanation],
) -> None:
    model, test, found = forest
    features = test.drop("y")
    theirs = sklearn_importance(
        model, features.to_pandas(), test["y"].to_list(), n_repeats=10, random_state=0
    )
    for name, mean, deviation in zip(
        features.columns, theirs.importances_mean, theirs.importances_std, strict=True
    ):
        ours = next(each.importance for each in found.importance.fields if each.fields == (name,))
        assert abs(ours.value - mean) <= 4 * deviation / np.sqrt(10) * np.sqrt(2) + 1e-9
        assert ours.low <= mean <= ours.high


def test_a_group_of_fields_that_stand_in_for_each_other_is_found_and_weighs_more(
    forest: tuple[Any, pl.DataFrame, GlobalExplanation],
) -> None:
    model, test, found = forest
    importance = found.importance
    (group,) = (each for each in importance.groups if "age" in each.fields)
    assert "born" in group.fields
    alone = {each.fields[0]: each.importance.value for each in importance.fields}
    assert group.importance.value > alone["age"] + alone["born"]
    given = evaluate(
        model,
        test.head(100),
        target="y",
        resamples=20,
        explain=True,
        groups={"two": ["age", "noise"]},
    )
    assert given.explanation is not None
    assert given.explanation.groups_are_given
    assert [each.fields for each in given.explanation.importance.groups] == [("age", "noise")]
    with pytest.raises(InvalidInput, match=r"no field 'agee'"):
        evaluate(model, test, target="y", resamples=20, explain=True, groups={"g": ["agee"]})


def test_own_importances_stand_beside_by_field(
    forest: tuple[Any, pl.DataFrame, GlobalExplanation],
) -> None:
    model, _, found = forest
    own = found.importance.own
    assert own is not None
    assert own.kind == "impurity"
    assert sum(own.shares.values()) == pytest.approx(1)
    columns = model[-1].feature_importances_  # three of `work`, then age, born, noise
    assert own.shares["work"] == pytest.approx(columns[:3].sum())
    assert own.shares["age"] == pytest.approx(columns[3])
    assert own.rank_correlation is not None
    assert own.rank_correlation > 0.3


def test_partial_dependence_is_that_of_scikit_learn() -> None:
    random = np.random.default_rng(2)
    table = pd.DataFrame({"x": random.integers(0, 6, 300) * 1.0, "z": random.normal(size=300)})
    target = table["x"] ** 2 + table["z"]
    model = GradientBoostingRegressor(n_estimators=20, random_state=0).fit(table, target)
    report = evaluate(model, table.assign(y=target), target="y", resamples=20, explain=True)
    assert report.explanation is not None
    x, ours = on(curve(report.explanation, "x", "partial dependence"))
    theirs = sklearn_dependence(model, table, ["x"], method="brute", kind="average")
    assert x.tolist() == theirs["grid_values"][0].tolist()
    assert ours == pytest.approx(theirs["average"][0], abs=1e-9)


def test_ale_does_not_mix_in_what_goes_with_a_field() -> None:
    """The answer is x alone; z goes with x, so partial dependence of x asks what cannot be."""
    random = np.random.default_rng(3)
    x = random.random(2000)
    table = pl.DataFrame({"x": x, "z": x + random.normal(0, 0.02, 2000)})
    model = Formula(
        lambda c: np.array(c["x"]) + 50 * np.maximum(0, np.subtract(c["x"], c["z"]) - 0.3),
        ["x", "z"],
    )
    table = table.with_columns(y=pl.Series(x))
    report = evaluate(model, table, target="y", resamples=20, explain=True)
    assert report.explanation is not None
    at, effect = on(curve(report.explanation, "x", "ale"))
    assert effect == pytest.approx(at - x.mean(), abs=0.02)
    _, average = on(curve(report.explanation, "x", "partial dependence"))
    assert np.ptp(average) > 5


def test_levels_stand_beside_similar_ones_and_their_effects_are_the_answers() -> None:
    random = np.random.default_rng(4)
    size = random.choice(["s", "m", "l", "xl"], 2000)
    weight = np.array([{"s": 0, "m": 1, "l": 2, "xl": 3}[each] for each in size])
    table = pl.DataFrame({"size": size, "kilos": weight + random.normal(0, 0.5, 2000)})
    effect = {"s": 0.0, "m": 5.0, "l": 1.0, "xl": 2.0}
    model = Formula(lambda c: np.array([effect[each] for each in c["size"]]), ["size", "kilos"])
    table = table.with_columns(y=pl.lit(1.0))
    report = evaluate(model, table, target="y", resamples=20, explain=True)
    assert report.explanation is not None
    found = curve(report.explanation, "size", "ale")
    levels = [point.value for point in found.points]
    assert levels in (["s", "m", "l", "xl"], ["xl", "l", "m", "s"])
    mean = np.mean([effect[each] for each in size])
    for point in found.points:
        assert point.effect.value == pytest.approx(effect[point.value] - mean, abs=1e-9)
    assert not found.is_numeric
    tree = report.explanation.surrogate
    assert tree is not None
    assert any(node.level is not None for node in tree.nodes)
    for level, kilos in zip(["s", "m", "l", "xl"], [0.0, 1.0, 2.0, 3.0], strict=True):
        assert follow_surrogate(tree, {"size": level, "kilos": kilos}) == pytest.approx(
            effect[level]
        )


def test_several_labels_have_a_curve_each_and_a_surrogate_of_labels() -> None:
    random = np.random.default_rng(5)
    x = random.random(600)
    label = np.array(["low", "mid", "high"])[(x * 3).astype(int)]
    table = pl.DataFrame({"x": x, "noise": random.random(600)})
    model = RandomForestClassifier(10, max_depth=3, random_state=0).fit(table, label)
    report = evaluate(
        model, table.with_columns(y=pl.Series(label)), target="y", resamples=20, explain=True
    )
    assert report.explanation is not None
    curves = [e for e in report.explanation.effects if (e.field, e.kind) == ("x", "ale")]
    assert [each.label for each in curves] == ["high", "low", "mid"]
    assert curves[0].points[0].effect.value < curves[0].points[-1].effect.value
    tree = report.explanation.surrogate
    assert tree is not None
    assert tree.fidelity.value > 0.9 > tree.fidelity_of_one_answer
    assert follow_surrogate(tree, {"x": 0.9, "noise": 0.5}) == "high"


def test_hard_columns_are_bounded_or_left_out() -> None:
    """A constant, nulls alone, 10,000 levels, dates; and a model that always answers the same."""
    rows = 400
    table = pl.DataFrame(
        {
            "constant": [1.0] * rows,
            "nothing": pl.Series([None] * rows, dtype=pl.Float64),
            "id": [f"id {at}" for at in range(rows)],  # levels are bounded
            "half": [None if at % 2 else float(at) for at in range(rows)],
            "day": pd.date_range("2024-01-01", periods=rows),
            "y": ["a", "b"] * (rows // 2),
        }
    )
    names = table.columns[:-1]
    model = Formula(lambda c: ["a"] * len(c["id"]), names)
    model.classes_ = np.array(["a", "b"])  # type: ignore[attr-defined]
    report = evaluate(model, table, target="y", resamples=20, explain=True)
    found = report.explanation
    assert found is not None
    assert {each.importance.value for each in found.importance.fields} == {0.0}
    assert len(found.importance.fields) == 5
    drawn = {each.field for each in found.effects}
    assert drawn == {"id", "half", "day"}
    assert all(len(each.points) <= 21 for each in found.effects)
    half = curve(found, "half", "ale")
    assert (half.rows, half.nulls) == (200, 200)
    assert curve(found, "half", "partial dependence").points[-1].value is None
    assert str(curve(found, "day", "ale").points[0].value).startswith("2024-01-01")
    assert found.surrogate is not None
    assert [node.answer for node in found.surrogate.nodes] == ["a"]


def test_the_same_seed_gives_the_same_explanation(
    forest: tuple[Any, pl.DataFrame, GlobalExplanation],
) -> None:
    model, test, _ = forest
    one, two = (
        evaluate(model, test.head(100), target="y", resamples=20, explain=True, seed=3)
        for _ in range(2)
    )
    assert msgspec.json.encode(one) == msgspec.json.encode(two)


def test_association_is_1_for_the_same_information_and_0_for_none() -> None:
    random = np.random.default_rng(6)
    x = random.normal(size=2000)
    table = pl.DataFrame(
        {
            "x": x,
            "cubed": -(x**3),
            "sign": np.where(x > 0, "plus", "minus"),
            "other": random.normal(size=2000),
            "word": random.choice(["a", "b", "c"], 2000),
            "WORD": random.choice(["a", "b", "c"], 2000),
        }
    ).with_columns(WORD=pl.col("word").str.to_uppercase())
    columns = read_columns(table, target="")
    found = associations(list(columns.values()))
    assert found[0, 1] == pytest.approx(1)
    assert found[4, 5] == pytest.approx(1)
    assert found[0, 2] == pytest.approx(np.sqrt(0.75), abs=0.01)  # of ranks split at their median
    assert found[0, 3] < 0.06
    assert found[2, 4] < 0.06
    assert group_fields(columns) == [("x", "cubed", "sign"), ("word", "WORD")]


def test_a_model_that_raises_on_a_changed_row_is_named_with_its_error() -> None:
    def picky(columns: dict[str, list[float]]) -> Any:
        if any(one + two != 1 for one, two in zip(columns["a"], columns["b"], strict=True)):
            raise RuntimeError("a and b must add up")
        return np.array(columns["a"])

    a = np.arange(100) / 128
    table = pl.DataFrame({"a": a, "b": 1 - a, "y": a})
    model = Formula(picky, ["a", "b"])
    assert evaluate(model, table, target="y", resamples=20).metrics["rmse"].value == 0
    with pytest.raises(ModelFailed, match=r"raised RuntimeError .* a and b must add up"):
        evaluate(model, table, target="y", resamples=20, explain=True)
