"""
Neighbours: the most similar training rows, and how often the model is wrong among them.

Source:
    Trust score: Jiang, Kim, Guan, Gupta, To trust or not to trust a classifier (NeurIPS 2018);
    without their filter of rows in sparse regions.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.evaluation.calibration import wilson_interval
from clewline.evaluation.metrics import Interval, bootstrap_intervals, mean_measure
from clewline.explain.explained_model import ExplainedModel
from clewline.explain.explained_row import ExplainedRow, Explanation
from clewline.explain.explainer import ExplainerOptions
from clewline.explain.row_distances import RowDistances, array_distances, word_distances
from clewline.model.runtime.outputs import Outputs, take_outputs, take_rows
from clewline.signature.columns import Columns
from clewline.signature.field import Signature
from clewline.signature.field_rules import value_in_kind

RESAMPLES = 1000


class NeighbourOptions(ExplainerOptions, frozen=True, kw_only=True):
    """Options of neighbours: how many rows are shown, and how many the error is measured on."""

    count: Annotated[int, msgspec.Meta(ge=1, description="at most so many training rows")] = 5
    around: Annotated[
        int, msgspec.Meta(ge=1, description="nearest rows that the error is measured on")
    ] = 100
    budget: Annotated[
        int,
        msgspec.Meta(ge=0, description="rows that the model answers, if no answers are stored"),
    ] = 1000


class FieldDifference(msgspec.Struct, frozen=True, kw_only=True):
    """A field in which a neighbour differs from the row."""

    field: str
    value: Any  # of the neighbour
    distance: float


class Neighbour(msgspec.Struct, frozen=True, kw_only=True):
    """A training row."""

    distance: float
    truth: Any | None = None  # label or value; None if the package does not know it
    answer: Any | None = None  # of the served model
    values: dict[str, Any]  # by field
    differences: list[FieldDifference]  # the largest first


class TrustScore(msgspec.Struct, frozen=True, kw_only=True):
    """
    How much nearer the row is to training rows of the answered label than to others.

    Above 1 the row lies among rows of that label.
    """

    score: float | None  # `to_other / to_answered`; None if it is not finite
    to_answered: float  # distance to the nearest row of the answered label
    to_other: float  # distance to the nearest row of any other label
    other: Any  # the label of that row


class LocalError(msgspec.Struct, frozen=True, kw_only=True):
    """The model's error among the nearest training rows: less than on rows that it never saw."""

    measure: Literal["error rate", "mean absolute error"]
    rows: int
    error: Interval
    overall: float  # in the whole sample


class NeighbourExplanation(Explanation, frozen=True, kw_only=True):
    """The training rows that are most like the row, the nearest first."""

    kind: str = "neighbours"
    status: Literal["found"] = "found"
    answer: Any  # label or value, of the explained row
    neighbours: list[Neighbour]
    answered_alike: int | None  # of the `around` nearest rows: with the row's label as truth
    around: int
    trust: TrustScore | None  # None of a regression, or if one of the two classes has no row
    local_error: LocalError | None  # None if the truth is not known


class NeighbourExplainer:
    """Shows the training rows that are most like a row."""

    kind = "neighbours"
    options = NeighbourOptions
    explanation = NeighbourExplanation

    def preference(self, model: ExplainedModel) -> int:
        """Suit every model, roughly: examples are no reasons."""
        return 1

    def explain(self, row: ExplainedRow, options: NeighbourOptions) -> NeighbourExplanation:
        """
        Find the nearest training rows.

        Raises:
            ModelFailed: No answers are stored, and the model raised on a training row.
        """
        sample, signature = row.model.sample, row.signature
        apart = self._distances(row)
        totals = apart.sum(axis=1)
        order = np.argsort(totals, kind="stable")
        near = order[: options.around]
        answers, model_rows = sample.answers, 0
        answered = order
        if answers is None:
            asked = min(max(options.around, options.count), options.budget)
            answered = order[:asked]
            answers = row.model.predict(take_rows(sample.columns, answered)) if asked else None
            model_rows = len(answered) if asked else 0
        else:
            answers = take_outputs(answers, order)
        truth = None if sample.truth is None else sample.truth[order]
        alike = None
        if truth is not None and row.label_place is not None:
            alike = int((truth[: len(near)] == row.label_place).sum())
        shown = order[: options.count]
        return NeighbourExplanation(
            **row.facts(options),
            answer=row.answer["value" if row.label_place is None else "label"],
            neighbours=[
                Neighbour(
                    distance=float(totals[at]),
                    truth=None if truth is None else _truth(signature, truth[place]),
                    answer=None if answers is None else _answer(signature, answers, place),
                    values=(values := _values(signature, sample.columns, at)),
                    differences=_differences(signature, apart[at], values),
                )
                for place, at in enumerate(shown.tolist())
            ],
            answered_alike=alike,
            around=len(near),
            trust=_trust(row, truth, totals[order]),
            local_error=_local_error(row, truth, answers, len(near)),
            seed=row.seed if row.label_place is None and truth is not None else None,
            model_rows=model_rows,
        )

    def _distances(self, row: ExplainedRow) -> NDArray[np.float64]:
        """Return the distance of each field of each training row, (n, fields)."""
        model, rows = row.model, row.background
        metric = model.remember(self.kind, lambda: RowDistances(rows, model.signature))
        found = metric.between(rows, row.columns)
        place = {each.name: at for at, each in enumerate(row.signature.fields)}
        for column, field in enumerate(row.signature.textual):
            if field.kind == "text":
                text = row.columns.texts[0, column]
                found[:, place[field.name]] = word_distances(rows.texts[:, column], text)
        for field in row.signature.tensors:
            apart = array_distances(rows.tensors[field.name], row.columns.tensors[field.name])
            middle = float(np.median(apart))
            found[:, place[field.name]] = apart / middle if middle > 0 else apart > 0
        return found


