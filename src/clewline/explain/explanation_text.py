"""Explanations in words, line by line, as the command line prints them and pages show them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from clewline.formatting import format_count, format_list

if TYPE_CHECKING:
    from clewline.explain.anchors import AnchorCondition, AnchorExplanation
    from clewline.explain.attributions import AttributionExplanation
    from clewline.explain.counterfactuals import CounterfactualExplanation, FieldChange
    from clewline.explain.explained_row import Explanation
    from clewline.explain.neighbours import Neighbour, NeighbourExplanation
    from clewline.explain.what_if import WhatIfExplanation

SHOWN = 10  # fields
NEIGHBOUR_FIELDS = 6
POINTS = 16  # of a curve
WIDTH = 40  # of the longest bar


def explanation_lines(found: Explanation) -> list[str]:
    """Write an explanation as lines: those of our kinds in words, others as their fields."""
    written: dict[str, Callable[[Any], list[str]]] = {
        "anchors": anchor_lines,
        "attributions": attributions_lines,
        "counterfactuals": counterfactuals_lines,
        "neighbours": neighbours_lines,
        "what-if": what_if_lines,
    }
    return written.get(found.kind, fields_lines)(found)


def fields_lines(found: Explanation) -> list[str]:
    """Write the fields of an explanation that a plug-in made."""
    import msgspec

    fields = msgspec.to_builtins(found)
    width = max(map(len, fields))
    return [f"{name:<{width}}  {_text(value)}" for name, value in fields.items()]


def attributions_lines(found: AttributionExplanation) -> list[str]:
    """Write an explanation: from the expected answer to this one, field by field."""
    of = "" if found.label is None else f" of {found.label}"
    head = [
        f"prediction  {found.prediction or 'not logged'}",
        f"answered    by {answerer(found)}",
        f"explained   {found.scale}{of} = {found.total:.4g}",
        "",
    ]
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
    return head + lines


def anchor_lines(found: AnchorExplanation) -> list[str]:
    """Write the rule that holds an answer, and how sure that is."""
    near = found.terms["tolerance"]
    answer = f"{found.answer}" if near is None else f"{found.answer:.6g} ± {near:g}"
    lines = [
        f"prediction  {found.prediction or 'not logged'}",
        f"answered    {answer} by {answerer(found)}",
        "",
    ]
    if found.conditions:
        lines += ["  if    " + _condition(found.conditions[0])]
        lines += ["  and   " + _condition(each) for each in found.conditions[1:]]
        lines += [f"  then  {answer}", ""]
    else:
        lines += [f"  always  {answer}", ""]
    confidence = f"{found.terms['confidence']:.4g}"
    if found.precision_rows:
        rows = format_count(found.precision_rows, "perturbed row")
        lines.append(
            f"precision   {found.precision:.4g}, at least {found.precision_bound:.4g} with "
            f"confidence {confidence} ({rows})"
        )
    elif found.is_counted:
        lines.append(f"precision   {found.precision:.4g}, counted on all training rows here")
    else:
        lines.append("precision   not known: the budget does not reach for one try")
    rows = format_count(found.background_rows, "training row")
    lines.append(f"coverage    {found.coverage:.4g} of {rows}")
    asked = format_count(found.model_rows, "model row")
    wanted = f"{found.terms['precision']:.4g}"
    if found.status == "met":
        lines.append(f"status      met: the wanted precision is {wanted} ({asked})")
    elif found.status == "best effort":
        lines.append(f"status      best effort: no rule with precision {wanted} found ({asked})")
    else:
        lines.append(
            f"status      budget spent: no rule with precision {wanted} within {asked}; "
            "try a larger --budget"
        )
    return [*lines, "", *wrap(found.perturbation, 100)]


def _condition(condition: AnchorCondition) -> str:
    name, unit = condition.field, f" {condition.unit}" if condition.unit else ""
    if condition.word is not None:
        places = [f"{start}–{end}" for start, end in (condition.positions or [])[:3]]
        more = ", …" if len(condition.positions or ()) > 3 else ""
        return f"{name} contains {condition.word!r} (characters {', '.join(places)}{more})"
    if condition.above is not None and condition.at_most is not None:
        return f"{condition.above} < {name} ≤ {condition.at_most}{unit}"
    if condition.above is not None:
        return f"{name} > {condition.above}{unit}"
    if condition.at_most is not None:
        return f"{name} ≤ {condition.at_most}{unit}"
    return f"{name} is {'null' if condition.is_null else condition.value}{unit}"


def _same_answer(change: FieldChange) -> str:
    """Say between which ends of a changed number the answer stays."""
    above, at_most = change.above, change.at_most
    if isinstance(change.changed, int):  # the integers between the ends
        above = None if above is None else math.floor(above) + 1
        at_most = None if at_most is None else math.floor(at_most)
    if above is not None and above == at_most:
        return f"  (the same answer at {_number(above)} only)"
    word = "from" if isinstance(change.changed, int) else "above"
    ends = [] if above is None else [f"{word} {_number(above)}"]
    ends += [] if at_most is None else [f"up to {_number(at_most)}"]
    return f"  (the same answer {' '.join(ends)})" if ends else ""


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def counterfactuals_lines(found: CounterfactualExplanation) -> list[str]:
    """Write counterfactuals: of each the changed fields and the new answer."""
    lines = [
        f"prediction  {found.prediction or 'not logged'}",
        f"answered    {_text(found.answer)} by {answerer(found)}",
        f"wanted      {found.wanted}",
    ]
    for number, each in enumerate(found.counterfactuals, 1):
        answer = f"{each.value:.6g}" if each.label is None else f"{each.label}"
        if each.probability is not None:
            answer = f"{answer} ({each.probability:.4g})"
        lines += ["", f"{number}. {answer}, distance {each.distance:.3g}"]
        width = max(len(change.field) for change in each.changes)
        for change in each.changes:
            moved = f"{_text(change.value)} → {_text(change.changed)}"
            lines.append(f"   {change.field:<{width}}  {moved}{_same_answer(change)}")
    if fixed := [name for name, each in found.accepted.items() if each.mutable is False]:
        lines += ["", f"Not to change, by the endpoint's signatures: {format_list(fixed)}."]
    rows = format_count(found.background_rows, "training row")
    asked = format_count(found.model_rows, "model row")
    if found.status == "found":
        lines += ["", f"Each changed row was answered by the model itself. From {rows}, {asked}."]
    elif found.status == "none":
        lines += ["", f"None found: no candidate among {rows} keeps to the limits ({asked})."]
    else:
        lines += ["", f"None found within {asked}. Try again with a larger --budget."]
    return lines


def neighbours_lines(found: NeighbourExplanation) -> list[str]:
    """Write training rows: in what each differs, then the model's error around the row."""
    rows = format_count(found.background_rows, "row")
    lines = [
        f"prediction  {found.prediction or 'not logged'}",
        f"answered    {_value(found.answer)} by {found.model}"
        + (f" in {found.revision}" if found.revision else ""),
        f"compared    with {rows}: {found.background}",
    ]
    for number, each in enumerate(found.neighbours, 1):
        lines += ["", *_neighbour_lines(number, each)]
    lines += ["", *_neighbour_summary(found)]
    return lines


