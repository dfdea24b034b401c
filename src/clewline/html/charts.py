"""
Charts as SVG, each with a sentence that says what it shows and a table of its data.

A drawing is as wide as its column and has a fixed height: positions across are per cent,
positions down are pixels, and paths lie in a stretched inner `svg`. So text has one size on a
phone and on a wide screen. Labels stand above bars and within the plot, not beside them.
Colours are classes (`tone-model`), which the page's style sheet defines for light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from clewline.html.markup import Markup, element, shorten

Tone = Literal["model", "other", "plain", "good", "bad", "third", "fourth"]

LABEL = 46
"""Columns of a label above a bar and of its value at the other end of the line."""

_ROW = 36
_TOP, _BOTTOM = 32, 30
_ABOVE = 6
_INNER = 1000


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing, what it shows, and its data."""

    title: str
    sentence: str
    drawing: Markup
    header: tuple[str, ...]
    rows: Sequence[Sequence[object]]
    legend: Sequence[tuple[Tone, str]] = ()


class Bar(NamedTuple):
    """A value with its interval."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    tone: Tone = "model"
    text: str | None = None  # instead of the value as it is written by default
    beside: float | None = None  # another value, drawn as a ring (by `draw_intervals`)


class Line(NamedTuple):
    """A line with points in ascending x, and a band around it."""

    name: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float, float]] = ()  # x, low, high
    tone: Tone = "model"
    dots: bool = False
    dashed: bool = False
    steps: bool = False


class Scale(NamedTuple):
    """The range of an axis."""

    low: float
    high: float

    def share(self, value: float) -> float:
        """Return where a value lies in the range, in [0, 1]."""
        if not math.isfinite(value) or self.high <= self.low:
            return 0.0
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)


def write(value: object) -> str:
    """Write a figure with four digits, counts with separators."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is None else str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return "–"
    if value.is_integer() and abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def scale_of(values: Sequence[float], *, zero: bool = False, pad: float = 0.04) -> Scale:
    """Return a range that holds the finite values; with `zero` it begins or ends there."""
    finite = [each for each in values if math.isfinite(each)] + ([0.0] if zero else [])
    if not finite:
        return Scale(0.0, 1.0)
    low, high = min(finite), max(finite)
    if low == high:
        wide = abs(low) * 0.1 or 1.0
        return Scale(low - (0 if zero and low == 0 else wide), high + wide)
    room = (high - low) * pad
    below = low if zero and low == 0 else low - room
    return Scale(below, high if zero and high == 0 else high + room)


def ticks_of(scale: Scale, most: int = 5) -> list[float]:
    """Return round numbers within a range."""
    span = scale.high - scale.low
    if not (span > 0 and math.isfinite(span)):
        return []
    raw = span / most
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= raw * 0.999)
    first = math.ceil(scale.low / step - 1e-9)
    last = math.floor(scale.high / step + 1e-9)
    return [number * step for number in range(first, last + 1)][: most + 2]


def draw_bars(
    title: str,
    sentence: str,
    bars: Sequence[Bar],
    *,
    what: str = "",
    value: str = "value",
    scale: Scale | None = None,
    reference: float | None = None,
    reference_name: str = "",
) -> Chart:
    """
    Draw horizontal bars from zero, with their intervals.

    Args:
        title: Of the chart.
        sentence: What it shows.
        bars: From top to bottom.
        what: Head of the labels in the table.
        value: Head of the values in the table.
        scale: The range; by default from zero to the largest value.
        reference: A value that is marked by a line across all bars.
        reference_name: What that value is.
    """
    ends = [each for bar in bars for each in (bar.value, bar.low, bar.high) if each is not None]
    marked = [] if reference is None else [reference]
    scale = scale or scale_of([*ends, *marked], zero=True, pad=0.02)
    zero, parts = scale.share(0.0), []
    height = _ROW * len(bars) + (18 if reference is not None else 2)
    if reference is not None:
        parts += _mark(scale, reference, reference_name, height)
    if 0 < zero < 1:
        parts.append(_upright(zero, 16, height - 2, "axis"))
    for place, bar in enumerate(bars):
        top = place * _ROW
        parts += _label(bar, top)
        start, end = sorted((zero, scale.share(bar.value)))
        shape = element(
            "rect",
            _hint(bar),
            x=_percent(start),
            y=top + 19,
            width=_percent(end - start),
            height=8,
            rx=2,
            class_=f"fill tone-{bar.tone}",
        )
        track = element("rect", x=0, y=top + 19, width="100%", height=8, rx=2, class_="track")
        parts += [track, shape, *_whisker(scale, bar, top + 23)]
    return Chart(
        title, sentence, _svg(title, sentence, height, parts), *_bar_table(bars, what, value)
    )


