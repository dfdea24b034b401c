"""The rule that a person could follow."""

import datetime as dt

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from clewline.evaluation.baseline import (
    FittedRule,
    Objective,
    cross_fit_rule,
    learn_rule,
)
from clewline.evaluation.columns import EvaluatedColumn, read_columns

LABELS = ("no", "yes")


def learned(table: pl.DataFrame) -> FittedRule:
    truth = np.array([LABELS.index(label) for label in table["y"]])
    return learn_rule(read_columns(table, target="y"), truth, Objective(2))


def learned_rule(table: pl.DataFrame) -> str:
    return learned(table).describe(LABELS)


def table(rows: int = 200, **columns: object) -> pl.DataFrame:
    return pl.DataFrame({**columns, "y": ["no"] * (rows // 2 + 20) + ["yes"] * (rows // 2 - 20)})


def test_a_threshold_lies_in_the_middle_between_two_values() -> None:
    assert learned_rule(table(age=[*range(120), *range(200, 280)])) == "age > 159.5 → yes, else no"


def test_null_gets_the_answer_of_else() -> None:
    fitted = learned(table(age=[None] * 60 + [9.0] * 60 + [1.0] * 80))
    assert fitted.describe(LABELS) == "age <= 5 → yes, else no"
    answers, shares = fitted.predict(
        {"age": EvaluatedColumn("age", np.array([np.nan, 1.0, 9.0]))}, 3
    )
    assert answers.tolist() == [0, 1, 0]
    assert shares[1].tolist() == [1 / 82, 81 / 82]


def test_levels_are_named() -> None:
    jobs = ["nurse", None, "cook"] * 40 + ["smith", "king"] * 40
    assert learned_rule(table(job=jobs)) == "job in {king, smith} → yes, else no"
    assert learned_rule(table(job=["a"] * 120 + ["b"] * 80)) == "job is b → yes, else no"
    assert learned_rule(table(rich=[False] * 120 + [True] * 80)) == "rich is true → yes, else no"


def test_many_levels_are_counted() -> None:
    jobs = ["nurse"] * 120 + [f"job {n}" for n in range(8)] * 10
    named = "{job 0, job 1, job 2, job 3, job 4, job 5, … 8 in all}"
    assert learned_rule(table(job=jobs)) == f"job in {named} → yes, else no"


def test_an_instant_is_written_as_one() -> None:
    days = [dt.datetime(2024, 1, 1) + dt.timedelta(hours=hour) for hour in range(200)]
    assert learned_rule(table(at=days)) == "at > 2024-01-05T23:30:00Z → yes, else no"


def test_noise_does_not_make_a_rule() -> None:
    """Thirty fields of noise hold a question that fits by chance; it is not asked."""
    random = np.random.default_rng(0)
    noise = {f"x{n}": random.normal(size=200) for n in range(30)}
    assert learned_rule(table(**noise)) == "always no"


def test_columns_that_a_rule_cannot_ask_about_are_passed_over() -> None:
    assert learned_rule(table(v=[[1.0, 2.0]] * 200, n=[None] * 200)) == "always no"


def test_several_labels_each_have_their_levels() -> None:
    truth = np.array([0] * 50 + [1] * 40 + [2] * 30)
    colours = pl.DataFrame({"c": ["red"] * 50 + ["blue"] * 40 + ["green"] * 30, "y": truth})
    fitted = learn_rule(read_columns(colours, target="y"), truth, Objective(3))
    assert fitted.describe(["r", "b", "g"]) == "c is blue → b; c is green → g; else r"


def test_a_regression_answers_means() -> None:
    heat = pl.DataFrame(
        {"season": ["winter"] * 30 + ["summer"] * 30, "y": [1.0, 3.0] * 15 + [20.0] * 30}
    )
    fitted = learn_rule(read_columns(heat, target="y"), heat["y"].to_numpy(), Objective())
    assert fitted.describe(()) == "season is summer → 20, else 2"
    flat = pl.DataFrame({"x": np.random.default_rng(0).normal(size=60), "y": [1.0, 3.0] * 30})
    assert (
        learn_rule(read_columns(flat, target="y"), flat["y"].to_numpy(), Objective()).describe(())
        == "always 2"
    )


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_no_threshold_is_better_than_the_one_that_is_found(seed: int) -> None:
    """scikit-learn's stump minimises squared error; so does ours."""
    random = np.random.default_rng(seed)
    x = random.integers(0, 20, (80, 3)).astype(float)
    y = x[:, 1] * random.integers(0, 2) * 2 + (x[:, 0] > 9) * 10 + random.normal(size=80)
    frame = pl.DataFrame({**{f"x{n}": x[:, n] for n in range(3)}, "y": y})
    columns = read_columns(frame, target="y")
    ours = learn_rule(columns, y, Objective()).predict(columns, 80)[0]
    stump = DecisionTreeRegressor(max_depth=1, min_samples_leaf=5).fit(x, y).predict(x)
    assert ((y - ours) ** 2).sum() == pytest.approx(((y - stump) ** 2).sum())


def test_a_label_that_counts_more_pulls_the_rule() -> None:
    truth = np.array([0] * 90 + [1] * 10)
    x = np.array([*range(90), *range(70, 80)], dtype=np.float64)
    columns = read_columns(pl.DataFrame({"x": x, "y": truth}), target="y")
    assert learn_rule(columns, truth, Objective(2)).describe(LABELS) == "always no"
    weighted = learn_rule(columns, truth, Objective(2, np.array([100 / 90, 100 / 10]) / 2))
    stump = DecisionTreeClassifier(max_depth=1, min_samples_leaf=5, class_weight="balanced")
    expected = stump.fit(x[:, None], truth).predict(x[:, None])
    assert weighted.predict(columns, 100)[0].tolist() == expected.tolist()
    assert weighted.describe(LABELS) == "x > 69.5 → yes, else no"


def test_at_chance_a_cross_fitted_rule_is_right_as_often_as_wrong() -> None:
    """Folds with unlike mixes would make it wrong: each lacks what its part has more of."""
    for rows in (100, 101, 1000):
        truth = np.random.default_rng(rows).permutation(np.arange(rows) % 2)
        assert (cross_fit_rule({}, truth, Objective(2))[0] == truth).mean() >= 0.5 - 1 / rows


def test_codes_without_meaning_make_no_rule() -> None:
    """Sixty levels of ten rows: most have a majority, by chance."""
    random = np.random.default_rng(3)
    truth = random.integers(0, 2, 600)
    codes = [f"c{n}" for n in random.integers(0, 60, 600)]
    columns = read_columns(pl.DataFrame({"code": codes, "y": truth}), target="y")
    assert learn_rule(columns, truth, Objective(2)).describe(LABELS) == "always yes"


def test_a_rule_that_is_judged_on_the_rows_that_taught_it_is_flattered() -> None:
    """Why it is cross-fitted: sixty levels, some of which mean something."""
    random = np.random.default_rng(3)
    codes = random.integers(0, 60, 600)
    truth = (random.random(600) < np.where(codes < 30, 0.35, 0.65)).astype(np.int64)
    table = pl.DataFrame({"code": [f"c{n}" for n in codes], "y": truth})
    columns = read_columns(table, target="y")
    seen = (learn_rule(columns, truth, Objective(2)).predict(columns, 600)[0] == truth).mean()
    unseen = (cross_fit_rule(columns, truth, Objective(2))[0] == truth).mean()
    assert unseen < 0.65 < seen


def test_large_quantities_keep_their_spread() -> None:
    y = 1e9 + np.array([0.0, 1.0] * 30 + [5.0, 6.0] * 30)
    columns = read_columns(pl.DataFrame({"x": range(120), "y": y}), target="y")
    assert learn_rule(columns, y, Objective()).answers.tolist() == [1e9 + 0.5, 1e9 + 5.5]


def test_one_row_can_be_cross_fitted() -> None:
    answers, shares = cross_fit_rule({}, np.array([1]), Objective(2))
    assert (answers.tolist(), shares.shape) == ([1.0], (1, 2))
