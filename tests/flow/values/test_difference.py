"""The distance of two values has the figures that a person needs to judge it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier

from clewline.flow.values.difference import describe_difference, ulps


@given(st.floats(min_value=1e-300, max_value=1e300), st.integers(1, 1000))
def test_ulps_count_the_doubles_between(value: float, steps: int) -> None:
    other = value
    for _ in range(steps):
        other = math.nextafter(other, math.inf)
    # The spacing doubles at powers of two, so that counting in the larger one's may halve.
    assert steps / 2 <= ulps(value, other) <= steps


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (1.0, 1.0 + 2**-52, "1 ULP"),
        (1, 2.0, "int → float"),
        ({"a": [1, 2]}, {"a": [1, 3]}, "a[1]: 2 → 3"),
        ({"a": 1}, {"b": 1}, "keys ['a'] → ['b']"),
        ([1], [1, 2], "1 items → 2 items"),
        (np.zeros(3), np.zeros(4), "float64(3,) → float64(4,)"),
        (np.array([1.0, 2.0]), np.array([1.0, 2.5]), "1 of 2 numbers differ, by 0.5"),
        (np.array([1, 2]), np.array([3, 4]), "2 of 2 entries differ"),
        (pl.DataFrame({"x": [1]}), pl.DataFrame({"x": [1, 2]}), "1 rows → 2 rows"),
        (pl.DataFrame({"x": [1]}), pl.DataFrame({"y": [1]}), "columns ['x'] → ['y']"),
        (
            pl.DataFrame({"x": [1.0, None], "t": ["a", "b"]}),
            pl.DataFrame({"x": [1.25, None], "t": ["a", "c"]}),
            "column 'x' differs in 1 of 2 rows, by 0.25",
        ),
        (
            pd.DataFrame({"x": [1.0, 2.0]}),
            pd.DataFrame({"x": [1.0, 4.0]}),
            "column 'x' differs in 1 of 2 rows, by 2,",
        ),
    ],
)
def test_the_first_difference_is_named(old: object, new: object, says: str) -> None:
    assert says in describe_difference(old, new)


def test_of_two_models_the_first_attribute_that_differs_is_named() -> None:
    rows, answers = np.arange(40.0).reshape(20, 2), np.arange(20) % 2
    one, two = (
        RandomForestClassifier(n_estimators=2, random_state=seed).fit(rows, answers)
        for seed in (0, 1)
    )
    assert describe_difference(one, two).startswith("random_state: 0 → 1")
    two.random_state = 0
    assert "estimators_[0]" in describe_difference(one, two)