def draw_intervals(
    title: str,
    sentence: str,
    bars: Sequence[Bar],
    *,
    what: str = "",
    value: str = "value",
    scale: Scale | None = None,
    reference: float | None = None,
    reference_name: str = "",
    beside: str = "",
) -> Chart:
    """
    Draw values as dots with intervals, on a scale that need not hold zero; see `draw_bars`.

    `beside` is what the rings stand for, and the head of their column in the table.
    """
    ends = [
        each
        for bar in bars
        for each in (bar.value, bar.low, bar.high, bar.beside)
        if each is not None
    ]
    marked = [] if reference is None else [reference]
    scale = scale or scale_of([*ends, *marked])
    height = _ROW * len(bars) + 22
    bottom = _ROW * len(bars) + 2
    parts: list[Markup] = []
    for tick in ticks_of(scale):
        parts.append(_upright(scale.share(tick), 14, bottom, "grid"))
        parts.append(_across_text(scale.share(tick), bottom + 14, write(round(tick, 10)), "tick"))
    if reference is not None:
        parts.append(_upright(scale.share(reference), 14, bottom, "mark"))
    for place, bar in enumerate(bars):
        top = place * _ROW
        parts += _label(bar, top)
        if bar.beside is not None:
            ring = {"cx": _percent(scale.share(bar.beside)), "cy": top + 23, "r": 4.5}
            parts.append(element("circle", class_="ring tone-plain", **ring))
        parts += [
            *_whisker(scale, bar, top + 23),
            element(
                "circle",
                _hint(bar),
                cx=_percent(scale.share(bar.value)),
                cy=top + 23,
                r=5,
                class_=f"fill tone-{bar.tone}",
            ),
        ]
    legend: list[tuple[Tone, str]] = [("plain", reference_name)] if reference_name else []
    drawing = _svg(title, sentence, height, parts)
    header, rows = _bar_table(bars, what, value)
    if beside:
        legend = [("model", value), ("plain", beside), *legend]
        header = (*header, beside)
        rows = [[*row, bar.beside] for row, bar in zip(rows, bars, strict=True)]
    return Chart(title, sentence, drawing, header, rows, legend)


def draw_lines(
    title: str,
    sentence: str,
    lines: Sequence[Line],
    *,
    x: str,
    y: str,
    x_scale: Scale | None = None,
    y_scale: Scale | None = None,
    height: int = 260,
    diagonal: bool = False,
    reference: float | None = None,
    x_ticks: Sequence[tuple[float, str]] | None = None,
) -> Chart:
    """
    Draw lines with bands over a number; also ROC curves and reliability diagrams.

    Args:
        title: Of the chart.
        sentence: What it shows.
        lines: In the order of the legend.
        x: Title of the axis across, and head of its column.
        y: Title of the axis up.
        x_scale: Range across; by default that of the points.
        y_scale: Range up; by default that of points and bands.
        height: Of the plot in pixels, without the axis.
        diagonal: Draw the line where both are equal, or chance lies.
        reference: A height that is marked across the plot.
        x_ticks: Places across and their names; round numbers by default.
    """
    x_scale = x_scale or scale_of([point[0] for line in lines for point in line.points], pad=0.0)
    heights = [point[1] for line in lines for point in line.points]
    heights += [each for line in lines for point in line.band for each in point[1:]]
    y_scale = y_scale or scale_of([*heights, *([] if reference is None else [reference])])

    def across(value: float) -> str:
        return f"{x_scale.share(value) * _INNER:.1f}"

    def down(value: float) -> str:
        return f"{(1 - y_scale.share(value)) * height:.1f}"

    shapes: list[Markup] = []
    if diagonal:
        ends = f"M{across(x_scale.low)} {down(x_scale.low)}L{across(x_scale.high)} "
        shapes.append(element("path", d=ends + down(x_scale.high), class_="stroke mark"))
    if reference is not None:
        level = down(reference)
        shapes.append(element("path", d=f"M0 {level}H{_INNER}", class_="stroke mark"))
    for line in lines:
        if line.band:
            there = [f"{across(at)} {down(high)}" for at, _, high in line.band]
            back = [f"{across(at)} {down(low)}" for at, low, _ in reversed(line.band)]
            path = f"M{'L'.join([*there, *back])}Z"
            shapes.append(element("path", d=path, class_=f"band tone-{line.tone}"))
        if line.points:
            if line.steps:
                path = "M" + "".join(
                    f"{across(at)} {down(value)}" if not place else f"H{across(at)}V{down(value)}"
                    for place, (at, value) in enumerate(line.points)
                )
            else:
                path = "M" + "L".join(f"{across(at)} {down(value)}" for at, value in line.points)
            kind = "stroke dashed" if line.dashed else "stroke"
            shapes.append(element("path", d=path, class_=f"{kind} tone-{line.tone}"))
    parts = [*_frame(x_scale, y_scale, height, x, y, x_ticks)]
    parts.append(_stretched(height, shapes))
    for line in lines:
        if line.dots or len(line.points) == 1:
            parts += [
                element(
                    "circle",
                    element("title", f"{line.name}: {write(at)}, {write(value)}"),
                    cx=_percent(x_scale.share(at)),
                    cy=f"{_TOP + (1 - y_scale.share(value)) * height:.1f}",
                    r=4,
                    class_=f"fill tone-{line.tone}",
                )
                for at, value in line.points
            ]
    return Chart(
        title,
        sentence,
        _svg(title, sentence, height + _TOP + _BOTTOM, parts),
        *_line_table(lines, x, y),
        [(line.tone, line.name) for line in lines] if len(lines) > 1 else (),
    )


