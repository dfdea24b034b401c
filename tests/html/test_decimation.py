"""A decimated series is short, in order, and as high and as low as the whole one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clewline.html.decimation import decimate

heights = st.lists(st.floats(-1e6, 1e6), max_size=300)


@given(heights, st.integers(4, 60))
def test_smallest_and_largest_stay_and_no_more_than_asked(ys: list[float], most: int) -> None:
    points = [(float(x), y) for x, y in enumerate(ys)]
    kept = decimate(points, most)
    assert len(kept) <= max(most, 0)
    assert kept == sorted(set(kept))
    assert set(kept) <= set(points)
    if points:
        assert min(y for _, y in kept) == min(ys)
        assert max(y for _, y in kept) == max(ys)
        assert (kept[0], kept[-1]) == (points[0], points[-1])


def test_a_short_series_stays_whole() -> None:
    points = [(0.0, 1.0), (1.0, 2.0)]
    assert decimate(points) == points


def test_fewer_than_four_points_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 4"):
        decimate([], most=3)
