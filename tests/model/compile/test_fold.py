"""A threshold carried back to the raw field decides the same for every float64 there is."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from clewline.model.compile.fold import fold
from clewline.model.compile.track import Number, Op

finite = st.floats(allow_nan=False, allow_infinity=False)
modest = st.floats(min_value=-1e6, max_value=1e6)
scales = st.floats(min_value=1e-6, max_value=1e6)


@given(x=finite, mean=modest, scale=scales, threshold=modest)
def test_a_folded_threshold_decides_as_the_scaler_and_the_rounding_do(x, mean, scale, threshold):
    column = Number(0, (Op("sub", mean), Op("div", scale), Op("float32")))
    raw = fold(column, np.array([threshold]))[0]
    for value in (x, raw, np.nextafter(raw, -np.inf), np.nextafter(raw, np.inf)):
        if np.isfinite(value):
            went_left = column.apply(np.array([value]))[0] <= threshold
            assert went_left == (value <= raw)


@given(x=modest, low=modest, width=scales, threshold=modest)
def test_clipping_folds_too(x, low, width, threshold):
    column = Number(0, (Op("mul", 0.5), Op("add", 1.0), Op("clip", (low, low + width))))
    raw = fold(column, np.array([threshold]))[0]
    assert (column.apply(np.array([x]))[0] <= threshold) == (x <= raw)


def test_a_threshold_that_all_or_no_values_pass_folds_to_infinity():
    column = Number(0, (Op("clip", (0.0, 1.0)),))
    assert fold(column, np.array([-1.0, 2.0])).tolist() == [-np.inf, np.inf]


def test_a_turned_comparison_decides_the_same():
    """-x <= -next(t) is exactly x > t: nodes are turned so."""
    draw = np.random.default_rng(0)
    thresholds = draw.normal(size=1000)
    near = np.concatenate([thresholds, np.nextafter(thresholds, 9), np.nextafter(thresholds, -9)])
    for x, t in zip(near, np.tile(thresholds, 3), strict=True):
        assert (-x <= -np.nextafter(t, np.inf)) == (x > t)
