"""Fewer points of a series for a drawing, with the smallest and largest of each stretch kept."""

from __future__ import annotations

from collections.abc import Sequence

POINTS_MOST = 2_000
"""Points of a series that a chart draws."""


def decimate(
    points: Sequence[tuple[float, float]], most: int = POINTS_MOST
) -> list[tuple[float, float]]:
    """
    Leave out points of a series, so that its drawing looks the same.

    The series is cut into stretches of as many points each, and of each the smallest and the
    largest point stay, in their order; so do the first and the last of all.

    Args:
        points: x and y, in the order in which a line joins them; finite.
        most: Points that may stay, 4 or more.

    Returns:
        All points, if there are at most `most`; otherwise at most `most` of them.

    >>> decimate([(0, 0), (1, 5), (2, 1), (3, 2), (4, -3), (5, 0)], most=4)
    [(0, 0), (1, 5), (4, -3), (5, 0)]
    """
    if most < 4:
        raise ValueError(f"a series keeps at least 4 points (got most={most})")
    if len(points) <= most:
        return list(points)
    inner, stretches = len(points) - 2, (most - 2) // 2
    kept = [points[0]]
    for number in range(stretches):
        begin = 1 + number * inner // stretches
        end = 1 + (number + 1) * inner // stretches
        stretch = range(begin, end)
        low = min(stretch, key=lambda place: points[place][1])
        high = max(stretch, key=lambda place: points[place][1])
        kept += [points[place] for place in sorted({low, high})]
    return [*kept, points[-1]]


def say_count(drawn: int, there: int) -> str:
    """
    Say how many points a drawing shows, if not all.

    >>> say_count(2000, 10000)
    'The drawing has 2,000 of 10,000 points, with the smallest and largest of each stretch.'
    """
    if drawn == there:
        return f"All {there:,} points are drawn."
    return (
        f"The drawing has {drawn:,} of {there:,} points, with the smallest and largest of each "
        "stretch."
    )
