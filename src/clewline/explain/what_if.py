"""
What-if: what a model answers if one field of a row had another value.

Of an ensemble of trees the curve is a step function, and it is exact: the leaves whose other
fields hold for the row are added up between the sorted ends of their intervals. Other models are
asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.errors import InvalidInput, NotSupported, did_you_mean
from clewline.explain.explained_model import ExplainedModel
from clewline.explain.explained_row import ExplainedRow, Explanation
from clewline.explain.explainer import ExplainerOptions
from clewline.explain.leaf_boxes import LeafBoxes
from clewline.formatting import format_list
from clewline.model.compile.trees import ServedEnsemble
from clewline.model.runtime.outputs import Outputs, take_rows
from clewline.signature.columns import Columns
from clewline.signature.field import Field
from clewline.signature.field_rules import value_in_kind

Scale = Literal["probability", "value", "answer"]


class WhatIfOptions(ExplainerOptions, frozen=True, kw_only=True):
    """Options of a what-if curve."""

    field: Annotated[str, msgspec.Meta(description="the field that gets other values")] = ""
    points: Annotated[
        int, msgspec.Meta(ge=2, le=1000, description="at most so many values of the field")
    ] = 50


class WhatIfPoint(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A value of the field, and the answer of the model itself."""

    value: Any
    answer: Any  # label or value
    score: float
    above: Any | None = None  # of a number of trees: while it is above this, and at most
    at_most: Any | None = None  # that, the score stays; None: no end


class WhatIfEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The lowest or the highest score, and where."""

    score: float
    value: Any


class WhatIfExplanation(Explanation, frozen=True, kw_only=True):
    """A curve of the answer over one field, all others as they are."""

    kind: str = "what-if"
    status: Literal["exact", "asked"]
    """Exact: `lowest` and `highest` are those of every value. Asked: of the points alone."""
    field: str
    value: Any  # of the row
    label: Any | None  # whose probability `score` is; None of a regression
    scale: Scale
    points: list[WhatIfPoint]  # the row's own value among them
    lowest: WhatIfEnd
    highest: WhatIfEnd
    steps: int | None  # of an exact curve over a number: pieces with a score each
    difference: float | None  # largest one between the exact curve and the model, at the points


class WhatIfExplainer:
    """Follows the answer over one field."""

    kind = "what-if"
    options = WhatIfOptions
    explanation = WhatIfExplanation

    def preference(self, model: ExplainedModel) -> int:
        """Suit every model roughly: a field must be named."""
        return 1

    def explain(self, row: ExplainedRow, options: WhatIfOptions) -> WhatIfExplanation:
        """
        Compute the curve.

        Raises:
            InvalidInput: No field is named, or there is none of that name.
            NotSupported: The field holds arrays, or the sample has no values of it.
            ModelFailed: The model raised on a changed row.
        """
        field = _field(row, options.field)
        values = _values(row, field, options.points)
        rows = _replaced(row, field, values)
        model_rows = row.model.rows_asked
        answers = row.model.predict(rows)
        model_rows = row.model.rows_asked - model_rows
        scores, scale = _scores(answers, row.label_place)
        boxes, curve = row.model.boxes, None
        if boxes is not None:
            curve = _curve(boxes, row, field, rows)
        labels, place = row.signature.output.labels, row.label_place
        ends = (scores, values) if curve is None else (curve.scores, curve.values)
        return WhatIfExplanation(
            **row.facts(options),
            status="asked" if curve is None else "exact",
            field=field.name,
            value=row.values.get(field.name),
            label=None if labels is None or place is None else labels[place],
            scale=scale,
            points=[
                WhatIfPoint(
                    value=_shown(field, value),
                    answer=_answer(row, answers, at),
                    score=float(scores[at]),
                    **({} if curve is None else curve.ends(field, value)),
                )
                for at, value in enumerate(values)
            ],
            lowest=_end(field, *ends, int(np.argmin(ends[0]))),
            highest=_end(field, *ends, int(np.argmax(ends[0]))),
            steps=None if curve is None or curve.breaks is None else len(curve.breaks) + 1,
            difference=None if curve is None else float(np.abs(curve.at_points - scores).max()),
            model_rows=model_rows,
        )


@dataclass(frozen=True, slots=True)
class _Curve:
    """The exact scores of an ensemble over one field."""

    scores: NDArray[np.float64]  # of every piece, or of every level
    values: list[Any]  # a value in each piece, or the levels
    at_points: NDArray[np.float64]
    breaks: NDArray[np.float64] | None  # of a number: ascending ends of the pieces

    def ends(self, field: Field, value: Any) -> dict[str, Any]:
        """Return the ends of the piece that a value lies in."""
        if self.breaks is None or np.isnan(value):
            return {}
        at = int(np.searchsorted(self.breaks, value, side="left"))
        found: dict[str, Any] = {}
        if at > 0:
            found["above"] = value_in_kind(field, float(self.breaks[at - 1]))
        if at < len(self.breaks):
            found["at_most"] = value_in_kind(field, float(self.breaks[at]))
        return found


def _field(row: ExplainedRow, name: str) -> Field:
    fields = {field.name: field for field in row.signature.fields}
    if not name:
        raise InvalidInput(
            "No field is named.", f"Name one: --field, one of {format_list(list(fields))}."
        )
    if name not in fields:
        raise InvalidInput(f"{row.model.ref} has no field {name!r}.", did_you_mean(name, fields))
    if fields[name].kind == "tensor":
        raise NotSupported(
            f"The field {name!r} holds arrays, which have no order.",
            "Name a number, a date-time, a category or a text.",
        )
    return fields[name]


def _values(row: ExplainedRow, field: Field, points: int) -> list[Any]:
    """
    Return values of training rows, ascending, and the row's own; null last.

    Of many values those at evenly spaced quantiles; of many levels the most frequent.
    """
    numeric = [each.name for each in row.signature.numeric]
    if field.name in numeric:
        column = numeric.index(field.name)
        own = float(row.columns.numbers[0, column])
        known = row.background.numbers[:, column]
        has_null = bool(np.isnan(known).any()) or np.isnan(own)
        found = np.unique(known[~np.isnan(known)])
        room = points - int(has_null) - 1
        if len(found) > room:
            shares = np.linspace(0, 1, max(room, 1))
            quantiles = np.quantile(known[~np.isnan(known)], shares, method="lower")
            found = np.unique(quantiles)
        if not np.isnan(own):
            found = np.unique(np.append(found, own))
        return [*found.tolist(), *([np.nan] if has_null else [])]
    column = [each.name for each in row.signature.textual].index(field.name)
    texts = row.background.texts[:, column].tolist()
    own_text = row.columns.texts[0, column]
    counts: dict[Any, int] = {}
    for text in texts:
        counts[text] = counts.get(text, 0) + 1
    most = sorted(counts, key=lambda text: (-counts[text], str(text)))[: points - 1]
    levels = sorted({text for text in (*most, own_text) if text is not None})
    return [*levels, *([None] if None in most or own_text is None else [])]


def _replaced(row: ExplainedRow, field: Field, values: list[Any]) -> Columns:
    """Return the row with each of the values."""
    rows = take_rows(row.columns, np.zeros(len(values), dtype=np.intp))
    numeric = [each.name for each in row.signature.numeric]
    if field.name in numeric:
        rows.numbers[:, numeric.index(field.name)] = values
    else:
        column = [each.name for each in row.signature.textual].index(field.name)
        rows.texts[:, column] = values
    return rows


def _scores(answers: Outputs, place: int | None) -> tuple[NDArray[np.float64], Scale]:
    if place is None:
        assert answers.values is not None, "a regression answers with values"
        return answers.values, "value"
    if answers.probabilities is not None:
        return answers.probabilities[:, place], "probability"
    assert answers.choices is not None, "a classifier answers with choices"
    return np.equal(answers.choices, place).astype(np.float64), "answer"


def _curve(boxes: LeafBoxes, row: ExplainedRow, field: Field, rows: Columns) -> _Curve | None:
    """
    Add up the leaves that the row reaches with any value of the field.

    Returns:
        None if trees compare the field in several ways, or it is no raw number.
    """
    place = row.label_place
    if field.name not in boxes.players:  # no tree reads it
        matrix = np.zeros(len(rows))
        leaves = boxes.holding(row.columns)
        flat = _sums(boxes, leaves, np.ones((len(leaves), 1)))
        score = _linked(boxes.trees.ensemble, flat, place)
        value = _own_value(row, field)
        breaks = np.empty(0) if isinstance(value, float) else None
        return _Curve(score, [value], matrix + score[0], breaks)
    player = boxes.players.index(field.name)
    leaves = boxes.holding(row.columns, player)
    ensemble = boxes.trees.ensemble
    texts = [text.field for text in boxes.trees.codes]
    if field.name in texts:
        at = texts.index(field.name)
        codes = boxes.trees.encode(rows)[1][at]
        bits = boxes.code_bits(at, leaves)  # (leaves, codes)
        scores = _linked(ensemble, _sums(boxes, leaves, bits.astype(np.float64)), place)
        text = boxes.trees.codes[at]
        spelled = [*text.levels, None]
        known = [code for code in range(len(spelled)) if code not in text.refused]
        return _Curve(scores[known], [spelled[code] for code in known], scores[codes], None)
    mine = np.flatnonzero(boxes.number_player == player)
    if len(mine) != 1 or not boxes.number_is_raw[mine[0]]:
        return None
    low, high = boxes.low[mine[0]][leaves], boxes.high[mine[0]][leaves]
    breaks = np.unique(np.concatenate([low, high]))
    breaks = breaks[np.isfinite(breaks)]
    # A piece between two ends stands for all its values; a leaf covers pieces in a row.
    first = np.searchsorted(breaks, low, side="left") + np.isfinite(low)
    last = np.searchsorted(breaks, high, side="left")
    sums = np.zeros((ensemble.targets, len(breaks) + 2))
    for target in range(ensemble.targets):
        own = np.flatnonzero(boxes.target[leaves] == target)
        value = boxes.value[leaves[own]]
        np.add.at(sums[target], first[own], value)
        np.subtract.at(sums[target], last[own] + 1, value)
    scores = _linked(ensemble, sums.cumsum(axis=1)[:, : len(breaks) + 1], place)
    inside, exists = _inside(field, breaks)
    column = [each.name for each in row.signature.numeric].index(field.name)
    values = rows.numbers[:, column]
    at_points = scores[np.searchsorted(breaks, values, side="left")]
    if np.isnan(values).any():
        null = boxes.null[mine[0]][leaves][:, None].astype(np.float64)
        at_points[np.isnan(values)] = _linked(ensemble, _sums(boxes, leaves, null), place)[0]
    return _Curve(scores[exists], inside[exists].tolist(), at_points, breaks)


def _inside(
    field: Field, breaks: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return a value in each piece, and whether the field can have one there."""
    if not len(breaks):
        return np.zeros(1), np.ones(1, dtype=bool)
    low = np.concatenate([[-np.inf], breaks])
    if field.kind == "number":
        return np.append(breaks, np.nextafter(breaks[-1], np.inf)), np.ones(len(low), dtype=bool)
    inside = np.append(np.floor(breaks), np.floor(breaks[-1]) + 1)
    exists = inside > low
    if field.kind == "boolean":
        exists &= (inside >= 0) & (low < 1)
        inside = np.minimum(inside, 1.0)
    return inside, exists


