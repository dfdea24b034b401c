"""Fitted preprocessing is a package of its own: fields in, fields out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA, SparsePCA
from sklearn.feature_selection import SelectFromModel
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from clewline.errors import IntegrityError, InvalidInput, NotSupported
from clewline.model.families.family import PackageContents
from clewline.model.register import convert_model
from clewline.model.runtime import Transformer
from clewline.model_families import family_named
from clewline.signature.check import Checker
from clewline.signature.columns import Columns

RANDOM = np.random.default_rng(0)
TABLE = pl.DataFrame(
    {
        "age": RANDOM.integers(17, 90, 300).astype(float),
        "hours": [None if r < 0.1 else float(40 * r) for r in RANDOM.random(300)],
        "work": RANDOM.choice(["private", "state", "none"], 300).tolist(),
    }
).with_columns(y=(pl.col("age") > 40).cast(pl.Int64))
FIELDS = TABLE.drop("y")


def preprocessing() -> Any:
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    words = OneHotEncoder(handle_unknown="ignore", sparse_output=True)
    return ColumnTransformer([("n", numbers, ["age", "hours"]), ("w", words, ["work"])])


def transformer(contents: PackageContents) -> Any:
    loaded = family_named(contents.compiled.runtime).load(contents.files, contents.signature)
    assert isinstance(loaded, Transformer)
    return loaded


def columns(contents: PackageContents, table: Any = FIELDS) -> Columns:
    return Checker(contents.signature).table(table).columns


def test_its_output_is_fields_named_as_the_transformer_names_them() -> None:
    fitted = preprocessing().fit(FIELDS)
    made = convert_model(fitted, train=TABLE, target="y").signature
    assert made.output.task == "transform"
    assert [field.name for field in made.fields] == ["age", "hours", "work"]
    assert [field.name for field in made.transformed.fields] == list(fitted.get_feature_names_out())
    assert {field.kind for field in made.transformed.fields} == {"number"}


def test_compiled_it_gives_what_the_transformer_gives() -> None:
    fitted = preprocessing().fit(FIELDS)
    contents = convert_model(fitted, train=TABLE[:200], test=TABLE[200:], target="y")
    assert contents.compiled.runtime == "onnx"
    assert contents.compiled.equality.verified
    assert contents.compiled.equality.synthetic_rows > 0
    found = transformer(contents).transform(columns(contents))
    np.testing.assert_allclose(found.numbers, fitted.transform(FIELDS), atol=1e-9)


@pytest.mark.parametrize("size", [1, 7])
def test_a_row_gives_the_same_bits_in_every_batch(size: int) -> None:
    contents = convert_model(preprocessing().fit(FIELDS), train=TABLE, target="y")
    loaded, rows = transformer(contents), columns(contents)
    whole = loaded.transform(rows).numbers
    for at in range(0, 21, size):
        some = Columns(rows.numbers[at : at + size], rows.texts[at : at + size])
        assert loaded.transform(some).numbers.tobytes() == whole[at : at + size].tobytes()


def test_what_has_no_lowering_is_served_by_scikit_learn_itself() -> None:
    fitted = make_pipeline(preprocessing(), PCA(2, random_state=0)).fit(FIELDS)
    contents = convert_model(fitted, train=TABLE, target="y")
    assert contents.compiled.runtime == "sklearn"
    assert "PCA cannot be converted" in str(contents.compiled.equality.reason)
    loaded = transformer(contents)
    np.testing.assert_allclose(
        loaded.transform(columns(contents)).numbers, fitted.transform(FIELDS), atol=1e-9
    )
    loaded.close()
    with pytest.raises(RuntimeError):
        loaded.transform(columns(contents))


def test_texts_that_go_through_come_out_as_texts() -> None:
    passing = ColumnTransformer([("n", StandardScaler(), ["age"]), ("w", "passthrough", ["work"])])
    contents = convert_model(passing.fit(FIELDS), train=TABLE, target="y")
    kinds = {field.name: field.kind for field in contents.signature.transformed.fields}
    assert kinds == {"n__age": "number", "w__work": "category"}
    found = transformer(contents).transform(columns(contents))
    assert found.texts[:, 0].tolist() == FIELDS["work"].to_list()


def test_a_row_that_it_refuses_is_named() -> None:
    strict = ColumnTransformer([("w", OneHotEncoder(), ["work"])])
    contents = convert_model(strict.fit(FIELDS.select("work")), train=TABLE, target="y")
    with pytest.raises(InvalidInput):
        transformer(contents).transform(columns(contents, pl.DataFrame({"work": ["queen"]})))


def test_the_model_behind_it_takes_its_outputs_as_fields() -> None:
    """Chained, the two packages answer as the whole pipeline does."""
    whole = make_pipeline(preprocessing(), LogisticRegression()).fit(FIELDS, TABLE["y"])
    names = list(whole[:-1].get_feature_names_out())
    between = pl.DataFrame(np.asarray(whole[:-1].transform(FIELDS)), schema=names)
    first = convert_model(whole[:-1], train=TABLE, target="y")
    second = convert_model(whole[-1], train=between.with_columns(TABLE["y"]), target="y")
    assert [f.name for f in second.signature.fields] == names
    made = transformer(first).transform(columns(first))
    model = family_named(second.compiled.runtime).load(second.files, second.signature)
    found = model.predict(made)
    assert found.probabilities is not None
    np.testing.assert_allclose(found.probabilities, whole.predict_proba(FIELDS), atol=1e-6)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (StandardScaler(), "was not fitted"),
        (FunctionTransformer(np.log).fit(FIELDS.select("age")), "does not name the features"),
        (
            SelectFromModel(KNeighborsClassifier()).fit(FIELDS.select("age"), TABLE["y"]),
            "refuses the rows that it was fitted on",
        ),
    ],
)
def test_what_cannot_be_packaged_is_refused(model: Any, says: str) -> None:
    with pytest.raises(NotSupported, match=says):
        convert_model(model, train=TABLE.select("age", "y"), target="y")


def test_a_model_is_no_preprocessing() -> None:
    contents = convert_model(preprocessing().fit(FIELDS), train=TABLE, target="y")
    plain = convert_model(
        LogisticRegression().fit(FIELDS.select("age"), TABLE["y"]),
        train=TABLE.select("age", "y"),
        target="y",
    )
    runtime = family_named("onnx")
    with pytest.raises(IntegrityError, match="is no preprocessing"):
        runtime.load(plain.files, contents.signature)
    for name in ("onnx", "sklearn"):
        with pytest.raises(IntegrityError, match="model"):
            family_named(name).load({}, contents.signature)


def test_one_row_is_transformed_though_the_transformer_drops_a_dimension() -> None:
    """SparsePCA makes a vector of one row."""
    draw = np.random.default_rng(0)
    table = pd.DataFrame(draw.normal(size=(60, 4)), columns=list("abcd"))
    model = SparsePCA(3, max_iter=5, random_state=0).fit(table)
    made = convert_model(model, train=table)
    loaded = family_named(made.compiled.runtime).load(made.files, made.signature)
    one = Columns(table.to_numpy()[:1].copy(), np.empty((1, 0), dtype=object))
    found = loaded.transform(one).numbers
    np.testing.assert_allclose(found, model.transform(table)[:1], rtol=1e-9)


def test_an_encoder_of_mixed_objects_that_raises_on_null_is_taken_to_refuse_it() -> None:
    table = pd.DataFrame({"n": RANDOM.integers(0, 4, 60) / 2, "is_old": RANDOM.random(60) > 0.5})
    encoder = OneHotEncoder(handle_unknown="ignore", min_frequency=3).fit(table.to_numpy())
    contents = convert_model(encoder, train=table.assign(y=table["n"]), target="y")
    found = transformer(contents).transform(columns(contents, table))
    np.testing.assert_array_equal(found.numbers, encoder.transform(table.to_numpy()).toarray())
