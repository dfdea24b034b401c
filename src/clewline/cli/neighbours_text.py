"""Neighbours of a row in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from clewline.cli.output import print_lines
from clewline.formatting import format_count

if TYPE_CHECKING:
    from clewline.explain.neighbours import Neighbour, NeighbourExplanation

SHOWN = 6  # fields of a neighbour


def show_neighbours(found: NeighbourExplanation) -> None:
    """Print training rows: in what each differs, then the model's error around the row."""
    rows = format_count(found.background_rows, "row")
    lines = [
        f"prediction  {found.prediction or 'not logged'}",
        f"answered    {_text(found.answer)} by {found.model}"
        + (f" in {found.revision}" if found.revision else ""),
        f"compared    with {rows}: {found.background}",
    ]
    for number, each in enumerate(found.neighbours, 1):
        lines += ["", *_neighbour(number, each)]
    lines += ["", *_summary(found)]
    print_lines(lines)


def _neighbour(number: int, each: Neighbour) -> Iterator[str]:
    was = [] if each.truth is None else [f"was {_text(each.truth)}"]
    answered = [] if each.answer is None else [f"is answered {_text(each.answer)}"]
    yield f"{number}. {', '.join([*was, *answered, f'distance {each.distance:.3g}'])}"
    shown = each.differences[:SHOWN]
    width = max((len(difference.field) for difference in shown), default=0)
    for difference in shown:
        yield f"   {difference.field:<{width}}  {_text(difference.value)}"
    if len(each.differences) > SHOWN:
        yield f"   {format_count(len(each.differences) - SHOWN, 'other field')}, with --json"
    if not shown:
        yield "   the same row"


def _summary(found: NeighbourExplanation) -> Iterator[str]:
    if found.answered_alike is not None:
        yield (
            f"Of the {found.around} nearest training rows, {found.answered_alike} were "
            f"{_text(found.answer)}."
        )
    if (trust := found.trust) is not None:
        nearest = f"The nearest training row that was {_text(found.answer)}"
        if trust.score is None:
            yield f"{nearest} is the same as this row; the nearest other one was {trust.other}."
        else:
            yield (
                f"{nearest} is at {trust.to_answered:.3g}, the nearest {_text(trust.other)} at "
                f"{trust.to_other:.3g}: trust score {trust.score:.3g}."
            )
    if (error := found.local_error) is None:
        yield "The package does not know the truth of its training rows."
        return
    yield (
        f"The model's {error.measure} on the {error.rows} nearest rows is {error.error}; on all, "
        f"{error.overall:.4g}. It has seen these rows: it errs more on new ones."
    )


def _text(value: Any) -> str:
    return "null" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