def _sums(
    boxes: LeafBoxes, leaves: NDArray[np.intp], holds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Add up leaves in each case of `holds` (leaves, cases), (targets, cases)."""
    target, value = boxes.target[leaves], boxes.value[leaves]
    return np.stack(
        [
            (value[target == each, None] * holds[target == each]).sum(axis=0)
            for each in range(boxes.trees.ensemble.targets)
        ]
    )


def _linked(
    ensemble: ServedEnsemble, sums: NDArray[np.float64], place: int | None
) -> NDArray[np.float64]:
    """Turn sums of leaves (targets, n) into values, or probabilities of the label, shape (n,)."""
    if ensemble.link == "mean":
        sums = sums / ensemble.count
    elif ensemble.link == "half sigmoid":
        sums = 2 * sums
    if place is None:
        return np.asarray(np.exp(sums[0]) if ensemble.link == "exp" else sums[0])
    target = ensemble.classes[place]
    if ensemble.targets == 1:
        found = sums[0] if ensemble.link == "mean" else 1 / (1 + np.exp(-sums[0]))
        return np.asarray(1 - found if target == 0 else found)
    if ensemble.link == "mean":
        return np.asarray(sums[target])
    if ensemble.link == "softmax":
        powers = np.exp(sums - sums.max(axis=0))
        return np.asarray(powers[target] / powers.sum(axis=0))
    shares = 1 / (1 + np.exp(-sums))
    return np.asarray(shares[target] / shares.sum(axis=0))


def _own_value(row: ExplainedRow, field: Field) -> Any:
    numeric = [each.name for each in row.signature.numeric]
    if field.name in numeric:
        return float(row.columns.numbers[0, numeric.index(field.name)])
    column = [each.name for each in row.signature.textual].index(field.name)
    return row.columns.texts[0, column]


def _answer(row: ExplainedRow, answers: Outputs, at: int) -> Any:
    labels = row.signature.output.labels
    if labels is not None and answers.choices is not None:
        return labels[int(answers.choices[at])]
    return None if answers.values is None else float(answers.values[at])


def _end(field: Field, scores: NDArray[np.float64], values: list[Any], at: int) -> WhatIfEnd:
    return WhatIfEnd(score=float(scores[at]), value=_shown(field, values[at]))


def _shown(field: Field, value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return None if np.isnan(value) else value_in_kind(field, value)
