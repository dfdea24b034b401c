"""A skops file loads only when every type in it is on our list."""

from __future__ import annotations

import functools
import os

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process.kernels import RBF, WhiteKernel
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    RandomizedSearchCV,
    ShuffleSplit,
    TunedThresholdClassifierCV,
)
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, OneHotEncoder, SplineTransformer
from skops.io import dumps

from clewline.errors import IntegrityError
from clewline.model.families.sklearn.skops_types import load_skops, untrusted_parts


class Stranger:
    """Not scikit-learn's."""

    def __init__(self) -> None:
        self.value = 1


@pytest.mark.parametrize(
    "model",
    [
        RandomForestClassifier(3),
        GradientBoostingClassifier(n_estimators=3),
        KNeighborsClassifier(algorithm="kd_tree"),
        KNeighborsClassifier(metric="hamming", algorithm="ball_tree"),
        make_pipeline(KBinsDiscretizer(3, subsample=None), KNeighborsClassifier()),  # sparse rows
        MLPClassifier((3,), solver="lbfgs", max_iter=1000, random_state=0),
        GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, scoring="roc_auc"),
        RandomizedSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, n_iter=2, cv=ShuffleSplit(2)),
        TunedThresholdClassifierCV(LogisticRegression()),
        make_pipeline(SelectKBest(f_classif, k=1), LogisticRegression()),
        make_pipeline(SplineTransformer(), LogisticRegression()),
        GaussianProcessClassifier(1.0 * RBF() + WhiteKernel(), optimizer=None),
    ],
    ids=str,
)
def test_fitted_estimators_come_back_and_answer_the_same(model):
    X = np.random.default_rng(0).normal(size=(40, 2))
    model.fit(X, X[:, 0] > 0)
    again = load_skops(dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


def test_estimators_that_look_at_types_of_columns_come_back_and_answer_the_same():
    table = pd.DataFrame({"n": [1.0, 2.0, 3.0] * 10, "c": pd.Categorical(["x", "y", "z"] * 10)})
    by_type = make_column_transformer(
        (OneHotEncoder(), make_column_selector(dtype_exclude=["number", object])),
        remainder="passthrough",
    )
    by_dtype = HistGradientBoostingClassifier(categorical_features="from_dtype")
    for model in (by_dtype, make_pipeline(by_type, LogisticRegression())):
        model.fit(table, table["n"] > 1)
        again = load_skops(dumps(model))
        np.testing.assert_array_equal(again.predict_proba(table), model.predict_proba(table))


def test_a_partial_of_a_function_that_is_not_on_the_list_is_refused():
    assert untrusted_parts(dumps(functools.partial(os.system, "true"))) == ["posix.system"]


def test_a_type_that_is_not_on_the_list_is_refused_by_name():
    data = dumps({"estimator": Stranger()})
    assert any("Stranger" in name for name in untrusted_parts(data))
    with pytest.raises(IntegrityError, match="Stranger"):
        load_skops(data)


def test_bytes_that_are_no_skops_file_are_refused():
    with pytest.raises(IntegrityError):
        load_skops(b"PK not really")
