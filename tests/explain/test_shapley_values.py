"""Shapley values: exact ones equal a sum over every coalition, estimated ones come near."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from math import factorial
from typing import Any

import numpy as np
import pandas as pd
import pytest
from catboost import CatBoostRegressor
from lightgbm import LGBMClassifier, LGBMRegressor
from numpy.typing import NDArray
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from xgboost import XGBClassifier

from clewline.explain.leaf_boxes import LeafBoxes, build_leaf_boxes
from clewline.explain.shapley_values import sampled_shapley_values, tree_shapley_values
from clewline.model.register import convert_model
from clewline.model.runtime.frames import columns_of
from clewline.model.runtime.outputs import take_rows
from clewline.model_families import family_named
from clewline.signature.columns import Columns

LEVELS = ["land", "none", "own", "private", "state", "town"]
NUMBERS, TEXTS = ["age", "hours", "gain"], ["work", "home"]


def people(rows: int, seed: int = 0, *, nulls: bool = False) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "age": random.integers(17, 90, rows).astype(float),
            "hours": random.normal(40, 12, rows).round(1),
            "gain": np.where(random.random(rows) < 0.8, 0.0, random.exponential(3000, rows)),
            "work": random.choice(["state", "private", "own", "none"], rows),
            "home": random.choice(["town", "land"], rows),
        }
    )
    drive = table["age"] / 30 + (table["gain"] > 2000) * 2 + (table["work"] == "own")
    drive = drive + (table["home"] == "town") * (table["hours"] > 45) - 2.5
    noise = random.normal(0, 0.5, rows)
    table["y"] = np.where(drive + noise > 1.2, "high", np.where(drive + noise > 0, "mid", "low"))
    if nulls:
        for column in ("age", "gain"):
            table.loc[random.random(rows) < 0.15, column] = np.nan
    return table


def prepared(model: Any, *, impute: bool = False) -> Any:
    number = make_pipeline(SimpleImputer(add_indicator=True), StandardScaler())
    columns = make_column_transformer(
        (number if impute else StandardScaler(), NUMBERS),
        (OneHotEncoder(handle_unknown="ignore"), TEXTS),
    )
    return make_pipeline(columns, model)


def boxes_of(model: Any, train: pd.DataFrame, test: pd.DataFrame) -> tuple[LeafBoxes, Any, Columns]:
    contents = convert_model(model, train=train, test=test, target="y")
    family = family_named(contents.compiled.runtime)
    trees = family.served_trees(contents.compiled.files, contents.signature)
    assert trees is not None, contents.compiled.equality.sentence
    predictor = family.load(contents.compiled.files, contents.signature)
    return (
        build_leaf_boxes(trees, contents.signature),
        predictor,
        columns_of(test, contents.signature),
    )


def expected_sum(
    boxes: LeafBoxes, inside: NDArray[np.bool_], known: set[int], target: int
) -> float:
    """What the trees add up to if only some fields are known: others follow the shares."""
    factors = [inside[p] if p in known else boxes.share[p] for p in range(len(boxes.players))]
    reached = np.prod(factors, axis=0)
    return float(reached[boxes.target == target] @ boxes.value[boxes.target == target])


def brute_force(boxes: LeafBoxes, row: Columns, target: int) -> list[float]:
    inside = boxes.contains(row)
    players = len(boxes.players)
    return shapley_values(players, lambda known: expected_sum(boxes, inside, known, target))


def shapley_values(n: int, value: Callable[[set[int]], float]) -> list[float]:
    """Add up every coalition, as Shapley's formula says."""
    found = []
    for player in range(n):
        others = [other for other in range(n) if other != player]
        total = 0.0
        for size in range(n):
            weight = factorial(size) * factorial(n - size - 1) / factorial(n)
            for chosen in combinations(others, size):
                total += weight * (value({*chosen, player}) - value(set(chosen)))
        found.append(total)
    return found


def forest() -> tuple[Any, bool]:
    return prepared(RandomForestClassifier(8, random_state=0)), False


def forest_with_nulls() -> tuple[Any, bool]:
    return prepared(RandomForestClassifier(8, max_depth=6, random_state=1), impute=True), True