def draw_scatter(
    title: str,
    sentence: str,
    points: Sequence[tuple[float, float]],
    *,
    x: str,
    y: str,
    x_scale: Scale | None = None,
    y_scale: Scale | None = None,
    height: int = 260,
    diagonal: bool = False,
) -> Chart:
    """Draw points; pass at most about 500 of them, and say in the sentence of how many."""
    x_scale = x_scale or scale_of([point[0] for point in points])
    y_scale = y_scale or scale_of([point[1] for point in points])
    parts = [*_frame(x_scale, y_scale, height, x, y, None)]
    if diagonal:
        low, high = (_TOP + (1 - y_scale.share(end)) * height for end in x_scale)
        ends = {"x1": "0%", "y1": f"{low:.1f}", "x2": "100%", "y2": f"{high:.1f}"}
        parts.append(element("line", class_="mark", **ends))
    parts += [
        element(
            "circle",
            cx=_percent(x_scale.share(at)),
            cy=f"{_TOP + (1 - y_scale.share(value)) * height:.1f}",
            r=2.5,
            class_="point tone-model",
        )
        for at, value in points
    ]
    drawing = _svg(title, sentence, height + _TOP + _BOTTOM, parts)
    return Chart(title, sentence, drawing, (x, y), points)


def draw_columns(
    title: str,
    sentence: str,
    bins: Sequence[str],
    series: Sequence[tuple[str, Tone, Sequence[float]]],
    *,
    what: str,
    height: int = 140,
    stacked: bool = True,
    ends: tuple[str, str] | None = None,
) -> Chart:
    """
    Draw a histogram: one column per bin, several series stacked or side by side.

    Args:
        title: Of the chart.
        sentence: What it shows.
        bins: Name of each bin.
        series: Name, tone, and a value of each bin.
        what: Head of the bins in the table.
        height: Of the plot in pixels.
        stacked: One on top of the other; otherwise side by side.
        ends: What stands below the first and the last column; by default their names.
    """
    count = max(len(bins), 1)
    heights = [[max(values[place], 0.0) for _, _, values in series] for place in range(len(bins))]
    tops = [sum(each) if stacked else max(each, default=0.0) for each in heights]
    largest = max(tops, default=0.0) or 1.0
    parts = [
        element("line", x1="0%", x2="100%", y1=height + _ABOVE, y2=height + _ABOVE, class_="axis")
    ]
    for place, values in enumerate(heights):
        left, width, below = place / count, 0.86 / count, 0.0
        for number, (value, (name, tone, _)) in enumerate(zip(values, series, strict=True)):
            tall = value / largest * height
            if tall <= 0:
                continue
            shift = 0.0 if stacked else number * width / len(series)
            parts.append(
                element(
                    "rect",
                    element("title", f"{bins[place]}: {name} {write(value)}"),
                    x=_percent(left + 0.07 / count + shift),
                    y=f"{_ABOVE + height - below - tall:.1f}",
                    width=_percent(width if stacked else width / len(series)),
                    height=f"{max(tall, 0.75):.1f}",
                    class_=f"fill tone-{tone}",
                )
            )
            below += tall if stacked else 0.0
    first, last = ends or ((bins[0], bins[-1]) if bins else ("", ""))
    parts.append(_across_text(0.0, height + _ABOVE + 16, shorten(first, 20), "tick"))
    if len(bins) > 1 or ends:
        parts.append(_across_text(1.0, height + _ABOVE + 16, shorten(last, 20), "tick"))
    rows = [[name, *(values[place] for _, _, values in series)] for place, name in enumerate(bins)]
    header = (what, *(name for name, _, _ in series))
    legend = [(tone, name) for name, tone, _ in series] if len(series) > 1 else ()
    drawing = _svg(title, sentence, height + _ABOVE + 22, parts)
    return Chart(title, sentence, drawing, header, rows, legend)


