"""Parallel coordinates as SVG: one line for each thing, one axis for each of its values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from clewline.html.charts import Chart, write
from clewline.html.markup import Markup, element, shorten

LINES_DRAWN = 200
AXES_DRAWN = 12
LEVELS_DRAWN = 12
_GAP, _HEIGHT, _TOP, _BOTTOM, _SIDE = 150.0, 240.0, 44.0, 26.0, 75.0

Value = float | str | None


@dataclass(frozen=True, slots=True)
class ParallelLine:
    """One thing, with a value for each axis; None where it has none. It may be a link."""

    name: str
    values: Sequence[Value]
    address: str | None = None


def draw_parallel(
    title: str, sentence: str, axes: Sequence[str], lines: Sequence[ParallelLine]
) -> Chart:
    """
    Draw lines over parallel axes. A line breaks where its value is missing or not finite.

    An axis of numbers reaches from the smallest to the largest; one that holds a text has a place
    for each level, and what is beyond the twelfth level is not drawn.

    Args:
        title: Of the drawing.
        sentence: What it shows; what is left out is added to it.
        axes: Their names, from left to right. The first 12 are drawn.
        lines: The first 200 are drawn; the table has all.
    """
    if len(axes) > AXES_DRAWN:
        sentence += f" The drawing has {AXES_DRAWN} of {len(axes):,} axes."
    if len(lines) > LINES_DRAWN:
        sentence += f" The drawing has {LINES_DRAWN} of {len(lines):,} lines."
    scales = [
        _scale([line.values[place] for line in lines]) for place in range(len(axes[:AXES_DRAWN]))
    ]
    width = 2 * _SIDE + _GAP * max(len(scales) - 1, 0)
    height = _TOP + _HEIGHT + _BOTTOM
    drawing = element(
        "svg",
        element("title", title),
        element("desc", sentence),
        [
            _axis(place, name, scale)
            for place, (name, scale) in enumerate(zip(axes, scales, strict=False))
        ],
        [_line(line, scales) for line in lines[:LINES_DRAWN]],
        class_="parallel",
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        width=f"{width:.0f}",
        height=f"{height:.0f}",
        role="group",
        aria_label=title,
    )
    rows = [[line.name, *("" if each is None else each for each in line.values)] for line in lines]
    framed = element("div", drawing, class_="scroll", tabindex="0", role="region", aria_label=title)
    return Chart(title, sentence, framed, ("line", *axes), rows)


@dataclass(frozen=True, slots=True)
class _Scale:
    ends: tuple[str, str]
    low: float
    high: float
    levels: Sequence[str] | None  # of an axis of texts

    def height(self, value: Value) -> float | None:
        """Return how far down a value stands; None for one that the axis does not show."""
        if value is None:
            return None
        if self.levels is not None:
            if str(value) not in self.levels:
                return None
            share = self.levels.index(str(value)) / max(len(self.levels) - 1, 1)
        elif isinstance(value, str) or not math.isfinite(value):
            return None
        else:
            span = self.high - self.low
            share = (value - self.low) / span if span else 0.5
        return _TOP + (1 - share) * _HEIGHT


def _scale(values: Sequence[Value]) -> _Scale:
    if any(isinstance(value, str) for value in values):
        texts = sorted({str(value) for value in values if value is not None})[:LEVELS_DRAWN]
        return _Scale((texts[0], texts[-1]), 0.0, 0.0, texts)
    numbers = [value for value in values if isinstance(value, int | float) and math.isfinite(value)]
    if not numbers:
        return _Scale(("", ""), 0.0, 0.0, [])
    low, high = min(numbers), max(numbers)
    return _Scale((write(low), write(high)), low, high, None)


def _axis(place: int, name: str, scale: _Scale) -> Markup:
    x = _SIDE + place * _GAP
    middle = {"x": f"{x:.0f}", "text_anchor": "middle"}
    levels = []
    for level in scale.levels or ():
        y = scale.height(level)
        if y is not None and level not in scale.ends:
            levels.append(element("text", shorten(level, 12), x=f"{x + 6:.0f}", y=f"{y + 4:.0f}"))
    return element(
        "g",
        element("title", name),
        element("text", shorten(name, 20), y="16", class_="axis-name", **middle),
        element("text", shorten(scale.ends[1], 16), y="34", **middle),
        element("path", d=f"M{x:.0f} {_TOP}V{_TOP + _HEIGHT}", class_="axis"),
        levels,
        element("text", shorten(scale.ends[0], 16), y=f"{_TOP + _HEIGHT + 18:.0f}", **middle),
    )


def _line(line: ParallelLine, scales: Sequence[_Scale]) -> Markup:
    commands, joined = [], False
    for place, (scale, value) in enumerate(zip(scales, line.values, strict=False)):
        y = scale.height(value)
        if y is not None:
            commands.append(f"{'L' if joined else 'M'}{_SIDE + place * _GAP:.0f} {y:.1f}")
        joined = y is not None
    drawn = [
        element("title", line.name),
        element("path", d="".join(commands) or "M0 0", class_="parallel-line"),
    ]
    if line.address is None:
        return element("g", drawn)
    return element("a", drawn, href=line.address, aria_label=line.name)
