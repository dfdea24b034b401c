"""A trained estimator becomes the files of a package."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from clewline.errors import InvalidInput, NotSupported
from clewline.model.families import profile
from clewline.model.families.family import PackageContents
from clewline.model.families.profile import BACKGROUND_ROWS, Profile, background_rows
from clewline.model.register import convert_model
from clewline.signature.check import Checker
from clewline.signature.columns import Columns
from clewline.signature.infer import infer_signature

TRAIN = pl.DataFrame(
    {
        "age": [20, 30, 40, 50, 60, 70] * 10,
        "job": ["cook", "clerk", None, "cook", "clerk", "judge"] * 10,
        "income": ["low", "low", "low", "high", "high", "high"] * 10,
    }
)
TEST = TRAIN[:30]


def classifier(train: Any = TRAIN) -> Any:
    prepare = make_column_transformer(
        (StandardScaler(), ["age"]),
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["job"]),
    )
    tree = DecisionTreeClassifier(max_depth=3, random_state=0)
    return make_pipeline(prepare, tree).fit(train.drop("income"), train["income"])


@pytest.fixture(scope="module")
def made() -> PackageContents:
    return convert_model(classifier(), train=TRAIN, test=TEST, target="income")


def read(made: PackageContents) -> Profile:
    return msgspec.json.decode(made.files["profile.json"], type=Profile)


def test_a_package_holds_model_signature_equality_profile_and_background(
    made: PackageContents,
) -> None:
    model = "model.onnx" if made.compiled.runtime == "onnx" else "model.skops"
    assert {model, "signature.json", "equality.json", "profile.json", "background.json"} <= set(
        made.files
    )
    assert made.signature.output.labels == ("high", "low")
    assert made.notes == []


def test_the_profile_counts_every_training_row_of_every_field(
    made: PackageContents,
) -> None:
    found = read(made)
    assert found.rows == 60
    age, job = found.fields["age"], found.fields["job"]
    assert age.histogram is not None
    assert age.histogram.edges == [20, 30, 40, 50, 60, 70]
    assert age.histogram.counts == [10, 10, 10, 10, 10, 10, 0]
    assert (job.levels, job.nulls) == ({"clerk": 20, "cook": 20, "judge": 10}, 10)


def test_the_profile_counts_the_answers_to_the_test_rows(made: PackageContents) -> None:
    output = read(made).output
    assert (output.table, output.rows, output.labels) == ("test", 30, [15, 15])
    assert [sum(histogram.counts) for histogram in output.probabilities or ()] == [30, 30]


def test_a_client_may_send_every_background_row(made: PackageContents) -> None:
    rows = Checker(made.signature).decode(made.files["background.json"])
    assert len(rows) == 60
    sent = msgspec.json.decode(made.files["background.json"])
    assert {"age": 40, "job": None} in sent


def test_rows_that_an_endpoint_would_refuse_are_left_out_with_a_note() -> None:
    """The training table never showed a null age, so no request may have one."""
    test = pl.concat(
        [
            TEST,
            pl.DataFrame({"age": [None], "job": ["cook"], "income": ["low"]}, schema=TEST.schema),
        ]
    )
    made = convert_model(classifier(), train=TRAIN, test=test, target="income")
    assert made.compiled.equality.rows == 30
    assert "1 of 31 test rows" in made.notes[0]
    assert "age" in made.notes[0]


def test_without_test_rows_the_training_rows_are_taken() -> None:
    made = convert_model(classifier(), train=TRAIN, test=None, target="income")
    assert made.compiled.equality.rows == 60
    assert read(made).output.table == "train"


def test_pandas_tables_and_bare_matrices_give_the_same_answers() -> None:
    numeric = TRAIN.with_columns(pl.col("age").cast(pl.Float64), size=pl.col("age") * 2.5)
    numeric = numeric.select("age", "size", "income")
    frames = [
        (numeric, lambda table: table.drop("income")),
        (numeric.to_pandas(), lambda table: table.drop(columns="income")),
        (numeric, lambda table: table.drop("income").to_numpy()),
    ]
    counts = []
    for table, features in frames:
        model = LogisticRegression().fit(features(table), table["income"])
        made = convert_model(model, train=table, test=None, target="income")
        counts.append(read(made).output)
    assert counts[0] == counts[1] == counts[2]


def test_a_regressors_values_are_counted() -> None:
    table = pl.DataFrame({"x": np.arange(50.0), "y": np.arange(50.0) * 2})
    model = LinearRegression().fit(table.drop("y"), table["y"])
    made = convert_model(model, train=table, test=None, target="y")
    assert made.signature.output.task == "regression"
    values = read(made).output.values
    assert values is not None
    assert sum(values.counts) == 50


def test_labels_are_counted_without_probabilities() -> None:
    table = TRAIN.with_columns(size=pl.col("age") * 2)[["age", "size", "income"]]
    model = RidgeClassifier().fit(table.drop("income"), table["income"])
    made = convert_model(model, train=table, test=None, target="income")
    output = read(made).output
    assert (sum(output.labels or ()), output.probabilities) == (60, None)
    assert not made.signature.output.has_probabilities


def test_a_classifier_with_probabilities_says_nothing_of_them(
    made: PackageContents,
) -> None:
    assert made.signature.output.has_probabilities
    assert b"has_probabilities" not in made.files["signature.json"]


def test_only_the_columns_of_the_model_are_fields() -> None:
    wide = TRAIN.with_columns(note=pl.lit("x"))
    made = convert_model(classifier(), train=wide, test=wide, target="income")
    assert [field.name for field in made.signature.fields] == ["age", "job"]


def test_tables_that_are_not_the_models_are_refused_by_column() -> None:
    renamed = TRAIN.rename({"age": "aage"})
    with pytest.raises(InvalidInput, match=r"fitted on a column 'age'.*mean 'aage'"):
        convert_model(classifier(), train=renamed, test=None, target="income")
    bare = DecisionTreeClassifier().fit(TRAIN[["age"]].to_numpy(), TRAIN["income"])
    with pytest.raises(InvalidInput, match="fitted on 1 columns, but the training table has 2"):
        convert_model(bare, train=TRAIN, test=None, target="income")
    with pytest.raises(InvalidInput, match="incme"):
        convert_model(classifier(), train=TRAIN, test=None, target="incme")


@pytest.mark.parametrize(
    "model",
    [
        object(),
        LinearRegression,
        LinearRegression(),
        KMeans(2),
        LogisticRegression(),
        DecisionTreeClassifier().fit([[1], [2]], [[0, 1], [1, 0]]),
    ],
    ids=lambda model: type(model).__name__,
)
def test_an_object_that_is_not_a_fitted_estimator_is_refused(model: Any) -> None:
    with pytest.raises(NotSupported):
        convert_model(model, train=TRAIN, test=None, target="income")


def test_a_regressor_of_several_targets_is_refused() -> None:
    table = pl.DataFrame({"x": [1.0, 2.0, 3.0], "y": [1.0, 2.0, 4.0]})
    model = LinearRegression().fit(table[["x"]], table[["y", "x"]].to_numpy())
    with pytest.raises(NotSupported, match="6 answers for 3 rows"):
        convert_model(model, train=table, test=None, target="y")


def test_the_error_for_test_rows_that_the_model_refuses_names_a_way_out() -> None:
    table = pl.DataFrame({"x": ["a", "b"] * 5, "y": ["n", "p"] * 5})
    model = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(table[["x"]], table["y"])
    strange = table.with_columns(x=pl.lit("c"))
    with pytest.raises(InvalidInput, match=r"refuses the test rows.*'c'"):
        convert_model(model, train=table, test=strange, target="y")


@settings(max_examples=50)
@given(
    values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=200),
    nulls=st.integers(0, 5),
)
def test_every_value_falls_into_one_bin(values: list[float], nulls: int) -> None:
    rows: list[float | None] = [*values, *[None] * nulls]
    table = pl.DataFrame(
        {"x": rows, "y": np.arange(0.5, len(rows))}, schema={"x": pl.Float64, "y": pl.Float64}
    )
    signature = infer_signature(table, target="y")
    numbers = Checker(signature).table(table.drop("y")).columns
    found = profile.measure_profile(signature, numbers, None).fields["x"]
    assert found.histogram is not None
    edges = found.histogram.edges
    assert found.nulls == nulls
    assert sum(found.histogram.counts) == len(values)
    assert len(found.histogram.counts) == len(edges) + 1 <= profile.BINS + 1
    assert edges == sorted(set(edges))


def test_a_sample_is_drawn_by_its_seed_alone() -> None:
    table = pl.DataFrame({"x": np.arange(1000.0), "y": ["a", "b"] * 500})
    signature = infer_signature(table, target="y")
    numbers: Columns = Checker(signature).table(table.drop("y")).columns
    one, two, other = (background_rows(signature, numbers, seed=seed) for seed in (0, 0, 1))
    assert one == two != other
    assert len(one) == BACKGROUND_ROWS
    assert len({row["x"] for row in one}) == BACKGROUND_ROWS