def _neighbour_lines(number: int, each: Neighbour) -> Iterator[str]:
    was = [] if each.truth is None else [f"was {_value(each.truth)}"]
    answered = [] if each.answer is None else [f"is answered {_value(each.answer)}"]
    yield f"{number}. {', '.join([*was, *answered, f'distance {each.distance:.3g}'])}"
    shown = each.differences[:NEIGHBOUR_FIELDS]
    width = max((len(difference.field) for difference in shown), default=0)
    for difference in shown:
        yield f"   {difference.field:<{width}}  {_value(difference.value)}"
    if len(each.differences) > NEIGHBOUR_FIELDS:
        rest = len(each.differences) - NEIGHBOUR_FIELDS
        yield f"   {format_count(rest, 'other field')}, with --json"
    if not shown:
        yield "   the same row"


def _neighbour_summary(found: NeighbourExplanation) -> Iterator[str]:
    if found.answered_alike is not None:
        yield (
            f"Of the {found.around} nearest training rows, {found.answered_alike} were "
            f"{_value(found.answer)}."
        )
    if (trust := found.trust) is not None:
        nearest = f"The nearest training row that was {_value(found.answer)}"
        if trust.score is None:
            yield f"{nearest} is the same as this row; the nearest other one was {trust.other}."
        else:
            yield (
                f"{nearest} is at {trust.to_answered:.3g}, the nearest {_value(trust.other)} at "
                f"{trust.to_other:.3g}: trust score {trust.score:.3g}."
            )
    if (error := found.local_error) is None:
        yield "The package does not know the truth of its training rows."
        return
    yield (
        f"The model's {error.measure} on the {error.rows} nearest rows is {error.error}; on all, "
        f"{error.overall:.4g}. It has seen these rows: it errs more on new ones."
    )


def what_if_lines(found: WhatIfExplanation) -> list[str]:
    """Write the answer for values of a field, the row's own value marked."""
    of = "" if found.label is None else f" of {found.label}"
    lines = [
        f"prediction  {found.prediction}",
        f"answered    by {found.model} in {found.revision}",
        f"followed    {found.scale}{of}, if {found.field} were another",
        "",
    ]
    own = next((at for at, p in enumerate(found.points) if p.value == found.value), 0)
    skipped = max(1, -(-len(found.points) // POINTS))
    shown = [p for at, p in enumerate(found.points) if at % skipped == own % skipped]
    values, scores = [_value(p.value) for p in shown], [f"{p.score:.4g}" for p in shown]
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
        ends = [f"{end.score:.4g} at {_value(end.value)}" for end in (found.lowest, found.highest)]
        lines += ["", f"Exact{pieces}: from {ends[0]} to {ends[1]}. All other fields stay."]
    else:
        asked = format_count(len(found.points), "value")
        lines += ["", f"The model was asked about {asked}. All other fields stay."]
    return lines


def answerer(found: Explanation) -> str:
    """Say who answered: the model, the revision, the arm, and the nodes around it."""
    parts = [found.model]
    parts += [f"in {found.revision}"] if found.revision else []
    parts += [f"by arm {found.arm}"] if found.arm else []
    if found.nodes:
        before = "and" if found.scope == "graph" else "after"
        parts.append(f"{before} {format_list(found.nodes)}")
    return " ".join(parts)


def _text(value: Any) -> str:
    return "null" if value is None else str(value)


def _value(value: Any) -> str:
    return "null" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
