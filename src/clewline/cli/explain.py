"""`clewline explain`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from clewline import project as projects
from clewline.cli.output import emit, print_lines
from clewline.formatting import format_count

if TYPE_CHECKING:
    from clewline.explain.explanation import AttributionExplanation

SHOWN = 10  # fields
BUDGET = 20_000  # as of `explain_prediction`, whose module is imported when it is needed


def explain(prediction: str, /, *, budget: int = BUDGET) -> None:
    """
    Explain a prediction: how much did each field move the answer?

    Parameters
    ----------
    prediction
        Id of the prediction.
    budget
        Maximum number of rows that the model answers for an estimate.
    """
    from clewline.explain.explanation import explain_prediction

    emit(explain_prediction(projects.find(), prediction, budget=budget), show)


def show(found: AttributionExplanation) -> None:
    """Print an explanation: from the expected answer to this one, field by field."""
    of = "" if found.label is None else f" of {found.label}"
    print_lines(
        [
            f"prediction  {found.prediction}",
            f"answered    by {found.model} in {found.revision}",
            f"explained   {found.scale}{of} = {found.total:.4g}",
            "",
        ]
    )
    first, others = found.fields[:SHOWN], found.fields[SHOWN:]
    # All numbers with the same decimals: four digits of the largest.
    largest = max(map(abs, [found.base, found.total, *(each.attribution for each in first)]))
    decimals = max(0, 3 - math.floor(math.log10(largest))) if largest > 0 else 3
    steps = [("expected", found.base, "if no field is known")]
    for each in first:
        error = "" if each.standard_error is None else f"  ± {each.standard_error:.1g}"
        steps.append((each.field, each.attribution, f"{_text(each.value)}{error}"))
    if others:
        rest = sum(each.attribution for each in others)
        steps.append((format_count(len(others), "other field"), rest, "each with --json"))
    steps.append(("this row", found.total, ""))
    numbers = [f"{number:+,.{decimals}f}" for _, number, _ in steps]
    width, digits = (max(map(len, each)) for each in ([name for name, _, _ in steps], numbers))
    lines = [
        f"  {number:>{digits}}  {name:<{width}}  {text}".rstrip()
        for number, (name, _, text) in zip(numbers, steps, strict=True)
    ]
    lines.append("")
    if found.status == "exact":
        lines.append(f"Exact Shapley values. Unknown fields follow {found.background}.")
    else:
        rows = format_count(found.background_rows, "row")
        lines += [
            f"Estimated Shapley values, ± one standard error, from "
            f"{format_count(found.model_rows, 'model row')}; seed {found.seed}.",
            f"Unknown fields are taken from {rows}: {found.background}.",
        ]
    print_lines(lines)


def _text(value: Any) -> str:
    return "null" if value is None else str(value)
