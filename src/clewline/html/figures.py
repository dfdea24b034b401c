"""Metrics with intervals as text and as bars."""

from __future__ import annotations

from clewline.evaluation.metrics import Interval
from clewline.html.charts import Bar, write


def write_interval(found: Interval) -> str:
    return f"{write(found.value)} [{write(found.low)}, {write(found.high)}]"


def bar_of(name: str, found: Interval, beside: float | None = None) -> Bar:
    """Return the bar of a metric, and what is drawn beside it."""
    return Bar(name, found.value, found.low, found.high, beside=beside)
