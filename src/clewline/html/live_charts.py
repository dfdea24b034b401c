"""Charts of what an endpoint does, minute by minute; a script may go on drawing them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from clewline.formatting import format_duration, format_number
from clewline.html.charts import Chart, Line, Scale, Tone, draw_lines, scale_of
from clewline.serve.metrics.live_metrics import EndpointRates

RatePoints = Sequence[tuple[float, EndpointRates | None]]
"""Ends of intervals, in seconds since the epoch, with what was done in them."""

ARM_TONES: tuple[Tone, ...] = ("model", "other", "third", "fourth", "good", "plain")


class LiveLine(NamedTuple):
    """A line of a live chart; None where nothing is known."""

    name: str
    tone: Tone
    values: list[float | None]
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class LiveChart:
    """Lines over the same moments."""

    key: str
    title: str
    unit: str
    lines: Sequence[LiveLine]


def live_charts(points: RatePoints) -> list[LiveChart]:
    """Make the charts of an endpoint: requests, latency, rows of a batch, rows by arm."""

    def values(read: Callable[[EndpointRates], float | None]) -> list[float | None]:
        return [None if rates is None else _rounded(read(rates)) for _, rates in points]

    def ms(seconds: float | None) -> float | None:
        return None if seconds is None else seconds * 1e3

    arms = dict.fromkeys(arm for _, rates in points if rates for arm, _ in rates.arms)
    by_arm = [
        LiveLine(
            arm or "(no arm)",
            ARM_TONES[place % len(ARM_TONES)],
            values(lambda rates, arm=arm: dict(rates.arms).get(arm, 0.0)),  # type: ignore[misc]
            place % 2 == 1,
        )
        for place, arm in enumerate(arms)
    ]
    return [
        LiveChart(
            "requests",
            "Requests",
            "per second",
            (
                LiveLine("all", "model", values(lambda rates: rates.requests)),
                LiveLine("refused", "other", values(lambda rates: rates.refused), True),
                LiveLine("failed", "bad", values(lambda rates: rates.errors), True),
            ),
        ),
        LiveChart(
            "latency",
            "Time to the answer",
            "ms",
            (
                LiveLine("median", "model", values(lambda rates: ms(rates.p50_s))),
                LiveLine("90 %", "third", values(lambda rates: ms(rates.p90_s)), True),
                LiveLine("99 %", "other", values(lambda rates: ms(rates.p99_s))),
            ),
        ),
        LiveChart(
            "batch",
            "Rows of a batch",
            "rows",
            (LiveLine("rows", "fourth", values(lambda rates: rates.batch_rows)),),
        ),
        LiveChart(
            "arms",
            "Rows by arm" if by_arm else "Rows",
            "per second",
            by_arm or (LiveLine("rows", "model", values(lambda rates: rates.rows)),),
        ),
    ]


def draw_live_chart(chart: LiveChart, points: RatePoints) -> Chart:
    """Draw a live chart as it is now; its table has a row for each moment."""
    now = points[-1][0] if points else 0.0
    ages = [time - now for time, _ in points]
    drawn = [
        Line(line.name, part, tone=line.tone, dashed=line.dashed)
        for line in chart.lines
        for part in _unbroken(ages, line.values) or [[]]
    ]
    first = min([*ages, -60.0])
    steps = 5 if first < -240 else 1
    ticks = [
        (-60.0 * minute, f"−{minute} min" if minute else "now")
        for minute in range(0, int(-first // 60) + 1, steps)
    ]
    known = [value for line in chart.lines for value in line.values if value is not None]
    made = draw_lines(
        chart.title,
        live_sentence(chart, points),
        drawn,
        x="",
        y=chart.unit,
        x_scale=Scale(first, 0.0),
        y_scale=scale_of(known, zero=True),
        height=150,
        x_ticks=ticks,
    )
    rows = [
        [f"{abs(age):.0f} s ago", *(line.values[place] for line in chart.lines)]
        for place, age in reversed(list(enumerate(ages)))
    ]
    legend = [(line.tone, line.name) for line in chart.lines] if len(chart.lines) > 1 else []
    return replace(
        made, header=("when", *(line.name for line in chart.lines)), rows=rows, legend=legend
    )


def live_sentence(chart: LiveChart, points: RatePoints) -> str:
    """Say in one sentence what a live chart shows."""
    parts = []
    for line in chart.lines:
        known = [value for value in line.values if value is not None]
        if known and (any(known) or line is chart.lines[0]):
            mean = format_number(sum(known) / len(known))
            parts.append(f"{line.name} {mean} (at most {format_number(max(known))})")
    if not parts:
        return f"Nothing is known yet of {chart.title.lower()}."
    span = format_duration(points[-1][0] - points[0][0])
    return f"On average over the last {span}, {chart.unit}: {', '.join(parts)}."


def _unbroken(
    ages: Sequence[float], values: Sequence[float | None]
) -> list[list[tuple[float, float]]]:
    """Split a line where nothing is known."""
    parts: list[list[tuple[float, float]]] = [[]]
    for age, value in zip(ages, values, strict=True):
        if value is not None:
            parts[-1].append((age, value))
        elif parts[-1]:
            parts.append([])
    return [part for part in parts if part]


def _rounded(value: float | None) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.4g}")
