"""A threshold carried back to the raw field decides the same for every float64 there is."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from clewline.model.compile.lowered_columns import ColumnOp, NumberColumn, raw_thresholds

finite = st.floats(allow_nan=False, allow_infinity=False)
modest = st.floats(min_value=-1e6, max_value=1e6)
scales = st.floats(min_value=1e-6, max_value=1e6)


@given(x=finite, mean=modest, scale=scales, threshold=modest)
def test_a_raw_threshold_decides_as_the_scaler_and_the_rounding_do(x, mean, scale, threshold):
    column = NumberColumn(0, (ColumnOp("sub", mean), ColumnOp("div", scale), ColumnOp("float32")))
    raw = raw_thresholds(column, np.array([threshold]))[0]
    for value in (x, raw, np.nextafter(raw, -np.inf), np.nextafter(raw, np.inf)):
        if np.isfinite(value):
            went_left = column.apply(np.array([value]))[0] <= threshold
            assert went_left == (value <= raw)


@given(x=modest, low=modest, width=scales, threshold=modest)
def test_clipping_is_carried_back_too(x, low, width, threshold):
    column = NumberColumn(
        0, (ColumnOp("mul", 0.5), ColumnOp("add", 1.0), ColumnOp("clip", (low, low + width)))
    )
    raw = raw_thresholds(column, np.array([threshold]))[0]
    assert (column.apply(np.array([x]))[0] <= threshold) == (x <= raw)


def test_a_threshold_that_all_or_no_values_pass_becomes_infinite():
    column = NumberColumn(0, (ColumnOp("clip", (0.0, 1.0)),))
    assert raw_thresholds(column, np.array([-1.0, 2.0])).tolist() == [-np.inf, np.inf]


def test_a_turned_comparison_decides_the_same():
    """-x <= -next(t) is exactly x > t: nodes are turned so."""
    draw = np.random.default_rng(0)
    thresholds = draw.normal(size=1000)
    near = np.concatenate([thresholds, np.nextafter(thresholds, 9), np.nextafter(thresholds, -9)])
    for x, t in zip(near, np.tile(thresholds, 3), strict=True):
        assert (-x <= -np.nextafter(t, np.inf)) == (x > t)