def extra_trees() -> tuple[Any, bool]:
    return prepared(ExtraTreesClassifier(8, max_depth=8, random_state=0)), False


def one_tree() -> tuple[Any, bool]:
    return prepared(DecisionTreeClassifier(max_depth=5, random_state=0)), False


def boosted() -> tuple[Any, bool]:
    return prepared(GradientBoostingClassifier(n_estimators=10, random_state=0)), False


@pytest.mark.parametrize("make", [forest, forest_with_nulls, extra_trees, one_tree, boosted])
def test_values_of_trees_equal_a_sum_over_every_coalition(
    make: Callable[[], tuple[Any, bool]],
) -> None:
    model, nulls = make()
    train, test = people(400, 0, nulls=nulls), people(40, 1, nulls=nulls)
    model.fit(train.drop(columns="y"), train["y"])
    boxes, predictor, rows = boxes_of(model, train, test)
    answers = predictor.predict(rows).probabilities
    for at in range(6):
        row = take_rows(rows, slice(at, at + 1))
        for target in range(boxes.trees.ensemble.targets):
            found = tree_shapley_values(boxes, row, target)
            assert found.values == pytest.approx(brute_force(boxes, row, target), abs=1e-10)
            assert found.base + found.values.sum() == pytest.approx(found.total, abs=1e-10)
            if boxes.trees.ensemble.link == "mean":
                share = found.total / boxes.trees.ensemble.count
                assert share == pytest.approx(answers[at, target], abs=1e-9)


def test_unknown_fields_follow_the_training_rows_of_each_branch() -> None:
    """As Algorithm 1 of Lundberg et al. (2020) walks the tree of scikit-learn itself."""
    train = people(300)[NUMBERS]
    train["y"] = train["age"] * 2 + (train["gain"] > 2000) * train["hours"]
    model = DecisionTreeRegressor(max_depth=6, random_state=0).fit(train[NUMBERS], train["y"])
    boxes, _, rows = boxes_of(model, train, train.head(20))
    tree = model.tree_

    def expected(values: NDArray[np.float64], known: set[int], node: int = 0) -> float:
        left, right = tree.children_left[node], tree.children_right[node]
        if left < 0:
            return float(tree.value[node, 0, 0])
        feature = tree.feature[node]
        if feature in known:
            goes_left = np.float32(values[feature]) <= tree.threshold[node]
            return expected(values, known, left if goes_left else right)
        counts = tree.weighted_n_node_samples
        both = [counts[side] * expected(values, known, side) for side in (left, right)]
        return float(sum(both) / counts[node])

    for at in range(5):
        values = train[NUMBERS].to_numpy()[at]
        wanted = shapley_values(3, lambda known, values=values: expected(values, known))
        found = tree_shapley_values(boxes, take_rows(rows, slice(at, at + 1)))
        assert found.base == pytest.approx(expected(values, set()))
        assert found.values == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize(
    "model",
    [
        LGBMRegressor(n_estimators=8, verbose=-1),
        CatBoostRegressor(iterations=8, depth=4, verbose=False, allow_writing_files=False),
        RandomForestRegressor(6, bootstrap=False, max_features=2, random_state=0),
    ],
    ids=lambda model: type(model).__name__,
)
def test_what_is_expected_is_the_mean_over_the_training_rows(model: Any) -> None:
    train = people(400)[NUMBERS]
    train["y"] = train["age"] * 2 + (train["gain"] > 2000) * 30
    model.fit(train[NUMBERS], train["y"])
    boxes, _, rows = boxes_of(model, train, train.head(20))
    found = tree_shapley_values(boxes, take_rows(rows, slice(0, 1)))
    mean = float(np.mean(model.predict(train[NUMBERS])))
    assert found.base / boxes.trees.ensemble.count == pytest.approx(mean, rel=1e-6)


