"""A what-if curve as lines of text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clewline.cli.output import print_lines
from clewline.formatting import format_count

if TYPE_CHECKING:
    from clewline.explain.what_if import WhatIfExplanation

SHOWN = 16  # points
WIDTH = 40  # of the longest bar


def show_what_if(found: WhatIfExplanation) -> None:
    """Print the answer for values of a field, the row's own value marked."""
    of = "" if found.label is None else f" of {found.label}"
    lines = [
        f"prediction  {found.prediction}",
        f"answered    by {found.model} in {found.revision}",
        f"followed    {found.scale}{of}, if {found.field} were another",
        "",
    ]
    own = next((at for at, p in enumerate(found.points) if p.value == found.value), 0)
    skipped = max(1, -(-len(found.points) // SHOWN))
    shown = [p for at, p in enumerate(found.points) if at % skipped == own % skipped]
    values, scores = [_text(p.value) for p in shown], [f"{p.score:.4g}" for p in shown]
    width, digits = max(map(len, values)), max(map(len, scores))
    low, high = (end.score for end in (found.lowest, found.highest))
    low = min(low, 0.0) if found.label is not None else low
    for value, score, point in zip(values, scores, shown, strict=True):
        bar = "█" * round(WIDTH * (point.score - low) / (high - low)) if high > low else ""
        mark = "→" if point.value == found.value else " "
        answer = "" if found.label is None or point.answer == found.label else f" {point.answer}"
        lines.append(f"{mark} {value:<{width}}  {score:<{digits}}  {bar}{answer}".rstrip())
    if found.status == "exact":
        pieces = "" if found.steps is None else f" in {format_count(found.steps, 'piece')}"
        ends = [f"{end.score:.4g} at {_text(end.value)}" for end in (found.lowest, found.highest)]
        lines += ["", f"Exact{pieces}: from {ends[0]} to {ends[1]}. All other fields stay."]
    else:
        asked = format_count(len(found.points), "value")
        lines += ["", f"The model was asked about {asked}. All other fields stay."]
    print_lines(lines)


def _text(value: Any) -> str:
    return "null" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
