"""Explanations of one prediction as charts: how fields moved the answer, and what-if curves."""

from __future__ import annotations

from typing import Any

from clewline.explain.attributions import AttributionExplanation
from clewline.explain.what_if import WhatIfExplanation
from clewline.formatting import format_count
from clewline.html.charts import Bar, Chart, Line, Scale, draw_bars, draw_lines, write
from clewline.html.markup import shorten

BARS = 12
"""Fields with a bar of their own; the others share one."""
LEVELS = 20
"""Levels of a category that have a bar."""


def draw_attributions(found: AttributionExplanation) -> Chart:
    """
    Draw how much each field moved the answer; base and all bars add up to the answer.

    The fields that moved it least share the last bar.
    """
    shown = found.fields[: BARS if len(found.fields) > BARS + 1 else BARS + 1]
    bars = [
        Bar(
            f"{shorten(each.field, 40)} = {_text(each.value)}",
            each.attribution,
            tone="model" if each.attribution >= 0 else "other",
        )
        for each in shown
    ]
    rest = found.fields[len(shown) :]
    if rest:
        moved = sum(each.attribution for each in rest)
        name = format_count(len(rest), "other field")
        bars.append(Bar(name, moved, tone="model" if moved >= 0 else "other"))
    what = found.scale if found.label is None else f"{found.scale} of {found.label}"
    first = found.fields[0] if found.fields else None
    most = f" {shorten(first.field, 40)} moved it most." if first is not None else ""
    how = "" if found.status == "exact" else " The shares are estimated."
    return draw_bars(
        "Share of each field",
        f"The {shorten(what, 60)} is {write(found.total)}; if no field were known it would be "
        f"{write(found.base)}.{most}{how}",
        bars,
        what="field",
        value="moved by",
    )


def draw_what_if(found: WhatIfExplanation) -> Chart:
    """Draw the answer over one field, all others as they are; the row's own value is marked."""
    score = (
        found.scale if found.label is None else f"{found.scale} of {shorten(str(found.label), 40)}"
    )
    title = f"If {shorten(found.field, 60)} were another"
    sentence = (
        f"{score}: lowest {write(found.lowest.score)} at {_text(found.lowest.value)}, highest "
        f"{write(found.highest.score)} at {_text(found.highest.value)}."
    )
    if found.lowest.score == found.highest.score:
        sentence = f"{score}: {write(found.lowest.score)}, whatever the value is."
    scale = None if found.scale == "value" else Scale(0.0, 1.0)
    own = next((p.score for p in found.points if p.value == found.value), None)
    numeric = [
        (float(p.value), p.score)
        for p in found.points
        if isinstance(p.value, int | float) and not isinstance(p.value, bool)
    ]
    if len(numeric) > 1 and len(numeric) >= len(found.points) - 1:  # null has no place on it
        lines = [Line(score, numeric)]
        if own is not None and isinstance(found.value, int | float):
            lines.append(Line("this row", [(float(found.value), own)], tone="other", dots=True))
        return draw_lines(title, sentence, lines, x=found.field, y=score, y_scale=scale, height=180)
    bars = [
        Bar(
            shorten(_text(point.value), 40),
            point.score,
            tone="other" if point.value == found.value else "model",
        )
        for point in found.points[:LEVELS]
    ]
    return draw_bars(title, sentence, bars, what=found.field, value=score, scale=scale)


def _text(value: Any) -> str:
    if value is None:
        return "null"
    return write(value) if isinstance(value, float) else shorten(str(value), 40)