@pytest.mark.parametrize(
    "model",
    [
        LGBMClassifier(n_estimators=12, verbose=-1),
        XGBClassifier(n_estimators=12, enable_categorical=True),
    ],
    ids=["lightgbm", "xgboost"],
)
def test_categories_of_boosters_are_one_player_each(model: Any) -> None:
    train, test = people(600, 0, nulls=True), people(40, 1, nulls=True)
    for table in (train, test):
        table["y"] = (table["y"] == "high").astype(int)
        for text in TEXTS:
            table[text] = pd.Categorical(
                table[text], ["land", "none", "own", "private", "state", "town"]
            )
    model.fit(train.drop(columns="y"), train["y"])
    boxes, _, rows = boxes_of(model, train, test)
    margins = (
        model.predict(test.drop(columns="y"), raw_score=True)
        if isinstance(model, LGBMClassifier)
        else model.predict(test.drop(columns="y"), output_margin=True)
    )
    assert set(boxes.players) <= {*NUMBERS, *TEXTS}
    for at in range(len(test)):
        reached = boxes.contains(take_rows(rows, slice(at, at + 1))).all(axis=0)
        assert boxes.value[reached].sum() == pytest.approx(margins[at], abs=1e-5)
    for at in range(8):  # the first and the last have null texts
        row = take_rows(rows, slice(at, at + 1))
        found = tree_shapley_values(boxes, row)
        assert found.values == pytest.approx(brute_force(boxes, row, 0), abs=1e-10)
        assert found.total == pytest.approx(margins[at], abs=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        RandomForestRegressor(6, random_state=0),
        HistGradientBoostingRegressor(max_iter=8, random_state=0),
        LGBMRegressor(n_estimators=8, verbose=-1),
    ],
    ids=lambda model: type(model).__name__,
)
def test_the_sum_of_a_regression_is_its_value(model: Any) -> None:
    train, test = people(400, 0)[[*NUMBERS]], people(30, 1)[[*NUMBERS]]
    for table in (train, test):
        table["y"] = table["age"] * 2 + (table["gain"] > 2000) * 30
    model.fit(train.drop(columns="y"), train["y"])
    boxes, predictor, rows = boxes_of(model, train, test)
    values = predictor.predict(rows).values
    for at in range(5):
        found = tree_shapley_values(boxes, take_rows(rows, slice(at, at + 1)))
        total = found.total / boxes.trees.ensemble.count
        assert total == pytest.approx(values[at], rel=1e-6)
        assert found.base + found.values.sum() == pytest.approx(found.total, abs=1e-9)


def test_a_null_text_takes_the_branch_that_its_split_says() -> None:
    train = people(400)[["age", "work"]]
    train["y"] = train["age"] + (train["work"] == "own") * 40
    missing = train.index % 4 == 0
    train.loc[missing, "work"], train.loc[missing, "y"] = None, -50.0
    encode = make_column_transformer((OrdinalEncoder(), ["work"]), remainder="passthrough")
    model = make_pipeline(encode, RandomForestRegressor(6, random_state=0))
    model.fit(train[["age", "work"]], train["y"])
    boxes, predictor, rows = boxes_of(model, train, train.head(40))
    for at in range(40):
        row = take_rows(rows, slice(at, at + 1))
        total = boxes.value[boxes.contains(row).all(axis=0)].sum() / boxes.trees.ensemble.count
        assert total == pytest.approx(predictor.predict(row).values[0], rel=1e-9)


def test_a_field_that_no_tree_reads_is_no_player() -> None:
    train = people(300)
    train["noise"] = 1.0
    model = RandomForestRegressor(3, random_state=0)
    train["y"] = train["age"]
    fields = ["age", "noise"]
    model.fit(train[fields], train["y"])
    boxes, _, _ = boxes_of(model, train[[*fields, "y"]], train[[*fields, "y"]].head(20))
    assert boxes.players == ("age",)


def test_every_row_lies_in_one_box_of_each_tree() -> None:
    train, test = people(400, nulls=True), people(60, 1, nulls=True)
    model = prepared(RandomForestClassifier(7, random_state=0), impute=True)
    model.fit(train.drop(columns="y"), train["y"])
    boxes, _, rows = boxes_of(model, train, test)
    trees = len(boxes.trees.roots) // boxes.trees.ensemble.targets
    for at in range(len(test)):
        reached = boxes.contains(take_rows(rows, slice(at, at + 1))).all(axis=0)
        assert np.bincount(boxes.target[reached]).tolist() == [trees] * boxes.trees.ensemble.targets
        of_trees = boxes.reached(take_rows(rows, slice(at, at + 1)))[0]
        assert sorted(of_trees) == np.flatnonzero(reached).tolist()


