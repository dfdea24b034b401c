"""Small lines without axes, for many of them side by side; the numbers stand beside them."""

from __future__ import annotations

from collections.abc import Sequence

from clewline.html.charts import Tone
from clewline.html.markup import Markup, element

HEIGHT = 32
"""Pixels."""


def draw_sparkline(values: Sequence[float | None], sentence: str, tone: Tone = "model") -> Markup:
    """
    Draw values at even distances, from 0 to the greatest.

    Args:
        values: None where nothing is known; the line is broken there.
        sentence: What the line shows, for those who do not see it.
        tone: Its colour.
    """
    greatest = max((value for value in values if value is not None), default=0.0) or 1.0
    step = 1000 / max(len(values) - 1, 1)
    shapes: list[Markup] = []
    for first, part in _known_parts(values):
        points = [
            (first * step + place * step, HEIGHT - 2 - value / greatest * (HEIGHT - 4))
            for place, value in enumerate(part)
        ]
        if len(points) == 1:  # a line of one point is not seen
            points.append((points[0][0] + step / 2, points[0][1]))
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        area = f"{points[0][0]:.1f},{HEIGHT} {line} {points[-1][0]:.1f},{HEIGHT}"
        shapes.append(element("polygon", points=area, class_="band"))
        shapes.append(element("polyline", points=line, class_="stroke"))
    return element(
        "svg",
        element("title", sentence),
        element("line", x1=0, x2=1000, y1=HEIGHT - 0.5, y2=HEIGHT - 0.5, class_="grid"),
        shapes,
        role="img",
        width="100%",
        height=HEIGHT,
        viewBox=f"0 0 1000 {HEIGHT}",
        preserveAspectRatio="none",
        class_=f"sparkline stretched tone-{tone}",
    )


def _known_parts(values: Sequence[float | None]) -> list[tuple[int, list[float]]]:
    """Split values where nothing is known, into their places and what is known there."""
    parts: list[tuple[int, list[float]]] = []
    is_open = False
    for place, value in enumerate(values):
        if value is None:
            is_open = False
        elif is_open:
            parts[-1][1].append(value)
        else:
            parts.append((place, [value]))
            is_open = True
    return parts