def _svg(title: str, sentence: str, height: float, parts: Sequence[Markup]) -> Markup:
    return element(
        "svg",
        element("title", shorten(title, 120)),
        element("desc", shorten(sentence, 600)),
        parts,
        role="img",
        width="100%",
        height=f"{height:.0f}",
        xmlns="http://www.w3.org/2000/svg",
    )


def _stretched(height: float, shapes: Sequence[Markup]) -> Markup:
    return element(
        "svg",
        shapes,
        x=0,
        y=_TOP,
        width="100%",
        height=height,
        viewBox=f"0 0 {_INNER} {height}",
        preserveAspectRatio="none",
        class_="stretched",
    )


def _frame(
    x_scale: Scale,
    y_scale: Scale,
    height: int,
    x: str,
    y: str,
    x_ticks: Sequence[tuple[float, str]] | None,
) -> list[Markup]:
    """Return the grid, the axis and their texts; heights are written on their grid lines."""
    parts = []
    for tick in ticks_of(y_scale, 4):
        at = _TOP + (1 - y_scale.share(tick)) * height
        parts.append(
            element("line", x1="0%", x2="100%", y1=f"{at:.1f}", y2=f"{at:.1f}", class_="grid")
        )
        parts.append(
            element("text", write(round(tick, 10)), x=2, y=f"{at - 4:.1f}", class_="tick halo")
        )
    bottom = _TOP + height
    parts.append(element("line", x1="0%", x2="100%", y1=bottom, y2=bottom, class_="axis"))
    places = x_ticks or [(tick, write(round(tick, 10))) for tick in ticks_of(x_scale, 5)]
    for at, name in places:
        parts.append(_across_text(x_scale.share(at), bottom + 15, shorten(name, 16), "tick"))
    parts.append(element("text", shorten(y, 40), x=0, y=10, class_="axis-name"))
    parts.append(
        element(
            "text",
            shorten(x, 60),
            x="100%",
            y=bottom - 5,
            text_anchor="end",
            class_="axis-name halo",
        )
    )
    return parts


def _label(bar: Bar, top: float) -> list[Markup]:
    text = write(bar.value) if bar.text is None else bar.text
    room = max(12, LABEL - len(text))
    return [
        element("text", shorten(bar.label, room), x=0, y=top + 13, class_="label"),
        element("text", text, x="100%", y=top + 13, text_anchor="end", class_="number"),
    ]


def _whisker(scale: Scale, bar: Bar, middle: float) -> list[Markup]:
    if bar.low is None or bar.high is None:
        return []
    low, high = scale.share(bar.low), scale.share(bar.high)
    ends = {"y1": middle, "y2": middle, "x1": _percent(low), "x2": _percent(high)}
    parts = [element("line", class_="whisker", **ends)]
    parts += [_upright(at, middle - 4, middle + 4, "whisker") for at in (low, high)]
    return parts


def _mark(scale: Scale, value: float, name: str, height: float) -> list[Markup]:
    at = scale.share(value)
    return [
        _upright(at, 16, height - 16, "mark"),
        _across_text(at, height - 4, f"{name} {write(value)}".strip(), "tick"),
    ]


def _upright(at: float, top: float, bottom: float, kind: str) -> Markup:
    ends = {"x1": _percent(at), "x2": _percent(at), "y1": top, "y2": bottom}
    return element("line", class_=kind, **ends)


def _across_text(at: float, y: float, text: str, kind: str) -> Markup:
    anchor = "start" if at < 0.08 else "end" if at > 0.92 else "middle"
    return element("text", text, x=_percent(at), y=y, text_anchor=anchor, class_=kind)


def _percent(share: float) -> str:
    return f"{share * 100:.3f}".rstrip("0").rstrip(".") + "%"


def _hint(bar: Bar) -> Markup:
    interval = "" if bar.low is None else f" [{write(bar.low)}, {write(bar.high)}]"
    return element("title", f"{shorten(bar.label, 120)}: {write(bar.value)}{interval}")


def _bar_table(
    bars: Sequence[Bar], what: str, value: str
) -> tuple[tuple[str, ...], list[list[object]]]:
    if all(bar.low is None for bar in bars):
        return (what, value), [[bar.label, bar.value] for bar in bars]
    return (what, value, "low", "high"), [[b.label, b.value, b.low, b.high] for b in bars]


def _line_table(
    lines: Sequence[Line], x: str, y: str
) -> tuple[tuple[str, ...], list[list[object]]]:
    rows: list[list[object]] = []
    has_band = any(line.band for line in lines)
    for line in lines:
        band = {at: (low, high) for at, low, high in line.band}
        for at, value in line.points:
            ends = list(band.get(at, (None, None))) if has_band else []
            rows.append([*([line.name] if len(lines) > 1 else []), at, value, *ends])
    header = (*(["line"] if len(lines) > 1 else []), x, y, *(["low", "high"] if has_band else []))
    return header, rows