def _trust(
    row: ExplainedRow, truth: NDArray[Any] | None, totals: NDArray[np.float64]
) -> TrustScore | None:
    """Compare the nearest row of the answered label with the nearest of the others."""
    labels, place = row.signature.output.labels, row.label_place
    if truth is None or labels is None or place is None:
        return None
    same, other = np.flatnonzero(truth == place), np.flatnonzero((truth != place) & (truth >= 0))
    if not len(same) or not len(other):
        return None
    to_answered, to_other = float(totals[same[0]]), float(totals[other[0]])
    return TrustScore(
        score=to_other / to_answered if to_answered > 0 else None,
        to_answered=to_answered,
        to_other=to_other,
        other=labels[int(truth[other[0]])],
    )


def _local_error(
    row: ExplainedRow, truth: NDArray[Any] | None, answers: Outputs | None, near: int
) -> LocalError | None:
    """Measure the error of the first `near` rows, and of all rows that were answered."""
    if truth is None or answers is None:
        return None
    truth = truth[: len(answers)]
    if answers.values is None:
        assert answers.choices is not None, "a classifier answers with choices"
        known = truth >= 0
        wrong = np.not_equal(truth, answers.choices)
        mine, every = wrong[:near][known[:near]], wrong[known]
        if not len(mine):
            return None
        return LocalError(
            measure="error rate",
            rows=len(mine),
            error=wilson_interval(float(mine.sum()), len(mine)),
            overall=float(every.mean()),
        )
    apart = np.abs(truth - answers.values)
    mine, every = apart[:near][~np.isnan(apart[:near])], apart[~np.isnan(apart)]
    if not len(mine):
        return None
    measure = mean_measure({"error": mine})
    found = bootstrap_intervals(measure, len(mine), seed=row.seed, resamples=RESAMPLES)
    return LocalError(
        measure="mean absolute error",
        rows=len(mine),
        error=found["error"],
        overall=float(every.mean()),
    )


def _truth(signature: Signature, truth: Any) -> Any:
    labels = signature.output.labels
    if labels is not None:
        return None if truth < 0 else labels[int(truth)]
    return None if np.isnan(truth) else float(truth)


def _answer(signature: Signature, answers: Outputs, place: int) -> Any:
    if place >= len(answers):  # the budget did not cover it
        return None
    labels = signature.output.labels
    if labels is not None and answers.choices is not None:
        return labels[int(answers.choices[place])]
    return None if answers.values is None else float(answers.values[place])


def _values(signature: Signature, rows: Columns, at: int) -> dict[str, Any]:
    """Return a row as a caller would send it."""
    found: dict[str, Any] = {}
    numeric = [field.name for field in signature.numeric]
    textual = [field.name for field in signature.textual]
    for field in signature.fields:
        if field.name in numeric:
            number = float(rows.numbers[at, numeric.index(field.name)])
            found[field.name] = None if np.isnan(number) else value_in_kind(field, number)
        elif field.name in textual:
            found[field.name] = rows.texts[at, textual.index(field.name)]
        else:
            found[field.name] = rows.tensors[field.name][at].tolist()
    return found


def _differences(
    signature: Signature, apart: NDArray[np.float64], values: dict[str, Any]
) -> list[FieldDifference]:
    order = np.argsort(-apart, kind="stable").tolist()
    names = [field.name for field in signature.fields]
    return [
        FieldDifference(field=names[at], value=values[names[at]], distance=float(apart[at]))
        for at in order
        if apart[at] > 0
    ]
