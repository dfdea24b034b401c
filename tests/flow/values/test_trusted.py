"""A skops file loads only when every type in it is on our list."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from skops.io import dumps

from fairlead.errors import IntegrityError
from fairlead.flow.values.trusted import load_skops, untrusted


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
        MLPClassifier((3,), solver="lbfgs", max_iter=1000, random_state=0),
    ],
    ids=str,
)
def test_fitted_estimators_come_back_and_answer_the_same(model):
    X = np.random.default_rng(0).normal(size=(40, 2))
    model.fit(X, X[:, 0] > 0)
    again = load_skops(dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


def test_a_type_that_is_not_on_the_list_is_refused_by_name():
    data = dumps({"estimator": Stranger()})
    assert any("Stranger" in name for name in untrusted(data))
    with pytest.raises(IntegrityError, match="Stranger"):
        load_skops(data)


def test_bytes_that_are_no_skops_file_are_refused():
    with pytest.raises(IntegrityError):
        load_skops(b"PK not really")
