"""Live charts: gaps stay gaps, the table has a row for each moment, the sentence says how much."""

from __future__ import annotations

from html_pages import ReadPage

from clewline.html.live_charts import draw_live_chart, live_charts
from clewline.html.page import show_chart
from clewline.serve.metrics.live_metrics import EndpointRates

HOSTILE = "<script>alert(1)</script>"


def rates(requests: float, **arms: float) -> EndpointRates:
    return EndpointRates(
        requests=requests, rows=requests, p50_s=0.002, p90_s=0.004, p99_s=0.02, batch_rows=1.5,
        arms=tuple(arms.items()),
    )  # fmt: skip


POINTS = [
    (100.0, rates(1.0)),
    (102.0, rates(3.0)),
    (104.0, None),
    (106.0, rates(2.0)),
    (108.0, rates(2.0)),
]


def test_a_silence_breaks_the_line_and_stands_in_the_table() -> None:
    requests = live_charts(POINTS)[0]
    assert requests.lines[0].values == [1.0, 3.0, None, 2.0, 2.0]
    chart = draw_live_chart(requests, POINTS)
    assert chart.drawing.count('class="stroke tone-model"') == 2
    assert [row[:2] for row in chart.rows] == [
        ["0 s ago", 2.0],
        ["2 s ago", 2.0],
        ["4 s ago", None],
        ["6 s ago", 3.0],
        ["8 s ago", 1.0],
    ]
    assert chart.sentence == "On average over the last 8.0 s, per second: all 2 (at most 3)."


def test_times_are_milliseconds() -> None:
    latency = live_charts(POINTS)[1]
    assert [line.values[0] for line in latency.lines] == [2.0, 4.0, 20.0]


def test_each_arm_has_a_line_also_before_it_was_there() -> None:
    points = [(0.0, rates(1.0)), (2.0, rates(5.0, **{"one": 2.0, HOSTILE: 3.0}))]
    by_arm = live_charts(points)[3]
    assert [(line.name, line.values) for line in by_arm.lines] == [
        ("one", [0.0, 2.0]),
        (HOSTILE, [0.0, 3.0]),
    ]
    page = ReadPage(show_chart(draw_live_chart(by_arm, points)))
    assert page.count("script") == 0
    assert HOSTILE in page.text


def test_nothing_is_a_chart_that_says_so() -> None:
    for chart in live_charts([]):
        drawn = draw_live_chart(chart, [])
        assert drawn.sentence.startswith("Nothing is known yet")
        assert drawn.rows == []