def test_a_row_at_a_split_lies_in_the_box_that_the_model_takes() -> None:
    train = people(400)[NUMBERS]
    train["y"] = train["age"] * 2 + (train["gain"] > 2000) * 30
    model = RandomForestRegressor(5, random_state=0).fit(train[NUMBERS], train["y"])
    boxes, predictor, rows = boxes_of(model, train, train.head(20))
    for place, column in enumerate(boxes.number_player.tolist()):
        splits = boxes.high[place][np.isfinite(boxes.high[place])][:20]
        for number in (*splits, *np.nextafter(splits, np.inf)):
            row = take_rows(rows, slice(0, 1))
            row.numbers[0, NUMBERS.index(boxes.players[column])] = number
            total = tree_shapley_values(boxes, row).total / boxes.trees.ensemble.count
            value = predictor.predict(row).values[0]
            assert total == pytest.approx(value, rel=1e-9)
            reached = boxes.value[boxes.reached(row)].sum() / boxes.trees.ensemble.count
            assert reached == pytest.approx(value, rel=1e-9)


def linear_case() -> tuple[Any, Columns, Any]:
    train = people(300)[NUMBERS]
    train["y"] = train["age"] * 2 - train["hours"] + 0.01 * train["gain"]
    model = LinearRegression().fit(train[NUMBERS], train["y"])
    contents = convert_model(model, train=train, test=train.head(50), target="y")
    predictor = family_named(contents.compiled.runtime).load(
        contents.compiled.files, contents.signature
    )
    return predictor, columns_of(train, contents.signature), contents.signature


def test_estimates_of_a_linear_model_are_its_terms() -> None:
    predictor, rows, signature = linear_case()
    row, background = take_rows(rows, slice(0, 1)), take_rows(rows, slice(0, 200))
    found = sampled_shapley_values(
        lambda columns: predictor.predict(columns).values,
        row,
        background,
        signature,
        budget=200 * 2 * 4,
        seed=1,
    )
    means = background.numbers.mean(axis=0)
    terms = np.array([2, -1, 0.01]) * (row.numbers[0] - means)
    assert found.values == pytest.approx(terms, abs=1e-9)  # each background row came once
    assert found.base + found.values.sum() == pytest.approx(found.total, abs=1e-9)
    assert found.model_rows == 200 * 2 * 4


def test_estimates_lie_within_their_standard_errors() -> None:
    train, test = people(400), people(10, 1)
    model = prepared(RandomForestClassifier(10, max_depth=6, random_state=0))
    model.fit(train.drop(columns="y"), train["y"])
    _, predictor, rows = boxes_of(model, train, test)
    background = columns_of(train.head(100), convert_signature(model, train, test))
    row = take_rows(rows, slice(0, 1))

    def answer(columns: Columns) -> Any:
        return predictor.predict(columns).probabilities[:, 0]

    signature = convert_signature(model, train, test)
    small, large = (
        sampled_shapley_values(answer, row, background, signature, budget=budget, seed=budget)
        for budget in (3_000, 60_000)
    )
    assert small.errors is not None
    assert large.errors is not None
    spread = np.hypot(small.errors, large.errors)
    assert (np.abs(small.values - large.values) <= 5 * spread + 1e-12).all()
    assert large.errors.max() < small.errors.max()


def convert_signature(model: Any, train: pd.DataFrame, test: pd.DataFrame) -> Any:
    return convert_model(model, train=train, test=test, target="y").signature


def test_the_same_seed_gives_the_same_bits() -> None:
    predictor, rows, signature = linear_case()
    found = [
        sampled_shapley_values(
            lambda columns: predictor.predict(columns).values,
            take_rows(rows, slice(3, 4)),
            rows,
            signature,
            budget=500,
            seed=7,
        ).values.tobytes()
        for _ in range(2)
    ]
    assert found[0] == found[1]
