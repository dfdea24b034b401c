"""`clewline explain`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from clewline import project as projects
from clewline.cli.output import emit, print_lines
from clewline.errors import UsageError
from clewline.formatting import format_count, format_list

if TYPE_CHECKING:
    from clewline.explain.attributions import AttributionExplanation
    from clewline.explain.counterfactuals import CounterfactualExplanation

SHOWN = 10  # fields
BUDGET = 20_000  # as of the functions below, whose modules are imported when they are needed


def explain(
    prediction: str,
    /,
    *,
    kind: Literal["attributions", "counterfactuals"] = "attributions",
    to: str | None = None,
    keep: str = "",
    up: str = "",
    down: str = "",
    count: int = 3,
    budget: int = BUDGET,
) -> None:
    """
    Explain a prediction: what moved the answer, or which changes would alter it.

    Parameters
    ----------
    prediction
        Id of the prediction.
    kind
        Show what each field added (attributions), or small changes that alter the answer.
    to
        Look for this label, or this range LOW..HIGH of a number (counterfactuals).
    keep
        Do not change these fields, separated by commas (counterfactuals).
    up
        Only increase these fields (counterfactuals).
    down
        Only decrease these fields (counterfactuals).
    count
        Maximum number of counterfactuals.
    budget
        Maximum number of rows that the model answers.
    """
    project = projects.find()
    if kind == "attributions":
        from clewline.explain.attributions import attribute_prediction

        given = {"to": to, "keep": keep, "up": up, "down": down}
        if wrong := [f"--{name}" for name, value in given.items() if value]:
            raise UsageError(
                f"{format_list(wrong)} is for counterfactuals.", "Add --kind counterfactuals."
            )
        emit(attribute_prediction(project, prediction, budget=budget), show_attributions)
        return
    from clewline.explain.counterfactual_search import ChangeLimits
    from clewline.explain.counterfactuals import find_prediction_changes

    limits = ChangeLimits(
        frozenset(_names(keep)),
        {**dict.fromkeys(_names(up), "up"), **dict.fromkeys(_names(down), "down")},
    )
    found = find_prediction_changes(
        project, prediction, to=to, limits=limits, count=count, budget=budget
    )
    emit(found, show_counterfactuals)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def show_attributions(found: AttributionExplanation) -> None:
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


def show_counterfactuals(found: CounterfactualExplanation) -> None:
    """Print counterfactuals: of each the changed fields and the new answer."""
    lines = [
        f"prediction  {found.prediction}",
        f"answered    {_text(found.answer)} by {found.model} in {found.revision}",
        f"wanted      {found.wanted}",
    ]
    for number, each in enumerate(found.counterfactuals, 1):
        answer = f"{each.value:.6g}" if each.label is None else f"{each.label}"
        if each.probability is not None:
            answer = f"{answer} ({each.probability:.4g})"
        lines += ["", f"{number}. {answer}, distance {each.distance:.3g}"]
        width = max(len(change.field) for change in each.changes)
        for change in each.changes:
            ends = [f"above {_text(change.above)}"] if change.above is not None else []
            ends += [f"up to {_text(change.at_most)}"] if change.at_most is not None else []
            stays = f"  (the same answer {' and '.join(ends)})" if ends else ""
            moved = f"{_text(change.value)} → {_text(change.changed)}"
            lines.append(f"   {change.field:<{width}}  {moved}{stays}")
    rows = format_count(found.background_rows, "training row")
    asked = format_count(found.model_rows, "model row")
    if found.status == "found":
        lines += ["", f"Each changed row was answered by the model itself. From {rows}, {asked}."]
    elif found.status == "none":
        lines += ["", f"None found: no candidate among {rows} keeps to the limits ({asked})."]
    else:
        lines += ["", f"None found within {asked}. Try again with a larger --budget."]
    print_lines(lines)


def _text(value: Any) -> str:
    return "null" if value is None else str(value)
