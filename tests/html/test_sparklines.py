"""Small lines begin at 0, are broken where nothing is known, and say what they show."""

from __future__ import annotations

import re

from clewline.html.sparklines import HEIGHT, draw_sparkline


def lines(drawing: str) -> list[list[tuple[float, float]]]:
    found = re.findall(r'<polyline points="(.*?)"', drawing)
    return [[tuple(map(float, point.split(","))) for point in each.split()] for each in found]  # type: ignore[misc]


def test_the_greatest_value_is_on_top_and_zero_at_the_bottom() -> None:
    ((left, right),) = lines(draw_sparkline([0.0, 8.0], "from 0 to 8"))
    assert left == (0.0, HEIGHT - 2)
    assert right == (1000.0, 2.0)


def test_the_line_is_broken_where_nothing_is_known() -> None:
    first, second = lines(draw_sparkline([1.0, 1.0, None, 1.0, 1.0], "x"))
    assert [x for x, _ in first] == [0.0, 250.0]
    assert [x for x, _ in second] == [750.0, 1000.0]


def test_a_line_without_values_or_with_zeros_only_is_drawn_and_its_sentence_escaped() -> None:
    assert lines(draw_sparkline([], "<b>")) == []
    assert lines(draw_sparkline([None], "x")) == []
    ((first, _),) = lines(draw_sparkline([0.0, 0.0], "x"))
    assert first[1] == HEIGHT - 2
    assert "<title>&lt;b&gt;</title>" in draw_sparkline([], "<b>")
