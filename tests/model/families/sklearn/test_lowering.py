"""Tables say for each level, for null and for an unseen text what the encoder itself says."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    KBinsDiscretizer,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)
from support import needs

from clewline.model.compile.candidate_forms import NotConvertible
from clewline.model.compile.lowered_columns import (
    UNSEEN,
    CodeColumn,
    NumberColumn,
    raw_columns,
)
from clewline.model.families.sklearn.lowering import known_texts, lower
from clewline.model.runtime.frames import columns_of, layout_of
from clewline.model_families import fitted_names
from clewline.signature.field import Field, Output, Signature

FIELDS = (
    Field(name="amount", kind="number"),
    Field(name="rate", kind="number", nullable=True),
    Field(name="years", kind="integer"),
    Field(name="town", kind="category", nullable=True),
    Field(name="purpose", kind="category"),
)
SIGNATURE = Signature(
    fields=FIELDS, output=Output(name="paid", task="binary", labels=("no", "yes"))
)
NUMBERS, TEXTS = ["amount", "rate", "years"], ["town", "purpose"]


def lowered(step, loans):
    table = loans[[field.name for field in FIELDS]]
    step.fit(table, loans["paid"])
    columns, levels = raw_columns(
        SIGNATURE,
        layout_of(table, SIGNATURE, "pandas"),
        columns_of(table, SIGNATURE),
        names=fitted_names(step),
        known_texts=known_texts([step]),
    )
    return lower(step, columns), levels


@pytest.mark.parametrize(
    "encoder",
    [
        OneHotEncoder(handle_unknown="ignore"),
        OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=130),
        OneHotEncoder(handle_unknown="ignore", drop="first"),
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
        OrdinalEncoder(
            handle_unknown="use_encoded_value", unknown_value=np.nan, encoded_missing_value=-2
        ),
        pytest.param(TargetEncoder(cv=KFold(3)), marks=needs("scikit-learn", "1.9")),
        make_pipeline(
            SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")
        ),
        make_pipeline(
            SimpleImputer(strategy="constant", fill_value="missing"),
            OneHotEncoder(handle_unknown="ignore"),
            StandardScaler(with_mean=False),
        ),
        make_pipeline(OneHotEncoder(handle_unknown="ignore", sparse_output=False), SimpleImputer()),
        make_pipeline(
            OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan),
            SimpleImputer(),
        ),
    ],
    ids=str,
)
def test_a_table_holds_what_the_encoder_gives(encoder, loans):
    step = ColumnTransformer([("texts", encoder, TEXTS)], sparse_threshold=0)
    columns, levels = lowered(step, loans)
    null = loans["town"][loans["town"].isna()].iloc[0]  # None before pandas 3, then NaN
    for field, name in enumerate(TEXTS):
        texts = [*levels[field], null, UNSEEN]
        rows = pd.DataFrame({"amount": 1.0, "rate": 1.0, "years": 1}, index=range(len(texts)))
        rows = rows.assign(town="Oslo", purpose="car").astype(dict(loans.dtypes[TEXTS]))
        rows[name] = pd.Series(texts, dtype=loans[name].dtype)
        with warnings.catch_warnings(action="ignore"):  # unseen levels are the point
            wanted = step.transform(rows)
        for place, column in enumerate(columns):
            assert isinstance(column, CodeColumn)
            assert column.encoded
            if column.field == field:
                np.testing.assert_array_equal(column.values, wanted[:, place])


def test_numbers_carry_the_arithmetic_of_their_transformers(loans):
    step = ColumnTransformer(
        [
            ("a", make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()), NUMBERS),
            ("b", make_pipeline(SimpleImputer(strategy="median"), RobustScaler()), ["rate"]),
            ("c", OneHotEncoder(handle_unknown="ignore"), ["years"]),
        ],
        sparse_threshold=0,
    )
    columns, _ = lowered(step, loans)
    raw = columns_of(loans, SIGNATURE).numbers
    for column, wanted in zip(columns, step.transform(loans).T, strict=True):
        assert isinstance(column, NumberColumn)
        np.testing.assert_array_equal(column.apply(raw[:, column.field]), wanted)


def test_levels_that_an_encoder_refuses_are_remembered(loans):
    columns, levels = lowered(ColumnTransformer([("t", OneHotEncoder(), ["purpose"])]), loans)
    assert {code for column in columns for code in column.refused} == {
        len(levels[1]),
        len(levels[1]) + 1,
    }


@pytest.mark.parametrize("step", [PCA(2), KBinsDiscretizer(strategy="uniform")])
def test_what_mixes_columns_or_is_not_known_is_not_lowered(step, loans):
    with pytest.raises(NotConvertible, match=type(step).__name__):
        lowered(ColumnTransformer([("n", step, ["amount", "years"])]), loans)
