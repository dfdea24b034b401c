"""`clewline explain`."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from clewline import project as projects
from clewline.cli.neighbours_text import show_neighbours
from clewline.cli.output import Mode, emit, print_lines, print_message
from clewline.cli.what_if_text import show_what_if
from clewline.errors import UsageError
from clewline.formatting import format_count, format_duration, format_list

if TYPE_CHECKING:
    from clewline.explain.anchors import AnchorCondition, AnchorExplanation
    from clewline.explain.attributions import AttributionExplanation
    from clewline.explain.counterfactuals import CounterfactualExplanation, FieldChange
    from clewline.explain.explained_row import Explanation

SHOWN = 10  # fields
SLOW_S = 3.0  # that the model took before a person is told
SLOW_ROW_S = 0.5  # for one row, after which a person is told at once


def explain(
    prediction: str | None = None,
    /,
    *,
    kind: str | None = None,
    fresh: Annotated[bool, Parameter(negative="")] = False,
    remote: str | None = None,
    row: Path | None = None,
    background: Path | None = None,
    output: str | None = None,
    timeout: float = 10.0,
    token_from: str | None = None,
    **options: str,
) -> None:
    """
    Explain a prediction: what moved the answer, holds it, or would alter it?

    Parameters
    ----------
    prediction
        Id of the prediction.
    kind
        What to show, such as anchors or attributions. Default: what suits the model best.
    fresh
        Compute it, and compare it with the stored one.
    remote
        Explain a row of this model: http://HOST:PORT/v2/models/NAME. Nothing is stored.
    row
        File with the row, a JSON object (--remote).
    background
        Table of rows like it: Parquet, CSV or JSON (--remote).
    output
        Tensor of the answer to explain (--remote).
    timeout
        Seconds that one call may take (--remote).
    token_from
        Environment variable that holds a bearer token (--remote).
    options
        Set an option of the kind, such as --budget 5000, or --to LABEL --keep age,sex.
    """
    if remote is not None:
        if prediction is not None or row is None or background is None:
            raise UsageError(
                "--remote needs --row and --background, and no prediction.",
                "Write --remote URL --row row.json --background rows.parquet.",
            )
        found_there = _ask_remote(
            remote, row, background, kind, options, output, timeout, token_from
        )
        emit(found_there, show)
        return
    given = {"--row": row, "--background": background, "--output": output}
    if prediction is None or any(value is not None for value in given.values()):
        raise UsageError(
            "An id of a prediction is needed, or --remote with --row and --background.",
            "`clewline predictions list` shows the latest predictions.",
        )
    from clewline.explain.explain_prediction import explain_prediction

    found = explain_prediction(
        projects.find(), prediction, kind, options, fresh=fresh, watch=SlowModelNote()
    )
    if found.note:
        print_message(found.note)
    emit(found.explanation, show)
    if not Mode.json and found.is_kept:
        print_lines([f"Explanation {found.explanation.id}."])


def _ask_remote(
    url: str,
    row: Path,
    background: Path,
    kind: str | None,
    options: dict[str, str],
    output: str | None,
    timeout: float,
    token_from: str | None,
) -> Explanation:
    import msgspec

    from clewline.explain.explain_remote import explain_remote, read_background

    try:
        values = msgspec.json.decode(row.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(f"{row} holds no row: {error}.", "Write a JSON object in it.") from error
    if token_from is not None and token_from not in os.environ:
        raise UsageError(f"The environment has no variable {token_from!r}.", "Set it.")
    if not 0 < timeout < 86_400:
        raise UsageError(f"--timeout is {timeout:g}.", "Write seconds, more than 0.")
    return explain_remote(
        url,
        values,
        read_background(background),
        kind,
        options,
        output=output,
        timeout_s=timeout,
        token=None if token_from is None else os.environ[token_from],
        watch=SlowModelNote(),
    )


class SlowModelNote:
    """Says once that a model is slow, so that a person can stop it or ask for less."""

    def __init__(self) -> None:
        self._rows, self._seconds, self._is_said = 0, 0.0, False

    def __call__(self, rows: int, seconds: float) -> None:
        self._rows += rows
        self._seconds += seconds
        if self._is_said or (self._seconds < SLOW_S and seconds < SLOW_ROW_S * rows):
            return
        self._is_said = True
        each = format_duration(self._seconds / self._rows)
        print_message(
            f"The model takes {each} a row, so this may take long. Ctrl-C stops it; a smaller "
            "--budget asks it about fewer rows."
        )


def show(found: Explanation) -> None:
    """Print an explanation: those of our kinds in words, others as their fields."""
    shown: dict[str, Callable[[Any], None]] = {
        "anchors": show_anchor,
        "attributions": show_attributions,
        "counterfactuals": show_counterfactuals,
        "neighbours": show_neighbours,
        "what-if": show_what_if,
    }
    shown.get(found.kind, show_fields)(found)


def show_fields(found: Explanation) -> None:
    """Print the fields of an explanation that a plug-in made."""
    import msgspec

    fields = msgspec.to_builtins(found)
    width = max(map(len, fields))
    print_lines(f"{name:<{width}}  {_text(value)}" for name, value in fields.items())


def show_attributions(found: AttributionExplanation) -> None:
    """Print an explanation: from the expected answer to this one, field by field."""
    of = "" if found.label is None else f" of {found.label}"
    print_lines(
        [
            f"prediction  {found.prediction or 'not logged'}",
            f"answered    by {answerer(found)}",
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


def show_anchor(found: AnchorExplanation) -> None:
    """Print the rule that holds an answer, and how sure that is."""
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
    print_lines([*lines, "", *wrap(found.perturbation, 100)])


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


def show_counterfactuals(found: CounterfactualExplanation) -> None:
    """Print counterfactuals: of each the changed fields and the new answer."""
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
    print_lines(lines)


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
